//! What backends of each kind say: answers, pieces of streams, errors; and configs with such backends.

use std::io::Write as _;

use quorate_policy::runtime::CompiledPolicy;

use super::{
    provider::{Step, answer, chat, delta, piece, stream_head},
    world::World,
};
use crate::provider::bedrock::frame::tests::encode_frames;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    OpenAI,
    Anthropic,
    Bedrock,
}

pub(crate) const KINDS: [Kind; 3] = [Kind::OpenAI, Kind::Anthropic, Kind::Bedrock];
/// The words of every error.
pub(crate) const WORDS: &str = "the model is overloaded";

/// A world in which `first` is the provider, of this kind, and others are as named.
pub(crate) async fn world_of(
    policy: CompiledPolicy,
    first: Kind,
    others: &[(&str, Kind, &str)],
    more: &str,
) -> World {
    let mut key = tempfile::NamedTempFile::new().unwrap();
    key.write_all(b"sk-test").unwrap();
    let path = key.path().to_str().unwrap().to_owned();
    let entry = |(name, kind, url): (&str, Kind, &str)| {
        // Only Bedrock's paths begin at the host.
        let (provider, url) = match kind {
            Kind::OpenAI => ("OpenAI", url),
            Kind::Anthropic => ("Anthropic", url),
            Kind::Bedrock => ("AWSBedrock, region: eu-central-1", url.trim_end_matches("/v1")),
        };
        format!("- {{name: {name}, provider: {provider}, base_url: '{url}', api_key_file: '{path}'}}\n")
    };
    World::compiled(policy, |url| {
        let backends = std::iter::once(("first", first, url)).chain(others.iter().copied()).map(entry);
        format!(
            "name: g1\nlisten: 127.0.0.1:0\nhttp_listen: 127.0.0.1:0\nnodes: ['127.0.0.1:1']\nbackends:\n{}{more}",
            backends.collect::<String>()
        )
    })
    .await
}

fn event(kind: &str, rest: &str) -> Step {
    let comma = if rest.is_empty() { "" } else { "," };
    piece(&format!("event: {kind}\ndata: {{\"type\":\"{kind}\"{comma}{rest}}}\n\n"))
}

pub(crate) fn frames(events: &[(&str, &str)]) -> Step {
    chunk_of(&encode_frames(events))
}

fn chunk_of(bytes: &[u8]) -> Step {
    let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
    chunk.extend_from_slice(bytes);
    chunk.extend_from_slice(b"\r\n");
    Step::Write(chunk)
}

impl Kind {
    /// A whole answer, `Hi`, for 10 and 20 tokens.
    pub(crate) fn whole(self) -> String {
        match self {
            Self::OpenAI => chat(10, 20),
            Self::Anthropic => r#"{"id":"msg_1","type":"message","role":"assistant","model":"c","content":[{"type":"text","text":"Hi"}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":10,"output_tokens":20}}"#.to_owned(),
            Self::Bedrock => r#"{"output":{"message":{"role":"assistant","content":[{"text":"Hi"}]}},"stopReason":"end_turn","usage":{"inputTokens":10,"outputTokens":20,"totalTokens":30},"metrics":{"latencyMs":1}}"#.to_owned(),
        }
    }

    pub(crate) fn head(self) -> Step {
        match self {
            Self::Bedrock => Step::Write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/vnd.amazon.eventstream\r\ntransfer-encoding: chunked\r\n\r\n"
                    .to_vec(),
            ),
            Self::OpenAI | Self::Anthropic => stream_head(),
        }
    }

    /// The stream up to `Hi`, without its head.
    pub(crate) fn hi(self) -> Vec<Step> {
        match self {
            Self::OpenAI => vec![piece(&delta("Hi"))],
            Self::Anthropic => vec![
                event(
                    "message_start",
                    r#""message":{"id":"msg_1","type":"message","role":"assistant","model":"c","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":10,"output_tokens":1}}"#,
                ),
                event("content_block_start", r#""index":0,"content_block":{"type":"text","text":""}"#),
                event("content_block_delta", r#""index":0,"delta":{"type":"text_delta","text":"Hi"}"#),
            ],
            Self::Bedrock => vec![frames(&[
                ("messageStart", r#"{"role":"assistant"}"#),
                ("contentBlockDelta", r#"{"contentBlockIndex":0,"delta":{"text":"Hi"}}"#),
            ])],
        }
    }

    /// What follows `Hi` in a stream that ends well, for 10 and 20 tokens.
    pub(crate) fn rest(self) -> Vec<Step> {
        match self {
            Self::OpenAI => vec![
                piece("data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"),
                piece(&super::provider::usage(10, 20)),
                piece("data: [DONE]\n\n"),
            ],
            Self::Anthropic => vec![
                event("content_block_stop", r#""index":0"#),
                event(
                    "message_delta",
                    r#""delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":20}"#,
                ),
                event("message_stop", ""),
            ],
            Self::Bedrock => vec![frames(&[
                ("contentBlockStop", r#"{"contentBlockIndex":0}"#),
                ("messageStop", r#"{"stopReason":"end_turn"}"#),
                (
                    "metadata",
                    r#"{"usage":{"inputTokens":10,"outputTokens":20,"totalTokens":30},"metrics":{"latencyMs":1}}"#,
                ),
            ])],
        }
    }

    /// An error that follows a good status, as JSON.
    pub(crate) fn error(self) -> String {
        match self {
            Self::OpenAI => {
                format!(r#"{{"error":{{"message":"{WORDS}","type":"server_error","code":"503"}}}}"#)
            }
            Self::Anthropic => {
                format!(r#"{{"type":"error","error":{{"type":"overloaded_error","message":"{WORDS}"}}}}"#)
            }
            Self::Bedrock => {
                format!(r#"{{"__type":"ServiceUnavailableException","message":"{WORDS}"}}"#)
            }
        }
    }

    /// The same in a stream.
    pub(crate) fn error_event(self) -> Step {
        match self {
            Self::OpenAI => piece(&format!("data: {}\n\n", self.error())),
            Self::Anthropic => piece(&format!("event: error\ndata: {}\n\n", self.error())),
            Self::Bedrock => {
                frames(&[("serviceUnavailableException", &format!(r#"{{"message":"{WORDS}"}}"#))])
            }
        }
    }

    /// Something in a stream that is no event of this API.
    pub(crate) fn garbage_events(self) -> Vec<Step> {
        match self {
            Self::OpenAI | Self::Anthropic => vec![piece("data: <html>\n\n")],
            Self::Bedrock => {
                let mut damaged = encode_frames(&[("messageStart", r#"{"role":"assistant"}"#)]);
                let last = damaged.len() - 1;
                damaged[last] ^= 1;
                vec![chunk_of(&damaged), chunk_of(&[0xff; 64]), frames(&[("contentBlockDelta", "{")])]
            }
        }
    }

    /// A refusal with a status, in the shape of this API.
    pub(crate) fn refuses(self, status: &str, headers: &str) -> Step {
        let mut error = self.error();
        if status.starts_with("429") {
            let limited = [
                ("overloaded_error", "rate_limit_error"),
                ("ServiceUnavailable", "Throttling"),
                ("\"503\"", "\"rate_limit_exceeded\""),
            ];
            error = limited.iter().fold(error, |error, (from, to)| error.replace(from, to));
        }
        super::provider::answer_with(status, &format!("content-type: application/json\r\n{headers}"), &error)
    }

    pub(crate) fn answers(self) -> Step {
        answer("200 OK", &self.whole())
    }
}
