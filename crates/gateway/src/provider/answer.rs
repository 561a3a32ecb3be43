//! What a provider's answer says about tokens: its usage, or the text it produced.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::usage::Usage;

/// What one JSON answer, or one chunk of a stream, says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) usage: Option<Usage>,
    /// `choices` is there and empty.
    pub(crate) choices_empty: bool,
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
                    let raw: &serde_json::value::RawValue = entries.next_value()?;
                    answer.usage = serde_json::from_str(raw.get()).ok();
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

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Choices,
    Choice,
    /// Below `message`, `delta` or `text`: what the model wrote.
    Written,
}

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
        if let (Some(text), Place::Written) = (self.text, self.place) {
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
                Place::Written => !matches!(key.as_ref(), "role" | "id" | "type" | "annotations"),
                Place::Choices => false,
            };
            if walked && self.text.is_some() {
                entries
                    .next_value_seed(Generated { text: self.text.as_deref_mut(), place: Place::Written })?;
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
    fn what_is_no_answer() {
        for body in ["", "[]", "oops", "{} {}", "{\"usage\":"] {
            assert_eq!(decode(body.as_bytes(), true), None, "{body}");
        }
    }
}
