//! What a provider's answer says about tokens: its usage, or the text it produced.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
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
    let mut json = serde_json::Deserializer::from_slice(body);
    let answer = json.deserialize_map(AnswerVisitor { with_text }).ok()?;
    json.end().ok()?;
    Some(answer)
}

struct AnswerVisitor {
    with_text: bool,
}

impl<'de> Visitor<'de> for AnswerVisitor {
    type Value = Answer;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an answer object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Answer, A::Error> {
        let mut answer = Answer::default();
        while let Some(key) = entries.next_key::<std::borrow::Cow<'de, str>>()? {
            match key.as_ref() {
                "usage" => {
                    let raw: &RawValue = entries.next_value()?;
                    answer.usage = serde_json::from_str(raw.get()).ok();
                    if answer.usage.is_none() {
                        answer.seconds = seconds(raw).or(answer.seconds);
                    }
                }
                // Of transcripts.
                "duration" => {
                    let raw: &RawValue = entries.next_value()?;
                    answer.seconds = answer.seconds.or(raw.get().trim_matches('"').parse().ok());
                }
                "text" if self.with_text => {
                    let raw: &RawValue = entries.next_value()?;
                    // What Responses call so are settings.
                    answer.text.push_str(&serde_json::from_str::<String>(raw.get()).unwrap_or_default());
                }
                "output" if self.with_text => {
                    let text = Some(&mut answer.text);
                    entries.next_value_seed(Generated { text, place: Place::Output })?;
                }
                "error" => answer.is_error = entries.next_value::<&RawValue>()?.get() != "null",
                // Anthropic's.
                "content" if self.with_text => {
                    let text = Some(&mut answer.text);
                    entries.next_value_seed(Generated { text, place: Place::Written })?;
                }
                "choices" => {
                    let text = self.with_text.then_some(&mut answer.text);
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
    #[derive(serde::Deserialize)]
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
        while let Some(key) = entries.next_key::<std::borrow::Cow<'de, str>>()? {
            let walked = match self.place {
                Place::Choice => matches!(key.as_ref(), "message" | "delta" | "text"),
                Place::Written => {
                    !matches!(key.as_ref(), "role" | "id" | "type" | "annotations" | "signature")
                }
                Place::Output => !ABOUT.contains(&key.as_ref()),
                Place::Choices => false,
            };
            if walked && self.text.is_some() {
                let place = if self.place == Place::Output { Place::Output } else { Place::Written };
                entries.next_value_seed(Generated { text: self.text.as_deref_mut(), place })?;
            } else {
                entries.next_value::<IgnoredAny>()?;
            }
        }
        Ok(1)
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
