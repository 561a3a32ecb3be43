//! Measures the text of a JSON value while it is parsed: in bytes for a quick bound, or in tokens with a tokenizer.
//!
//! Only what a provider can turn into tokens is counted. The walk allocates nothing for strings without escapes.

use std::{borrow::Cow, fmt};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::provider::{
    beginning::Beginning,
    borrowed::Borrowed,
    kinds::{ITEMS, OWN_TOOL_TOKENS, is_run_by_the_client},
};

/// What a body holds, measured by `measure`, which must give an upper bound of the tokens of one piece of text.
pub(crate) struct Tally<F> {
    measure: F,
    pub(crate) input: Input,
    pub(crate) beginning: Beginning,
}

/// The measured input of one request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Input {
    /// Tokens (or bytes) of all text, plus one for each token id.
    pub(crate) text: u64,
    /// Bytes of all text: what counting exactly would have to read.
    pub(crate) text_bytes: u64,
    pub(crate) messages: u64,
    /// Tool definitions and functions.
    pub(crate) tools: u64,
    /// Calls of tools in the turns.
    pub(crate) calls: u64,
    /// Fields that say what the answer must be.
    pub(crate) formats: u64,
    pub(crate) images: u64,
    /// Tokens of audio in a file, at most.
    pub(crate) audio: u64,
    /// What cannot be bounded: files (by content or by id), and tools that the provider runs, whose results come on top.
    pub(crate) unbounded: u64,
}

/// A number in text position is rendered as at most this many bytes.
const NUMBER_BYTES_MAX: u64 = 24;
/// Punctuation around one key and value of a structure, wherever a provider renders it into the prompt.
const ENTRY_TOKENS: u64 = 3;
/// The role of a tool's message, and "Error: ".
const RESULT_TOKENS: u64 = 4;
/// Audio costs ten tokens a second; no codec in use is below 1,000 base64 bytes a second. A generous margin on that.
const AUDIO_BYTES_PER_TOKEN: u64 = 32;

impl<F: FnMut(&str) -> u64> Tally<F> {
    pub(crate) fn new(measure: F, beginning: Beginning) -> Self {
        Self { measure, input: Input::default(), beginning }
    }

    fn text(&mut self, text: &str) {
        let bytes = text.len() as u64;
        self.input.text_bytes = self.input.text_bytes.saturating_add(bytes);
        self.input.text = self.input.text.saturating_add((self.measure)(text));
    }

    /// A structure may be shown as JSON, where each of these is one or more bytes longer.
    fn escapes(&mut self, text: &str) {
        let longer = text.bytes().map(|byte| match byte {
            b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 1,
            0..0x20 => 5,
            _ => 0,
        });
        self.tokens(longer.sum());
    }

    pub(crate) fn tokens(&mut self, tokens: u64) {
        self.input.text = self.input.text.saturating_add(tokens);
    }
}

/// What the value under the cursor is, and so how its members count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// `messages`: a list of messages.
    Messages,
    Message,
    /// `input` of Responses: text, or a list of items, messages among them.
    Items,
    Item,
    /// `content` of a message: text, or a list of parts.
    Content,
    Part,
    /// `text` of a part.
    Text,
    /// `role` of a message.
    Role,
    /// `prompt` and `input`: text, token ids, or lists of these.
    Prompt,
    /// `tools`, `functions`: a list of definitions.
    Tools,
    Tool,
    /// Anything else that a provider may render into the prompt.
    Structure,
    /// `tool_calls` of a message.
    Calls,
    /// Base64 audio.
    Audio,
}

/// Walks one JSON value in the role of `place`.
pub(crate) struct Walk<'t, F> {
    pub(crate) tally: &'t mut Tally<F>,
    pub(crate) place: Place,
}

impl<'de, F: FnMut(&str) -> u64> DeserializeSeed<'de> for Walk<'_, F> {
    /// How many texts the value holds: 0 for a number, the sum of its members (at least 1) for a list, else 1.
    type Value = u64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u64, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, F: FnMut(&str) -> u64> Visitor<'de> for Walk<'_, F> {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<u64, E> {
        Ok(1)
    }

    fn visit_bool<E>(self, _: bool) -> Result<u64, E> {
        self.number();
        Ok(0)
    }

    fn visit_u64<E>(self, _: u64) -> Result<u64, E> {
        self.number();
        Ok(0)
    }

    fn visit_i64<E>(self, _: i64) -> Result<u64, E> {
        self.number();
        Ok(0)
    }

    fn visit_f64<E>(self, _: f64) -> Result<u64, E> {
        self.number();
        Ok(0)
    }

    fn visit_str<E>(self, text: &str) -> Result<u64, E> {
        let said = matches!(self.place, Place::Content | Place::Text | Place::Prompt);
        match self.place {
            Place::Audio => self.tally.tokens(text.len() as u64 / AUDIO_BYTES_PER_TOKEN + 1),
            _ => {
                self.tally.beginning.text(text, said);
                self.tally.text(text);
            }
        }
        if self.place == Place::Structure {
            self.tally.escapes(text);
        }
        if self.place == Place::Role {
            self.tally.beginning.role(text);
        }
        Ok(1)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<u64, A::Error> {
        let Walk { tally, place } = self;
        // A list is no text and no role.
        let place = if matches!(place, Place::Text | Place::Role) { Place::Structure } else { place };
        let member = match place {
            Place::Messages => Place::Message,
            Place::Items => Place::Item,
            Place::Content => Place::Part,
            Place::Tools => Place::Tool,
            Place::Calls => Place::Structure,
            other => other,
        };
        let mut texts = 0_u64;
        while let Some(found) = items.next_element_seed(Walk { tally: &mut *tally, place: member })? {
            texts = texts.saturating_add(found);
            match place {
                Place::Messages | Place::Items => {
                    tally.input.messages += 1;
                    tally.beginning.message_ends();
                }
                Place::Tools => tally.input.tools += 1,
                Place::Calls => {
                    tally.input.calls += 1;
                    tally.tokens(1);
                }
                Place::Structure => tally.tokens(1),
                _ => {}
            }
        }
        Ok(texts.max(1))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<u64, A::Error> {
        let Walk { tally, place } = self;
        let mut part = PartSeen::default();
        while let Some(key) = entries.next_key_seed(Key { tally: &mut *tally, place })? {
            match key {
                Member::Walked(place) => {
                    entries.next_value_seed(Walk { tally: &mut *tally, place })?;
                }
                Member::Image => {
                    entries.next_value::<IgnoredAny>()?;
                    tally.input.images += 1;
                    part.has_image = true;
                }
                Member::Role => {
                    entries.next_value_seed(Walk { tally: &mut *tally, place: Place::Role })?;
                    part.has_role = true;
                }
                Member::File => {
                    entries.next_value::<IgnoredAny>()?;
                    tally.input.unbounded += 1;
                }
                Member::Type => {
                    let Borrowed(kind) = entries.next_value()?;
                    tally.text(&kind);
                    part.kind = Some(kind);
                }
                Member::Source => {
                    // Text that the part's type makes a document counts as text, whatever the type turns out to be.
                    let source: &RawValue = entries.next_value()?;
                    part.source = Some(source);
                }
            }
        }
        part.count(tally, place);
        Ok(1)
    }
}

/// What decides how a content part or a tool counts, in whatever order its members come.
#[derive(Default)]
struct PartSeen<'de> {
    kind: Option<Cow<'de, str>>,
    /// Anthropic's, of an image or a document.
    source: Option<&'de RawValue>,
    has_image: bool,
    has_role: bool,
}

impl PartSeen<'_> {
    fn count<F: FnMut(&str) -> u64>(self, tally: &mut Tally<F>, place: Place) {
        let kind = self.kind.as_deref().unwrap_or_default();
        if place == Place::Tool && !kind.is_empty() {
            if !is_run_by_the_client(kind) {
                tally.input.unbounded += 1;
            } else if kind.contains('_') {
                tally.tokens(OWN_TOOL_TOKENS);
            }
        }
        match (place, kind) {
            (Place::Item, "" | "message") if self.has_role => {}
            // What the provider has kept, or found for a tool of its own; without a type it is a reference.
            (Place::Item, kind) if !ITEMS.contains(&kind) => tally.input.unbounded += 1,
            (Place::Part, "input_file") => tally.input.unbounded += 1,
            (Place::Part, "tool_use") => tally.input.calls += 1,
            // Elsewhere it is a message of its own, and one that failed says so.
            (Place::Part, "tool_result") => {
                tally.input.messages += 1;
                tally.tokens(RESULT_TOKENS);
            }
            // By the id of its file.
            (Place::Part, "input_image" | "computer_screenshot") if !self.has_image => {
                tally.input.images += 1;
            }
            _ => {}
        }
        let Some(source) = self.source else { return };
        #[derive(serde::Deserialize)]
        struct Text<'a> {
            #[serde(borrow, rename = "type")]
            kind: Cow<'a, str>,
            #[serde(borrow)]
            data: Option<Cow<'a, str>>,
        }
        match (kind, serde_json::from_str::<Text<'_>>(source.get())) {
            ("image", _) => tally.input.images += 1,
            ("document", Ok(Text { kind, data: Some(data) })) if kind == "text" => tally.text(&data),
            _ => tally.input.unbounded += 1,
        }
    }
}

impl<F: FnMut(&str) -> u64> Walk<'_, F> {
    fn number(self) {
        match self.place {
            Place::Prompt => self.tally.tokens(1),
            _ => self.tally.tokens(NUMBER_BYTES_MAX),
        }
    }
}

enum Member {
    Walked(Place),
    Image,
    File,
    Role,
    /// The type of a part or a tool.
    Type,
    Source,
}

/// Reads a key: decides what its value is, and counts the key itself unless it is part of the known schema.
struct Key<'t, F> {
    tally: &'t mut Tally<F>,
    place: Place,
}

impl<'de, F: FnMut(&str) -> u64> DeserializeSeed<'de> for Key<'_, F> {
    type Value = Member;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Member, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<F: FnMut(&str) -> u64> Visitor<'_> for Key<'_, F> {
    type Value = Member;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Member, E> {
        let known = match (self.place, key) {
            (Place::Message, "content") => Member::Walked(Place::Content),
            (Place::Message, "role") => Member::Walked(Place::Role),
            (Place::Message, "name" | "refusal" | "tool_call_id") => Member::Walked(Place::Structure),
            (Place::Message, "audio") => Member::Walked(Place::Audio),
            (Place::Message, "tool_calls") => {
                self.tally.text(key);
                self.tally.tokens(ENTRY_TOKENS);
                Member::Walked(Place::Calls)
            }
            (Place::Part | Place::Tool | Place::Item, "type") => Member::Type,
            (Place::Item, "role") => Member::Role,
            (Place::Item, "content") => Member::Walked(Place::Content),
            // Of tools: text, a list of parts, or a screenshot.
            (Place::Item, "output") => Member::Walked(Place::Part),
            (Place::Item, "id" | "status" | "call_id" | "name" | "arguments" | "input" | "summary") => {
                Member::Walked(Place::Structure)
            }
            (Place::Part, "text") => Member::Walked(Place::Text),
            (Place::Part, "refusal") => Member::Walked(Place::Structure),
            // Of Anthropic's tool results.
            (Place::Part, "content") => Member::Walked(Place::Content),
            (Place::Part, "source") => Member::Source,
            (Place::Part, "image_url") => Member::Image,
            (Place::Part, "input_audio") => Member::Walked(Place::Audio),
            (Place::Part, "file" | "file_data" | "file_url") => Member::File,
            (Place::Audio, _) => Member::Walked(self.place),
            _ => {
                self.tally.text(key);
                self.tally.tokens(ENTRY_TOKENS);
                Member::Walked(Place::Structure)
            }
        };
        Ok(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(place: Place, json: &str) -> Input {
        let mut tally = Tally::new(|text: &str| text.len() as u64, Beginning::default());
        Walk { tally: &mut tally, place }.deserialize(&mut serde_json::Deserializer::from_str(json)).unwrap();
        tally.input
    }

    #[test]
    fn messages_count_their_strings_and_not_their_schema() {
        let input = measured(Place::Messages, r#"[{"role":"user","content":"Hello!"},{"role":"assistant"}]"#);
        assert_eq!((input.text, input.text_bytes, input.messages), (4 + 6 + 9, 19, 2));
    }

    #[test]
    fn escapes_count_as_the_text_they_stand_for() {
        assert_eq!(measured(Place::Prompt, r#""\u00e9\n""#).text, 3);
    }

    #[test]
    fn token_ids_count_as_one_each() {
        assert_eq!(measured(Place::Prompt, "[[1,2,3],[4]]").text, 4);
    }

    #[test]
    fn images_and_files_are_numbered_and_audio_is_bounded_by_its_length() {
        let image = r#"[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:AAAA"}}]}]"#;
        let input = measured(Place::Messages, image);
        assert_eq!((input.images, input.text), (1, 4 + 9));
        let file = r#"[{"role":"user","content":[{"type":"file","file":{"file_id":"x"}}]}]"#;
        assert_eq!(measured(Place::Messages, file).unbounded, 1);
        let audio = format!(r#"[{{"content":[{{"input_audio":{{"data":"{}"}}}}]}}]"#, "A".repeat(3200));
        assert_eq!(measured(Place::Messages, &audio).text, 101);
    }

    #[test]
    fn anthropics_sources_count_by_the_type_of_their_part() {
        let part = |part: &str| measured(Place::Messages, &format!(r#"[{{"content":[{part}]}}]"#));
        let image =
            part(r#"{"source":{"type":"base64","media_type":"image/png","data":"AAAAAAAA"},"type":"image"}"#);
        assert_eq!((image.images, image.unbounded, image.text), (1, 0, 5));
        let text = part(
            r#"{"type":"document","source":{"type":"text","media_type":"text/plain","data":"0123456789"}}"#,
        );
        assert_eq!((text.unbounded, text.text), (0, 8 + 10));
        assert_eq!(
            part(r#"{"type":"document","source":{"type":"url","url":"https://x/y.pdf"}}"#).unbounded,
            1
        );
        let nested = r#"{"type":"tool_result","content":[{"type":"image","source":{"type":"url","url":"https://x"}}]}"#;
        assert_eq!(part(nested).images, 1);
    }

    #[test]
    fn tools_that_the_provider_runs_have_no_bound() {
        let unbounded =
            |kind: &str| measured(Place::Tools, &format!(r#"[{{"name":"x","type":"{kind}"}}]"#)).unbounded;
        assert_eq!(["function", "custom", "bash_20250124"].map(unbounded), [0, 0, 0]);
        assert_eq!(["web_search_20250305", "mcp", "code_interpreter"].map(unbounded), [1, 1, 1]);
    }

    #[test]
    fn items_of_responses() {
        for (item, text, images, unbounded) in [
            (r#"{"role":"user","content":"Hi"}"#, 6, 0, 0),
            (r#"{"type":"message","role":"user","content":[{"type":"input_text","text":"Hi"}]}"#, 23, 0, 0),
            (r#"{"role":"user","content":[{"type":"input_image","image_url":"data:AAAA"}]}"#, 15, 1, 0),
            (r#"{"role":"user","content":[{"type":"input_image","file_id":"x"}]}"#, 26, 1, 0),
            (r#"{"role":"user","content":[{"type":"input_file","file_data":"AAAA"}]}"#, 14, 0, 2),
            (r#"{"role":"user","content":[{"type":"input_file","file_id":"x"}]}"#, 25, 0, 1),
            (r#"{"type":"function_call","call_id":"c","name":"f","arguments":"{}"}"#, 17, 0, 0),
            (r#"{"type":"function_call_output","call_id":"c","output":"Hello"}"#, 26, 0, 0),
            (
                r#"{"type":"function_call_output","call_id":"c","output":[{"type":"input_text","text":"a"}]}"#,
                32,
                0,
                0,
            ),
            (
                r#"{"type":"computer_call_output","call_id":"c","output":{"type":"computer_screenshot","image_url":"data:A"}}"#,
                40,
                1,
                0,
            ),
            (r#"{"type":"reasoning","id":"r","summary":[{"type":"summary_text","text":"a"}]}"#, 38, 0, 0),
            (r#"{"type":"item_reference","id":"x"}"#, 15, 0, 1),
            (r#"{"id":"x"}"#, 1, 0, 1),
            (r#"{"type":"web_search_call","id":"x","status":"completed"}"#, 25, 0, 1),
        ] {
            let input = measured(Place::Items, &format!("[{item}]"));
            assert_eq!((input.text, input.images, input.unbounded), (text, images, unbounded), "{item}");
            assert_eq!(input.messages, 1);
        }
        assert_eq!(measured(Place::Items, r#""Hello""#).text, 5);
        assert_eq!(measured(Place::Tools, r#"[{"type":"computer_use_preview"}]"#).unbounded, 1);
    }

    #[test]
    fn an_image_key_outside_a_content_part_hides_nothing() {
        let input = measured(Place::Messages, r#"[{"role":"user","image_url":"0123456789"}]"#);
        assert_eq!(input.images, 0);
        assert!(input.text >= 4 + 9 + 10);
    }

    #[test]
    fn tools_are_at_least_their_compact_json_without_quotes() {
        let input = measured(Place::Tools, r#"[{"type":"function","function":{"name":"f","strict":true}}]"#);
        assert_eq!(input.tools, 1);
        assert!(input.text >= "typefunctionfunctionnamefstricttrue".len() as u64);
    }
}
