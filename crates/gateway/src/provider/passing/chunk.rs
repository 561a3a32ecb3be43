//! What to do with one event of a stream: pass it on, or hide the usage that the client did not ask for.

use crate::provider::{
    answer, openai,
    reply::{ApiError, Garbage},
    sse,
    usage::Usage,
};

/// One event, understood as far as the gateway must.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) kind: ChunkKind,
    /// Usage so far: the last one counts.
    pub(crate) usage: Option<Usage>,
    /// The provider's error, which ends its stream.
    pub(crate) error: Option<ApiError>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChunkKind {
    /// Goes to the client.
    Passed,
    /// Carries usage and nothing else: hidden unless the client asked for it.
    UsageOnly,
    /// `[DONE]`
    Done,
}

/// Whether this is the last chunk of a choice: a stream may end after it.
pub(crate) fn is_finish(event: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Last {
        choices: Vec<Choice>,
    }
    #[derive(serde::Deserialize)]
    struct Choice {
        finish_reason: Option<serde::de::IgnoredAny>,
    }
    let Some(data) = sse::data(event) else { return false };
    let last = serde_json::from_slice::<Last>(&data);
    last.is_ok_and(|last| last.choices.iter().any(|choice| choice.finish_reason.is_some()))
}

/// Looks into one event. Whatever is an object or a comment is passed on, understood or not. Generated text in it is put
/// behind `text`.
///
/// # Errors
/// Its data are no JSON object.
pub(crate) fn inspect(event: &[u8], text: &mut String) -> Result<Chunk, Garbage> {
    let passed = Chunk { kind: ChunkKind::Passed, usage: None, error: None };
    let Some(data) = sse::data(event) else { return Ok(passed) };
    match data.trim_ascii() {
        b"" => return Ok(passed),
        b"[DONE]" => return Ok(Chunk { kind: ChunkKind::Done, ..passed }),
        _ => {}
    }
    let Some(answer) = answer::decode_onto(&data, Some(text)) else {
        return Err(Garbage("an event of its stream is no JSON object".to_owned()));
    };
    let usage_only = answer.choices_empty && answer.usage.is_some();
    let kind = if usage_only { ChunkKind::UsageOnly } else { ChunkKind::Passed };
    let error = answer.is_error.then(|| openai::error::decode_inside(&data));
    Ok(Chunk { kind, usage: answer.usage, error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_events() {
        let usage = r#""usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}"#;
        for (event, kind, total, text) in [
            ("data: [DONE]\n\n".to_owned(), ChunkKind::Done, None, ""),
            (": ping\n\n".to_owned(), ChunkKind::Passed, None, ""),
            (format!("data: {{\"choices\":[],{usage}}}\n\n"), ChunkKind::UsageOnly, Some(7), ""),
            (
                format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"x\"}}}}],{usage}}}\n\n"),
                ChunkKind::Passed,
                Some(7),
                "x",
            ),
            ("data: {\"choices\":[],\"usage\":null}\n\n".to_owned(), ChunkKind::Passed, None, ""),
            ("data: {\"error\":{\"message\":\"boom\"}}\n\n".to_owned(), ChunkKind::Passed, None, ""),
            ("data: {\"new\":[1]}\n\n".to_owned(), ChunkKind::Passed, None, ""),
            ("event: x\ndata:\n\n".to_owned(), ChunkKind::Passed, None, ""),
        ] {
            let mut found = "before".to_owned();
            let chunk = inspect(event.as_bytes(), &mut found).unwrap();
            assert_eq!((chunk.kind, chunk.usage.map(|u| u.total)), (kind, total), "{event}");
            assert_eq!(found.strip_prefix("before"), Some(text), "{event}");
        }
        let half = "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]\n\n";
        for event in ["data: oops\n\n", "data: [1]\n\n", half, "data: <html>\n\n"] {
            let mut found = "before".to_owned();
            assert!(inspect(event.as_bytes(), &mut found).is_err(), "{event}");
            assert_eq!(found, "before");
        }
    }
}
