//! Reads the answer to a chat completion, whole or as a stream, as far as the checkers care: how it ended, what it says
//! was used and charged, and how much of it has come.

use hyper::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

const USED: &str = "x-ai-gateway-tokens-used";

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// All of it came: a stream with its `[DONE]`.
    Whole,
    /// The client hung up.
    Left,
    /// A stream that ended with an error event, or without `[DONE]`.
    Broken,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub status: u16,
    /// Of an error, else empty.
    pub code: String,
    /// The backend that served, or empty.
    pub backend: String,
    pub end: End,
    /// Tokens that the gateway says it charged.
    pub charged: Option<u64>,
    /// Tokens that the provider's usage says.
    pub usage: Option<u64>,
    /// Pieces of text that have come: a token each.
    pub received: u64,
    /// Of the account with the least left, in its unit, as the headers say it.
    pub limit: Option<u64>,
}

#[derive(Debug)]
pub struct Reader {
    answer: Answer,
    stream: bool,
    /// What is not a whole line yet; of an answer that is no stream, all of it.
    rest: Vec<u8>,
    done: bool,
}

impl Reader {
    pub fn new(status: u16, headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
        let answer = Answer {
            status,
            code: String::new(),
            backend: text("x-ai-provider").to_owned(),
            end: End::Whole,
            charged: text(USED).parse().ok(),
            usage: None,
            received: 0,
            limit: text("x-ratelimit-limit").split(',').next().and_then(|first| first.trim().parse().ok()),
        };
        let stream = text("content-type").starts_with("text/event-stream");
        Self { answer, stream, rest: Vec::new(), done: false }
    }

    pub fn pieces(&self) -> u64 {
        self.answer.received
    }

    pub fn take(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        if !self.stream {
            return;
        }
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            self.line(&String::from_utf8_lossy(&line));
        }
    }

    fn line(&mut self, line: &str) {
        let line = line.trim();
        if let Some(comment) = line.strip_prefix(": ") {
            let used = comment.strip_prefix(USED).and_then(|rest| rest.strip_prefix('='));
            self.answer.charged = used.and_then(|used| used.parse().ok()).or(self.answer.charged);
        }
        let Some(data) = line.strip_prefix("data: ") else { return };
        if data == "[DONE]" {
            self.done = true;
            return;
        }
        let event: Value = serde_json::from_str(data).unwrap_or_default();
        if event["error"].is_object() {
            self.answer.code = code(&event);
        }
        if event["choices"][0]["delta"]["content"].as_str().is_some_and(|text| !text.is_empty()) {
            self.answer.received += 1;
        }
        self.answer.usage = event["usage"]["total_tokens"].as_u64().or(self.answer.usage);
    }

    pub fn left(self) -> Answer {
        Answer { end: End::Left, ..self.answer }
    }

    /// # Errors
    /// It is no answer of the API.
    pub fn end(mut self) -> Result<Answer, String> {
        if self.stream {
            let whole = self.done && self.answer.code.is_empty();
            self.answer.end = if whole { End::Whole } else { End::Broken };
            return Ok(self.answer);
        }
        let body: Value = serde_json::from_slice(&self.rest)
            .map_err(|error| format!("status {}, and no JSON: {error}", self.answer.status))?;
        self.answer.code = code(&body);
        self.answer.usage = body["usage"]["total_tokens"].as_u64();
        self.answer.received = body["usage"]["completion_tokens"].as_u64().unwrap_or(0);
        Ok(self.answer)
    }
}

fn code(body: &Value) -> String {
    let error = &body["error"];
    error["code"].as_str().or(error["type"].as_str()).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(stream: bool, pieces: &[&str]) -> Result<Answer, String> {
        let mut headers = HeaderMap::new();
        let kind = if stream { "text/event-stream" } else { "application/json" };
        headers.insert("content-type", kind.parse().unwrap());
        let mut reader = Reader::new(200, &headers);
        for piece in pieces {
            reader.take(piece.as_bytes());
        }
        reader.end()
    }

    #[test]
    fn a_stream_is_whole_with_its_end_and_broken_without() {
        let text = "data: {\"choices\":[{\"delta\":{\"content\":\"ok \"}}]}\n\n";
        let usage = "data: {\"choices\":[],\"usage\":{\"total_tokens\":7}}\n\ndata: [DO";
        let whole = read(true, &[text, text, usage, "NE]\n\n: x-ai-gateway-tokens-used=7\n\n"]).unwrap();
        assert_eq!(
            (whole.end, whole.received, whole.usage, whole.charged),
            (End::Whole, 2, Some(7), Some(7))
        );
        assert_eq!(read(true, &[text]).unwrap().end, End::Broken);
        let error = "data: {\"error\":{\"code\":\"upstream_died\"}}\n\n";
        let broken = read(true, &[text, error]).unwrap();
        assert_eq!((broken.end, broken.code.as_str()), (End::Broken, "upstream_died"));
    }

    #[test]
    fn a_whole_answer_has_its_usage_or_its_error() {
        let served = read(false, &["{\"usage\":{\"total_tokens\":9,", "\"completion_tokens\":5}}"]).unwrap();
        assert_eq!((served.usage, served.received, served.end), (Some(9), 5, End::Whole));
        let refused = read(false, &["{\"error\":{\"code\":\"no_policy\"}}"]).unwrap();
        assert_eq!(refused.code, "no_policy");
        assert!(read(false, &["{\"usage\""]).is_err());
    }
}
