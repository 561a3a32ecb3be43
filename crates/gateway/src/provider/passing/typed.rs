//! Streams whose events say in their own `type` what they are: those of Responses, pictures, speech and transcripts. They
//! pass as they are, and are read for what they cost and for how they end.
//!
//! Source: OpenAI's API reference, "Streaming events" of each of these endpoints.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::provider::{answer, endpoint::Endpoint, openai, reply::ApiError, usage::Usage};

/// What the events of one stream have said so far.
#[derive(Debug)]
pub(crate) struct Reader {
    endpoint: Endpoint,
    /// Of all pictures together: each one says its own.
    pictures: Option<Usage>,
}

/// What one event says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    /// All usage so far.
    pub(crate) usage: Option<Usage>,
    /// Generated text in it.
    pub(crate) text: String,
    pub(crate) error: Option<ApiError>,
    /// Nothing follows.
    pub(crate) done: bool,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    response: Option<&'a RawValue>,
    #[serde(borrow, default)]
    delta: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

/// An error in the words of Responses: in `response.error`, or the event itself.
#[derive(Deserialize)]
struct Words<'a> {
    #[serde(borrow, default)]
    code: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    message: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    param: Option<Cow<'a, str>>,
}

impl Reader {
    pub(crate) fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, pictures: None }
    }

    /// Reads the data of one event. What is not understood says nothing.
    pub(crate) fn read(&mut self, data: &[u8]) -> Said {
        if data.trim_ascii() == b"[DONE]" {
            return Said { done: true, ..Said::default() };
        }
        let Ok(event) = serde_json::from_slice::<Event<'_>>(data) else { return Said::default() };
        if let Some(error) = event.error.filter(|error| error.get() != "null") {
            let error = if self.endpoint == Endpoint::Responses {
                words(error.get())
            } else {
                openai::error::decode(500, "", data)
            };
            return Said { error: Some(error), ..Said::default() };
        }
        match event.kind.as_ref() {
            "error" => {
                let error = std::str::from_utf8(data).map(words).unwrap_or_else(|_| words(""));
                Said { error: Some(error), ..Said::default() }
            }
            "response.completed" | "response.incomplete" | "response.failed" => ended(&event),
            "image_generation.completed" => {
                let one = usage(data);
                self.pictures = sum(self.pictures, one);
                Said { usage: self.pictures, ..Said::default() }
            }
            "speech.audio.done" | "transcript.text.done" => {
                Said { usage: usage(data), done: true, ..Said::default() }
            }
            kind if is_text(kind) => {
                let text = event.delta.and_then(|delta| serde_json::from_str(delta.get()).ok());
                Said { text: text.unwrap_or_default(), ..Said::default() }
            }
            // Compatible servers write transcripts in the chunks of chat.
            "" => {
                let chunk = answer::decode(data, true).unwrap_or_default();
                Said { usage: chunk.usage, text: chunk.text, ..Said::default() }
            }
            _ => Said::default(),
        }
    }

    /// Whether a stream that ends here is whole: only pictures come in a number that nobody announces.
    pub(crate) fn is_whole(&self) -> bool {
        self.endpoint == Endpoint::Images && self.pictures.is_some()
    }
}

/// The last event of Responses: it holds the whole answer.
fn ended(event: &Event<'_>) -> Said {
    let Some(response) = event.response else { return Said { done: true, ..Said::default() } };
    #[derive(Deserialize)]
    struct Response<'a> {
        #[serde(borrow, default)]
        error: Option<&'a RawValue>,
    }
    let usage = usage(response.get().as_bytes());
    let failed = event.kind == "response.failed";
    let error = failed.then(|| {
        let response = serde_json::from_str::<Response<'_>>(response.get());
        words(response.ok().and_then(|response| response.error).map_or("", RawValue::get))
    });
    Said { usage, error, done: !failed, ..Said::default() }
}

fn usage(object: &[u8]) -> Option<Usage> {
    answer::decode(object, false)?.usage
}

fn is_text(kind: &str) -> bool {
    const TEXTS: [&str; 8] = [
        "response.output_text.delta",
        "response.refusal.delta",
        "response.reasoning_text.delta",
        "response.reasoning_summary_text.delta",
        "response.function_call_arguments.delta",
        "response.custom_tool_call_input.delta",
        "response.mcp_call_arguments.delta",
        "transcript.text.delta",
    ];
    TEXTS.contains(&kind)
}

fn words(json: &str) -> ApiError {
    let words = serde_json::from_str::<Words<'_>>(json).ok();
    let words = words.unwrap_or(Words { code: None, message: None, param: None });
    let owned = |text: Option<Cow<'_, str>>| text.map(Cow::into_owned);
    ApiError {
        // Of an error inside a stream nobody says the status.
        status: 500,
        kind: "server_error".to_owned(),
        message: owned(words.message).unwrap_or_else(|| "the provider broke off its answer".to_owned()),
        code: owned(words.code),
        param: owned(words.param),
    }
}

fn sum(first: Option<Usage>, second: Option<Usage>) -> Option<Usage> {
    let (Some(a), Some(b)) = (first, second) else { return second.or(first) };
    Some(Usage {
        input: a.input.saturating_add(b.input),
        cached_input: a.cached_input.saturating_add(b.cached_input),
        cache_creation_input: a.cache_creation_input.saturating_add(b.cache_creation_input),
        output: a.output.saturating_add(b.output),
        reasoning: a.reasoning.saturating_add(b.reasoning),
        total: a.total.saturating_add(b.total),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::stream::StreamReader;

    #[test]
    fn what_events_say() {
        use Endpoint::{Images, Responses, Speech, Transcriptions};
        let usage = r#""usage":{"input_tokens":3,"output_tokens":4,"total_tokens":7}"#;
        for (endpoint, data, total, text, error, done) in [
            (Responses, r#"{"type":"response.created","response":{"usage":null}}"#, None, "", None, false),
            (Responses, r#"{"type":"response.output_text.delta","delta":"Hi"}"#, None, "Hi", None, false),
            (Responses, r#"{"type":"response.output_text.done","text":"Hi"}"#, None, "", None, false),
            (
                Responses,
                r#"{"type":"response.function_call_arguments.delta","delta":"{"}"#,
                None,
                "{",
                None,
                false,
            ),
            (
                Responses,
                &format!(r#"{{"type":"response.completed","response":{{"error":null,{usage}}}}}"#),
                Some(7),
                "",
                None,
                true,
            ),
            (
                Responses,
                &format!(r#"{{"type":"response.incomplete","response":{{{usage}}}}}"#),
                Some(7),
                "",
                None,
                true,
            ),
            (
                Responses,
                r#"{"type":"response.failed","response":{"error":{"code":"server_error","message":"boom"},"usage":null}}"#,
                None,
                "",
                Some("boom"),
                false,
            ),
            (
                Responses,
                r#"{"type":"error","code":"x","message":"boom","param":null}"#,
                None,
                "",
                Some("boom"),
                false,
            ),
            (Responses, r#"{"type":"error","error":{"message":"boom"}}"#, None, "", Some("boom"), false),
            (
                Images,
                &format!(r#"{{"type":"image_generation.completed",{usage}}}"#),
                Some(7),
                "",
                None,
                false,
            ),
            (Images, r#"{"type":"image_generation.partial_image","b64_json":"AA"}"#, None, "", None, false),
            (Speech, &format!(r#"{{"type":"speech.audio.done",{usage}}}"#), Some(7), "", None, true),
            (Speech, r#"{"type":"speech.audio.delta","audio":"AAAA"}"#, None, "", None, false),
            (Transcriptions, r#"{"type":"transcript.text.delta","delta":"Hi"}"#, None, "Hi", None, false),
            (
                Transcriptions,
                &format!(r#"{{"type":"transcript.text.done","text":"Hi",{usage}}}"#),
                Some(7),
                "",
                None,
                true,
            ),
            (Transcriptions, r#"{"choices":[{"delta":{"content":"Hi"}}]}"#, None, "Hi", None, false),
            (Transcriptions, "[DONE]", None, "", None, true),
            (Responses, "oops", None, "", None, false),
            (Responses, "[1]", None, "", None, false),
        ] {
            let said = Reader::new(endpoint).read(data.as_bytes());
            let message = said.error.as_ref().map(|error| error.message.as_str());
            assert_eq!(
                (said.usage.map(|usage| usage.total), said.text.as_str(), message, said.done),
                (total, text, error, done),
                "{data}"
            );
        }
    }

    #[test]
    fn streams_cut_anywhere_say_the_same() {
        let events = "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"é\"}\n\n\
                      : ping\r\n\r\ndata: {\"type\":\"response.completed\",\"response\":{\"usage\":{\"input_tokens\":3,\"output_tokens\":4}}}\n\n"
            .as_bytes();
        for cut in 0..events.len() {
            let mut reader = StreamReader::passing_typed(Endpoint::Responses, 1 << 20);
            let (sink, piece) = reader.read_all([&events[..cut], &events[cut..]].into_iter());
            assert_eq!((sink.out.as_slice(), sink.text.as_str()), (events, "é"), "{cut}");
            assert_eq!((piece.usage, piece.done), (Some(Usage::of(3, 4)), true), "{cut}");
        }
    }

    #[test]
    fn pictures_are_added_up() {
        let mut reader = Reader::new(Endpoint::Images);
        let event = r#"{"type":"image_generation.completed","usage":{"input_tokens":3,"output_tokens":4}}"#;
        assert!(!reader.is_whole());
        reader.read(event.as_bytes());
        assert_eq!(reader.read(event.as_bytes()).usage.map(|usage| usage.total), Some(14));
        assert!(reader.is_whole());
    }

    proptest::proptest! {
        #[test]
        fn never_panics(data in ".{0,100}") {
            Reader::new(Endpoint::Responses).read(data.as_bytes());
        }
    }
}
