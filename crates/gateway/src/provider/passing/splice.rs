//! Edits of a request body that leave every other byte as the client sent it.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::provider::{endpoint::Endpoint, facts::Facts, stream_options::StreamOptions};

/// What the gateway puts into a request before it goes upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Edits<'a> {
    /// For a body without a model, or with another than the backend is to get.
    pub(crate) model: Option<&'a str>,
    /// Tokens of one answer: in place of what the body names, else under this name.
    pub(crate) output_limit: Option<(OutputField, u64)>,
    pub(crate) include_usage: bool,
}

/// The name under which the output limit is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputField {
    /// What OpenAI wants: its reasoning models refuse the older name.
    MaxCompletionTokens,
    /// What every compatible server knows.
    MaxTokens,
    /// Of Responses, which know no other.
    #[serde(skip)]
    MaxOutputTokens,
}

impl OutputField {
    fn name(self) -> &'static str {
        match self {
            Self::MaxCompletionTokens => "max_completion_tokens",
            Self::MaxTokens => "max_tokens",
            Self::MaxOutputTokens => "max_output_tokens",
        }
    }

    /// OpenAI's own chat models get the new name, all others the old one.
    pub(crate) fn for_model(endpoint: Endpoint, model: &str) -> Self {
        if endpoint == Endpoint::Responses {
            Self::MaxOutputTokens
        } else if endpoint == Endpoint::Chat && crate::tokenizer::is_openai(model) {
            Self::MaxCompletionTokens
        } else {
            Self::MaxTokens
        }
    }
}

/// The body with the edits in it; the same bytes (and allocation) if there is nothing to edit.
pub(crate) fn apply(body: &Bytes, facts: &Facts, edits: &Edits<'_>) -> Bytes {
    let mut splices: Vec<(Range<usize>, String)> = Vec::new();
    let mut head = String::new();
    let mut member = |name: &str, value: &str| {
        head.push_str(&format!("\"{name}\":{value},"));
    };
    if let Some(model) = edits.model {
        let quoted = serde_json::Value::from(model).to_string();
        match &facts.places.model {
            Some(range) => splices.push((range.clone(), quoted)),
            None => member("model", &quoted),
        }
    }
    if let Some((field, tokens)) = edits.output_limit {
        let places = limits(body, facts, field);
        if places.is_empty() {
            member(field.name(), &tokens.to_string());
        }
        splices.extend(places.into_iter().map(|range| (range, tokens.to_string())));
    }
    if edits.include_usage {
        match &facts.places.stream_options {
            None => member("stream_options", "{\"include_usage\":true}"),
            Some(StreamOptions::Null(range)) => {
                splices.push((range.clone(), "{\"include_usage\":true}".to_owned()))
            }
            Some(StreamOptions::Off(range)) => splices.push((range.clone(), "true".to_owned())),
            Some(StreamOptions::Without(at, empty)) => {
                let comma = if *empty { "" } else { "," };
                splices.push((*at..*at, format!("\"include_usage\":true{comma}")));
            }
            Some(StreamOptions::On) => {}
        }
    }
    if !head.is_empty() {
        if facts.places.empty {
            head.pop();
        }
        splices.push((facts.places.start..facts.places.start, head));
    }
    cut_and_join(body, splices)
}

/// Where the limit goes: wherever the client named one, else where `field` is null.
fn limits(body: &Bytes, facts: &Facts, field: OutputField) -> Vec<Range<usize>> {
    let places = [
        (OutputField::MaxTokens, &facts.places.max_tokens),
        (OutputField::MaxCompletionTokens, &facts.places.max_completion_tokens),
        (OutputField::MaxOutputTokens, &facts.places.max_output_tokens),
    ];
    let there = |named: bool| {
        let found = places.iter().filter_map(move |(name, range)| {
            let range = range.as_ref()?;
            let null = body.get(range.clone()) == Some(b"null".as_slice());
            (if named { !null } else { null && *name == field }).then(|| range.clone())
        });
        found.collect::<Vec<_>>()
    };
    let named = there(true);
    if named.is_empty() { there(false) } else { named }
}

pub(super) fn cut_and_join(body: &Bytes, mut splices: Vec<(Range<usize>, String)>) -> Bytes {
    if splices.is_empty() {
        return body.clone();
    }
    splices.sort_by_key(|(range, _)| range.start);
    let added: usize = splices.iter().map(|(_, text)| text.len()).sum();
    let mut out = BytesMut::with_capacity(body.len() + added);
    let mut from = 0;
    for (range, text) in splices {
        out.extend_from_slice(&body[from..range.start]);
        out.extend_from_slice(text.as_bytes());
        from = range.end;
    }
    out.extend_from_slice(&body[from..]);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(body: &'static str, edits: &Edits<'_>) -> String {
        let facts = Facts::decode(Endpoint::Chat, body.as_bytes()).unwrap();
        let out = apply(&Bytes::from_static(body.as_bytes()), &facts, edits);
        serde_json::from_slice::<serde_json::Value>(&out).unwrap();
        Facts::decode(Endpoint::Chat, &out).unwrap();
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn without_edits_the_bytes_are_the_same() {
        assert_eq!(edited(" {\"a\" : 1}\n", &Edits::default()), " {\"a\" : 1}\n");
    }

    #[test]
    fn every_edit_in_every_shape() {
        let usage = Edits { include_usage: true, ..Edits::default() };
        let limit = Edits { output_limit: Some((OutputField::MaxTokens, 9)), ..Edits::default() };
        let model = Edits { model: Some("a\"b"), ..Edits::default() };
        for (body, edits, expected) in [
            ("{}", &usage, r#"{"stream_options":{"include_usage":true}}"#),
            (r#"{"stop":"é" }"#, &usage, r#"{"stream_options":{"include_usage":true},"stop":"é" }"#),
            (r#"{"stream_options":null}"#, &usage, r#"{"stream_options":{"include_usage":true}}"#),
            (r#"{"stream_options": { }}"#, &usage, r#"{"stream_options": {"include_usage":true }}"#),
            (r#"{"stream_options":{"x":1}}"#, &usage, r#"{"stream_options":{"include_usage":true,"x":1}}"#),
            (
                r#"{"stream_options":{"x":1,"include_usage": false}}"#,
                &usage,
                r#"{"stream_options":{"x":1,"include_usage": true}}"#,
            ),
            (
                r#"{"stream_options":{"include_usage":true}}"#,
                &usage,
                r#"{"stream_options":{"include_usage":true}}"#,
            ),
            (r#"{"max_tokens": null,"n":1}"#, &limit, r#"{"max_tokens": 9,"n":1}"#),
            (r#"{"n":1}"#, &limit, r#"{"max_tokens":9,"n":1}"#),
            (r#"{"model":"","n":1}"#, &model, r#"{"model":"a\"b","n":1}"#),
            ("\n{\"n\":1}", &model, "\n{\"model\":\"a\\\"b\",\"n\":1}"),
            (r#"{"n":1,"model": "gpt-4o"}"#, &model, r#"{"n":1,"model": "a\"b"}"#),
            (
                r#"{"max_completion_tokens":50,"max_tokens":null}"#,
                &limit,
                r#"{"max_completion_tokens":9,"max_tokens":null}"#,
            ),
            (
                r#"{"max_completion_tokens":50,"max_tokens":60}"#,
                &limit,
                r#"{"max_completion_tokens":9,"max_tokens":9}"#,
            ),
            (r#"{"max_completion_tokens":null}"#, &limit, r#"{"max_tokens":9,"max_completion_tokens":null}"#),
        ] {
            assert_eq!(edited(body, edits), expected);
        }
    }

    #[test]
    fn the_limit_of_responses_has_its_own_name() {
        let model = "gpt-5";
        let field = OutputField::for_model(Endpoint::Responses, model);
        let edits = Edits { output_limit: Some((field, 9)), ..Edits::default() };
        for (body, expected) in [
            (r#"{"input":"a"}"#, r#"{"max_output_tokens":9,"input":"a"}"#),
            (r#"{"max_output_tokens":50}"#, r#"{"max_output_tokens":9}"#),
            (r#"{"max_output_tokens": null}"#, r#"{"max_output_tokens": 9}"#),
            (r#"{"max_tokens":7}"#, r#"{"max_output_tokens":9,"max_tokens":7}"#),
        ] {
            let facts = Facts::decode(Endpoint::Responses, body.as_bytes()).unwrap();
            assert_eq!(apply(&Bytes::from_static(body.as_bytes()), &facts, &edits), expected);
        }
    }

    #[test]
    fn several_edits_at_once() {
        let edits = Edits {
            model: Some("m"),
            output_limit: Some((OutputField::MaxCompletionTokens, 7)),
            include_usage: true,
        };
        assert_eq!(
            edited(r#"{"stream_options":{},"max_completion_tokens":null}"#, &edits),
            r#"{"model":"m","stream_options":{"include_usage":true},"max_completion_tokens":7}"#
        );
    }
}
