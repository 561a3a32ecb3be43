//! The facts of a request that the gateway acts on, read in one pass over the body.

use std::{fmt, ops::Range};

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::provider::{
    beginning::Beginning,
    borrowed::Borrowed,
    endpoint::{Dialect, Endpoint},
    error_body::BadRequest,
    fields::{self, Field, WITHOUT_TOKENS},
    form::Form,
    output,
    stream_options::{self, StreamOptions},
    tally::{Input, Place, Tally, Walk},
};

/// The largest number of output tokens that a request may name.
pub(crate) const OUTPUT_TOKENS_MAX: u64 = 1_000_000_000;
/// What a provider may add to the schema of a `response_format`.
const FORMAT_TOKENS: u64 = 16;
/// The role of a message that the client did not write as one.
const ROLE_TOKENS: u64 = 1;
/// The largest `n` and `best_of`.
const CHOICES_MAX: u64 = 1024;
/// OpenAI's limit is 3.
const PARTIAL_IMAGES_MAX: u64 = 64;

/// What a request body says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) endpoint: Endpoint,
    pub(crate) model: Option<String>,
    pub(crate) stream: bool,
    /// The client asked for the usage of a stream itself.
    pub(crate) usage_asked: bool,
    /// `max_completion_tokens` or `max_tokens`, the larger if both are there: tokens of one choice. `max_output_tokens`
    /// of Responses.
    pub(crate) output_named: Option<u64>,
    /// The most output of one answer, where the endpoint knows no limit: pictures, speech, transcripts.
    pub(crate) output_fixed: u64,
    /// How many answers are generated: prompts × the larger of `n` and `best_of`.
    pub(crate) answers: u64,
    /// Measured in bytes: an upper bound of its tokens.
    pub(crate) input: Input,
    /// A digest of how the conversation begins.
    pub(crate) conversation: Option<u64>,
    pub(crate) places: Places,
    /// The body is no JSON but a form.
    pub(crate) form: Option<Form>,
}

/// Where in the body edits go: byte ranges of values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Places {
    /// Just after the opening brace.
    pub(crate) start: usize,
    /// The object has no member.
    pub(crate) empty: bool,
    /// Values that are there, null or not.
    pub(crate) model: Option<Range<usize>>,
    pub(crate) max_tokens: Option<Range<usize>>,
    pub(crate) max_completion_tokens: Option<Range<usize>>,
    pub(crate) max_output_tokens: Option<Range<usize>>,
    pub(crate) stream_options: Option<StreamOptions>,
}

impl Facts {
    /// Reads a body of at most a few MiB. Errors name the line and column or the field.
    pub(crate) fn decode(endpoint: Endpoint, body: &[u8]) -> Result<Self, BadRequest> {
        let (fields, input) = walk(endpoint, body, |text| text.len() as u64, Beginning::default())?;
        let output_named = fields.max_tokens.max(fields.max_completion_tokens).max(fields.max_output_tokens);
        let per_prompt = fields.n.unwrap_or(1).max(fields.best_of.unwrap_or(1)).max(1);
        Ok(Self {
            endpoint,
            output_fixed: fields.output_fixed(endpoint, &input),
            model: fields.model,
            // Speech comes as it is spoken, whatever its frames.
            stream: fields.stream || endpoint == Endpoint::Speech,
            usage_asked: matches!(fields.places.stream_options, Some(StreamOptions::On)),
            output_named,
            answers: fields.prompts.max(1).saturating_mul(per_prompt),
            input,
            conversation: fields.conversation,
            places: fields.places,
            form: None,
        })
    }

    /// Measures the input of the same body again, now with `measure` (a tokenizer).
    pub(crate) fn measure(&self, body: &[u8], measure: impl FnMut(&str) -> u64) -> Result<Input, BadRequest> {
        match &self.form {
            Some(form) => Ok(form.measure(&self.input, body, measure)),
            None => measure_input(self.endpoint, body, measure),
        }
    }
}

/// Measures the input again, now with `measure` (a tokenizer). The body has been decoded before.
pub(crate) fn measure_input(
    endpoint: Endpoint,
    body: &[u8],
    measure: impl FnMut(&str) -> u64,
) -> Result<Input, BadRequest> {
    walk(endpoint, body, measure, Beginning::known()).map(|(_, input)| input)
}

fn walk<F: FnMut(&str) -> u64>(
    endpoint: Endpoint,
    body: &[u8],
    measure: F,
    beginning: Beginning,
) -> Result<(Fields, Input), BadRequest> {
    let mut tally = Tally::new(measure, beginning);
    let mut bad = None;
    let mut json = serde_json::Deserializer::from_slice(body);
    let fields = json
        .deserialize_any(Body { endpoint, body, tally: &mut tally, bad: &mut bad })
        .and_then(|fields| json.end().map(|()| fields));
    match fields {
        Ok(fields) => Ok((fields, tally.input)),
        Err(error) => Err(bad.unwrap_or_else(|| BadRequest {
            message: format!("the request body is not a valid JSON object: {error}"),
            param: None,
        })),
    }
}

#[derive(Default)]
struct Fields {
    model: Option<String>,
    stream: bool,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    max_output_tokens: Option<u64>,
    n: Option<u64>,
    best_of: Option<u64>,
    prompts: u64,
    conversation: Option<u64>,
    /// Of pictures.
    quality: String,
    size: String,
    partial_images: u64,
    /// Speech comes as events, with its usage.
    speaks_events: bool,
    seen: u32,
    places: Places,
}

impl Fields {
    fn output_fixed(&self, endpoint: Endpoint, input: &Input) -> u64 {
        match endpoint {
            Endpoint::Images => output::picture(&self.quality, &self.size, self.partial_images),
            Endpoint::Speech if self.speaks_events => output::speech(input.text_bytes),
            _ => 0,
        }
    }
}

struct Body<'b, 't, F> {
    endpoint: Endpoint,
    body: &'b [u8],
    tally: &'t mut Tally<F>,
    /// Carries a field's own error past serde's text-only errors.
    bad: &'t mut Option<BadRequest>,
}

impl<'de, F: FnMut(&str) -> u64> Visitor<'de> for Body<'_, '_, F> {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<Fields, A::Error> {
        let mut fields = Fields::default();
        fields.places.start = self.body.iter().position(|byte| *byte == b'{').map_or(0, |at| at + 1);
        fields.places.empty = true;
        while let Some(Borrowed(key)) = entries.next_key()? {
            fields.places.empty = false;
            self.tally.beginning.opens(&key);
            self.field(&key, &mut entries, &mut fields)?;
            self.tally.beginning.closes();
        }
        fields.conversation = self.tally.beginning.digest();
        Ok(fields)
    }
}

impl<F: FnMut(&str) -> u64> Body<'_, '_, F> {
    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        key: &str,
        entries: &mut A,
        fields: &mut Fields,
    ) -> Result<(), A::Error> {
        let Some((bit, name, field)) = fields::known(self.endpoint, key) else {
            return self.other(key, entries);
        };
        // Two values for one field: the provider might act on the one that was not measured.
        if fields.seen & bit != 0 {
            return Err(self.refuse(name, format!("`{key}` is there twice; send it once")));
        }
        fields.seen |= bit;
        let place = match field {
            Field::Setting => return self.setting(name, entries.next_value()?, fields),
            Field::Kept => {
                let kept: &RawValue = entries.next_value()?;
                self.tally.input.unbounded += u64::from(kept.get() != "null");
                return Ok(());
            }
            Field::Input(place) => place,
        };
        // Text makes a message of its own: so do, in other dialects, the prompts that Anthropic's has beside its messages.
        if name == "system" {
            self.tally.tokens(ROLE_TOKENS);
        }
        if name == "system"
            || (self.endpoint == Endpoint::Responses && matches!(name, "input" | "instructions"))
        {
            self.tally.input.messages += 1;
        }
        let texts = entries.next_value_seed(Walk { tally: &mut *self.tally, place })?;
        if name == "tools" && self.endpoint.dialect() == Dialect::Anthropic {
            // Its prompt for tools may come also where there are none in the list.
            self.tally.input.tools = self.tally.input.tools.max(1);
        }
        if name == "prompt" && self.endpoint == Endpoint::Completions {
            fields.prompts = texts;
        }
        Ok(())
    }

    fn other<'de, A: MapAccess<'de>>(&mut self, key: &str, entries: &mut A) -> Result<(), A::Error> {
        if WITHOUT_TOKENS.contains(&key) {
            return entries.next_value::<IgnoredAny>().map(drop);
        }
        match key {
            "response_format" | "output_config" | "output_format" | "text" => {
                self.tally.tokens(FORMAT_TOKENS);
                self.tally.input.formats += 1;
            }
            // Anthropic fetches what they give and puts it into the prompt.
            "mcp_servers" | "container" => self.tally.input.unbounded += 1,
            "context_management" => {
                let raw: &RawValue = entries.next_value()?;
                // The provider writes a summary first, and reads all for that once more.
                self.tally.input.unbounded += u64::from(raw.get().contains("compact"));
                let mut json = serde_json::Deserializer::from_str(raw.get());
                let walk = Walk { tally: &mut *self.tally, place: Place::Structure };
                return walk.deserialize(&mut json).map(drop).map_err(A::Error::custom);
            }
            _ => {}
        }
        entries.next_value_seed(Walk { tally: &mut *self.tally, place: Place::Structure }).map(drop)
    }

    fn setting<E: Error>(
        &mut self,
        name: &'static str,
        raw: &RawValue,
        fields: &mut Fields,
    ) -> Result<(), E> {
        let range = self.range(raw);
        let null = raw.get() == "null";
        match name {
            "model" => {
                fields.places.model = Some(range);
                match serde_json::from_str::<Option<String>>(raw.get()) {
                    Ok(model) => fields.model = model.filter(|model| !model.is_empty()),
                    Err(_) => return Err(self.refuse(name, "`model` must be a string".to_owned())),
                }
            }
            "stream" => match raw.get() {
                "true" => fields.stream = true,
                "false" | "null" => {}
                _ => return Err(self.refuse(name, "`stream` must be true or false".to_owned())),
            },
            "stream_options" if null => fields.places.stream_options = Some(StreamOptions::Null(range)),
            "stream_options" => match stream_options::decode(raw.get(), range.start) {
                Some(options) => fields.places.stream_options = Some(options),
                None => {
                    let message =
                        "`stream_options` must be an object, with `include_usage` at most once".to_owned();
                    return Err(self.refuse(name, message));
                }
            },
            "max_tokens" => {
                fields.max_tokens = self.whole(name, raw, OUTPUT_TOKENS_MAX)?;
                fields.places.max_tokens = Some(range);
            }
            "max_completion_tokens" => {
                fields.max_completion_tokens = self.whole(name, raw, OUTPUT_TOKENS_MAX)?;
                fields.places.max_completion_tokens = Some(range);
            }
            "max_output_tokens" => {
                fields.max_output_tokens = self.whole(name, raw, OUTPUT_TOKENS_MAX)?;
                fields.places.max_output_tokens = Some(range);
            }
            "background" if raw.get() == "true" => {
                let message = "`background` cannot be true here: what the answer costs would only be known after \
                               it; leave it out, and ask for a stream";
                return Err(self.refuse(name, message.to_owned()));
            }
            "background" => {}
            "quality" => fields.quality = self.word(name, raw)?,
            "size" => fields.size = self.word(name, raw)?,
            "stream_format" => fields.speaks_events = self.word(name, raw)? == "sse",
            "partial_images" => {
                fields.partial_images = self.whole(name, raw, PARTIAL_IMAGES_MAX)?.unwrap_or(0);
            }
            "n" => fields.n = self.whole(name, raw, CHOICES_MAX)?,
            _ => fields.best_of = self.whole(name, raw, CHOICES_MAX)?,
        }
        Ok(())
    }

    fn whole<E: Error>(&mut self, name: &'static str, raw: &RawValue, max: u64) -> Result<Option<u64>, E> {
        if raw.get() == "null" {
            return Ok(None);
        }
        match raw.get().parse::<u64>() {
            Ok(value) if value <= max => Ok(Some(value)),
            _ => {
                let shown: String = raw.get().chars().take(40).collect();
                Err(self
                    .refuse(name, format!("`{name}` must be a whole number from 0 to {max}, not {shown}")))
            }
        }
    }

    /// Empty: null.
    fn word<E: Error>(&mut self, name: &'static str, raw: &RawValue) -> Result<String, E> {
        let word = serde_json::from_str::<Option<String>>(raw.get());
        word.map(Option::unwrap_or_default)
            .map_err(|_| self.refuse(name, format!("`{name}` must be a string")))
    }

    fn refuse<E: Error>(&mut self, name: &'static str, message: String) -> E {
        *self.bad = Some(BadRequest::of(name, message));
        E::custom("refused")
    }

    /// Where a value stands in the body: raw values borrow from it.
    fn range(&self, raw: &RawValue) -> Range<usize> {
        let start = (raw.get().as_ptr() as usize).saturating_sub(self.body.as_ptr() as usize);
        start..start + raw.get().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(body: &str) -> Result<Facts, BadRequest> {
        Facts::decode(Endpoint::Chat, body.as_bytes())
    }

    #[test]
    fn reads_what_matters() {
        let facts = chat(
            r#" {"model":"gpt-4o","messages":[{"role":"user","content":"Hi"}],"n":2,
                "max_tokens":5,"max_completion_tokens":7,"stream":true,"stream_options":{"include_usage":true}}"#,
        )
        .unwrap();
        assert_eq!(facts.model.as_deref(), Some("gpt-4o"));
        assert_eq!((facts.output_named, facts.answers), (Some(7), 2));
        assert!(facts.stream && facts.usage_asked);
        assert_eq!(facts.places.start, 2);
    }

    #[test]
    fn amounts_that_are_no_amounts_are_refused_by_name() {
        for value in ["-1", "1.5", "1e3", "\"9\"", "99999999999999999999999999", "1000000001", "[]"] {
            let error = chat(&format!(r#"{{"model":"m","max_tokens":{value}}}"#)).unwrap_err();
            assert_eq!(error.param.as_deref(), Some("max_tokens"), "{value}");
            assert!(error.message.contains(value), "{error}");
        }
        assert_eq!(chat(r#"{"max_tokens":0}"#).unwrap().output_named, Some(0));
        assert_eq!(chat(r#"{"n":-2}"#).unwrap_err().param.as_deref(), Some("n"));
    }

    #[test]
    fn malformed_json_names_the_place() {
        let error = chat("{\"model\": \"m\",\n  oops}").unwrap_err();
        assert!(error.message.contains("line 2 column"), "{error}");
        for body in ["", "[]", "null", "\"x\"", "{} x", "{\"a\":", "\u{feff}{}"] {
            assert!(chat(body).is_err(), "{body}");
        }
        assert!(Facts::decode(Endpoint::Chat, b"{\"messages\":\"\xff\"}").is_err());
        let deep = format!("{{\"messages\":{}", "[".repeat(100_000));
        assert!(chat(&deep).is_err(), "nesting is bounded");
    }

    #[test]
    fn a_field_that_counts_is_accepted_once_only() {
        for body in [
            r#"{"max_tokens":1,"max_tokens":100}"#,
            r#"{"messages":[],"messages":[]}"#,
            r#"{"n":1,"\u006e":9}"#,
            r#"{"stream_options":{"include_usage":true,"include_usage":false}}"#,
        ] {
            assert!(chat(body).is_err(), "{body}");
        }
    }

    #[test]
    fn prompts_multiply_the_answers() {
        let answers = |body: &str| Facts::decode(Endpoint::Completions, body.as_bytes()).unwrap().answers;
        assert_eq!(answers(r#"{"prompt":"a"}"#), 1);
        assert_eq!(answers(r#"{"prompt":["a","b","c"],"best_of":2}"#), 6);
        assert_eq!(answers(r#"{"prompt":[1,2,3]}"#), 1);
        assert_eq!(answers(r#"{"prompt":[[1,2,3],[4]],"n":2}"#), 4);
        assert_eq!(answers(r#"{}"#), 1);
    }

    #[test]
    fn facts_of_responses() {
        let read = |body: &str| Facts::decode(Endpoint::Responses, body.as_bytes());
        for (body, output, messages, tools, unbounded) in [
            (r#"{"input":"Hi","max_output_tokens":50,"stream":true}"#, Some(50), 1, 0, 0),
            (r#"{"input":[{"role":"user","content":"Hi"}],"instructions":"Be brief"}"#, None, 3, 0, 0),
            (r#"{"tools":[{"type":"function","name":"f"},{"type":"custom","name":"g"}]}"#, None, 0, 2, 0),
            (
                r#"{"tools":[{"type":"web_search"},{"type":"code_interpreter"},{"type":"mcp"}]}"#,
                None,
                0,
                3,
                3,
            ),
            (r#"{"previous_response_id":"r","conversation":"c","prompt":{"id":"p"}}"#, None, 0, 0, 3),
            (r#"{"previous_response_id":null,"conversation":null,"prompt":null}"#, None, 0, 0, 0),
            (r#"{"background":false,"max_tokens":9,"reasoning":{"effort":"low"}}"#, None, 0, 0, 0),
        ] {
            let facts = read(body).unwrap();
            let Input { messages: found, tools: defined, unbounded: open, .. } = facts.input;
            assert_eq!(
                (facts.output_named, found, defined, open),
                (output, messages, tools, unbounded),
                "{body}"
            );
        }
        let error = read(r#"{"background":true}"#).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("background"));
        assert!(read(r#"{"input":"a","input":"b"}"#).is_err());
        let settings = r#"{"include":["x"],"metadata":{"a":"b"},"truncation":"auto","store":false}"#;
        assert_eq!(read(settings).unwrap().input.text, 0);
        assert!(read(r#"{"text":{"format":{"schema":{"a":"0123456789"}}}}"#).unwrap().input.text > 10);
    }

    #[test]
    fn facts_of_pictures_and_speech() {
        let read = |endpoint, body: &str| Facts::decode(endpoint, body.as_bytes()).unwrap();
        let picture = |body: &str| read(Endpoint::Images, body);
        let low =
            picture(r#"{"prompt":"a cat","n":3,"quality":"low","size":"1024x1024","background":"opaque"}"#);
        assert_eq!((low.answers, low.stream), (3, false));
        assert!(
            low.output_fixed < picture(r#"{"prompt":"a cat","quality":"auto","size":null}"#).output_fixed
        );
        let error = Facts::decode(Endpoint::Images, br#"{"size":[1]}"#).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("size"));
        let speech = read(Endpoint::Speech, r#"{"input":"Hello","voice":"alloy","instructions":"low"}"#);
        assert_eq!((speech.input.text, speech.output_fixed, speech.stream), (8, 0, true));
        assert!(read(Endpoint::Speech, r#"{"input":"Hello","stream_format":"sse"}"#).output_fixed > 40);
    }

    #[test]
    fn unknown_fields_count_as_text_and_settings_do_not() {
        let text = |body: &str| chat(body).unwrap().input.text;
        assert_eq!(text(r#"{"temperature":1,"stop":["abc"],"metadata":{"a":"b"}}"#), 0);
        assert!(text(r#"{"documents":[{"title":"0123456789"}]}"#) >= 15);
    }

    proptest::proptest! {
        #[test]
        fn never_panics(body in ".{0,200}") {
            let _ = chat(&body);
        }

        #[test]
        fn never_panics_on_json_like_text(parts in proptest::collection::vec(
            proptest::sample::select(vec!["{", "}", "[", "]", ":", ",", "\"n\"", "\"stream_options\"",
                "\"include_usage\"", "null", "true", "1", "\"prompt\"", "\"messages\"", "\"content\"", " "]), 0..24)) {
            let _ = Facts::decode(Endpoint::Completions, parts.concat().as_bytes());
        }
    }
}
