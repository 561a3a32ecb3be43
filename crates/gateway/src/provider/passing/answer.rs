//! What a provider's answer says about tokens: its usage, or the text it produced.

use std::fmt;

use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::provider::usage::Usage;

/// What one JSON answer, or one chunk of a stream, says.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Answer {
    pub(crate) usage: Option<Usage>,
    /// How much audio was heard, where that is said in place of tokens.
    pub(crate) seconds: Option<f64>,
    /// `choices` is there and empty.
    pub(crate) choices_empty: bool,
    /// `error` is there, and not null.
    pub(crate) is_error: bool,
    /// The generated text of all choices, in order of appearance; only if it was asked for.
    pub(crate) text: String,
}

/// `None` if the bytes are no JSON object. `with_text`: collect the generated text too.
pub(crate) fn decode(body: &[u8], with_text: bool) -> Option<Answer> {
    let mut text = String::new();
    let answer = decode_onto(body, with_text.then_some(&mut text))?;
    Some(Answer { text, ..answer })
}

/// The same, with the generated text put behind what is in `text` already; of what is no answer, nothing is.
pub(crate) fn decode_onto(body: &[u8], text: Option<&mut String>) -> Option<Answer> {
    let Some(text) = text else { return walk(body, None) };
    let before = text.len();
    let answer = walk(body, Some(text));
    if answer.is_none() {
        text.truncate(before);
    }
    answer
}

fn walk(body: &[u8], text: Option<&mut String>) -> Option<Answer> {
    let visitor = AnswerVisitor { text };
    // Each text in it would be looked at for being UTF-8, one by one. What is none may still be an answer, of which only
    // what is read must be.
    match std::str::from_utf8(body) {
        Ok(body) => whole(serde_json::Deserializer::from_str(body), visitor),
        Err(_) => whole(serde_json::Deserializer::from_slice(body), visitor),
    }
}

fn whole<'de, R: serde_json::de::Read<'de>>(
    mut json: serde_json::Deserializer<R>,
    visitor: AnswerVisitor<'_>,
) -> Option<Answer> {
    let answer = json.deserialize_map(visitor).ok()?;
    json.end().ok()?;
    Some(answer)
}

/// The members that say something. Not as texts: one that is borrowed where it can be would be copied all the same.
#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Member {
    Usage,
    Duration,
    Text,
    Output,
    Error,
    Content,
    Choices,
    #[serde(other)]
    Other,
}

struct AnswerVisitor<'t> {
    text: Option<&'t mut String>,
}

impl<'de> Visitor<'de> for AnswerVisitor<'_> {
    type Value = Answer;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an answer object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<Answer, A::Error> {
        let mut answer = Answer::default();
        while let Some(member) = entries.next_key::<Member>()? {
            match (member, self.text.as_deref_mut()) {
                (Member::Usage, _) => {
                    let raw: &RawValue = entries.next_value()?;
                    // In most chunks of a stream.
                    if raw.get() == "null" {
                        answer.usage = None;
                        continue;
                    }
                    answer.usage = serde_json::from_str(raw.get()).ok();
                    if answer.usage.is_none() {
                        answer.seconds = seconds(raw).or(answer.seconds);
                    }
                }
                // Of transcripts.
                (Member::Duration, _) => {
                    let raw: &RawValue = entries.next_value()?;
                    answer.seconds = answer.seconds.or(raw.get().trim_matches('"').parse().ok());
                }
                (Member::Text, Some(text)) => {
                    let raw: &RawValue = entries.next_value()?;
                    // What Responses call so are settings.
                    text.push_str(&serde_json::from_str::<String>(raw.get()).unwrap_or_default());
                }
                (Member::Output, Some(text)) => {
                    entries.next_value_seed(Generated { text: Some(text), place: Place::Output })?;
                }
                (Member::Error, _) => answer.is_error = entries.next_value::<&RawValue>()?.get() != "null",
                // Anthropic's.
                (Member::Content, Some(text)) => {
                    entries.next_value_seed(Generated { text: Some(text), place: Place::Written })?;
                }
                (Member::Choices, text) => {
                    answer.choices_empty =
                        entries.next_value_seed(Generated { text, place: Place::Choices })? == 0;
                }
                _ => drop(entries.next_value::<IgnoredAny>()?),
            }
        }
        Ok(answer)
    }
}

/// `{"type": "duration", "seconds": 12}`
fn seconds(usage: &RawValue) -> Option<f64> {
    #[derive(Deserialize)]
    struct Duration {
        seconds: f64,
    }
    serde_json::from_str::<Duration>(usage.get()).ok().map(|duration| duration.seconds)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Choices,
    Choice,
    /// Below `message`, `delta` or `text`: what the model wrote.
    Written,
    /// The same in `output` of Responses, whose items say more about themselves.
    Output,
}

/// What an item of Responses says about itself; `result` is a picture.
const ABOUT: [&str; 10] = [
    "role",
    "id",
    "type",
    "annotations",
    "status",
    "call_id",
    "encrypted_content",
    "logprobs",
    "phase",
    "result",
];

/// Collects the strings that a model wrote: text, refusals, reasoning, names and arguments of tool calls.
struct Generated<'t> {
    text: Option<&'t mut String>,
    place: Place,
}

impl<'de> DeserializeSeed<'de> for Generated<'_> {
    /// Items of a list; 1 for any other value.
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<usize, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Generated<'_> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("choices")
    }

    fn visit_unit<E>(self) -> Result<usize, E> {
        Ok(1)
    }

    fn visit_bool<E>(self, _: bool) -> Result<usize, E> {
        Ok(1)
    }

    fn visit_u64<E>(self, _: u64) -> Result<usize, E> {
        Ok(1)
    }

    fn visit_i64<E>(self, _: i64) -> Result<usize, E> {
        Ok(1)
    }

    fn visit_f64<E>(self, _: f64) -> Result<usize, E> {
        Ok(1)
    }

    fn visit_str<E>(self, value: &str) -> Result<usize, E> {
        if let (Some(text), Place::Written | Place::Output) = (self.text, self.place) {
            text.push_str(value);
        }
        Ok(1)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<usize, A::Error> {
        let place = if self.place == Place::Choices { Place::Choice } else { self.place };
        let mut count = 0;
        while items.next_element_seed(Generated { text: self.text.as_deref_mut(), place })?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<usize, A::Error> {
        let below = if self.place == Place::Output { Place::Output } else { Place::Written };
        while let Some(walked) = entries.next_key_seed(Walked(self.place))? {
            if walked && self.text.is_some() {
                entries.next_value_seed(Generated { text: self.text.as_deref_mut(), place: below })?;
            } else {
                entries.next_value::<IgnoredAny>()?;
            }
        }
        Ok(1)
    }
}

/// Whether what stands under a name in this place may be generated text.
struct Walked(Place);

impl<'de> DeserializeSeed<'de> for Walked {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Walked {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(match self.0 {
            Place::Choice => matches!(name, "message" | "delta" | "text"),
            Place::Written => !matches!(name, "role" | "id" | "type" | "annotations" | "signature"),
            Place::Output => !ABOUT.contains(&name),
            Place::Choices => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_of_an_answer() {
        let body = br#"{"usage":{"prompt_tokens":8,"completion_tokens":377,"total_tokens":385,"x":{}},"choices":[{}]}"#;
        let answer = decode(body, false).unwrap();
        assert_eq!(answer.usage, Some(Usage::of(8, 377)));
        assert!(!answer.choices_empty);
    }

    #[test]
    fn generated_text_of_chat_completions_and_tool_calls() {
        let text = |body: &str| decode(body.as_bytes(), true).unwrap().text;
        assert_eq!(text(r#"{"choices":[{"index":0,"message":{"role":"assistant","content":"Hi"}}]}"#), "Hi");
        assert_eq!(text(r#"{"choices":[{"text":"a"},{"text":"b"}]}"#), "ab");
        let call =
            r#"{"choices":[{"delta":{"tool_calls":[{"id":"x","function":{"name":"f","arguments":"{}"}}]}}]}"#;
        assert_eq!(text(call), "f{}");
        assert_eq!(text(r#"{"data":[{"embedding":[0.1]}]}"#), "");
    }

    #[test]
    fn anthropics_text_and_errors() {
        let body = br#"{"content":[{"type":"text","text":"Hi"},{"type":"tool_use","id":"x","name":"f","input":{"a":"b"}}]}"#;
        assert_eq!(decode(body, true).unwrap().text, "Hifb");
        let is_error = |body: &str| decode(body.as_bytes(), false).unwrap().is_error;
        assert!(is_error(r#"{"error":{"message":"x"}}"#) && !is_error(r#"{"error":null}"#));
    }

    #[test]
    fn responses_and_transcripts() {
        let body = br#"{"error":null,"text":{"format":{"type":"text"}},"output":[
            {"type":"reasoning","id":"r","summary":[{"type":"summary_text","text":"S"}],"encrypted_content":"XX"},
            {"type":"message","id":"m","status":"completed","role":"assistant",
                "content":[{"type":"output_text","text":"Hi","annotations":[]}]},
            {"type":"function_call","id":"f","call_id":"c","name":"f","arguments":"{}"}],
            "usage":{"input_tokens":3,"output_tokens":4}}"#;
        let answer = decode(body, true).unwrap();
        assert_eq!((answer.text.as_str(), answer.is_error), ("SHif{}", false));
        assert_eq!(answer.usage, Some(Usage::of(3, 4)));
        for (body, seconds) in [
            (r#"{"text":"Hi","usage":{"type":"duration","seconds":12}}"#, 12.0),
            (r#"{"text":"Hi","duration":8.5,"segments":[{"text":"Hi"}]}"#, 8.5),
            (r#"{"duration":"8.5","text":"Hi"}"#, 8.5),
        ] {
            let answer = decode(body.as_bytes(), true).unwrap();
            assert_eq!((answer.usage, answer.seconds, answer.text.as_str()), (None, Some(seconds), "Hi"));
        }
    }

    #[test]
    fn what_is_no_answer() {
        for body in ["", "[]", "oops", "{} {}", "{\"usage\":"] {
            assert_eq!(decode(body.as_bytes(), true), None, "{body}");
        }
    }
}
