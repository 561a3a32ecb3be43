//! An answer as bytes: whole or event by event, broken where it was asked to be.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::Response;
use hyper::body::{Bytes, Frame};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use serde_json::Value;

use super::ask::Usage;
use super::behaviour::{Behaviour, Fault};
use super::served::{Call, Served};

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub(super) type AnswerBody = UnsyncBoxBody<Bytes, BoxError>;

const FLUSH: Duration = Duration::from_millis(10);
pub(super) const SSE: &str = "text/event-stream";

/// A wait that only the other side ends. Bounded, because every wait is.
const FOREVER: Duration = Duration::from_secs(3_600);
/// No JSON, and no frame of an event stream.
const GARBAGE: &[u8] = b"\x00\xff{{garbage ]]\xfe<html>\n\n";
/// The data of an event, but not JSON.
const GARBAGE_DATA: &str = "data: {{garbage ]]\n\n";

#[derive(Debug)]
pub(super) struct Output {
    pub content_type: &'static str,
    pub headers: Vec<(&'static str, String)>,
    pub usage: Usage,
    pub body: Content,
}

#[derive(Debug)]
pub(super) enum Content {
    Whole(Bytes),
    /// Each with the tokens it carries.
    Events(Vec<(Bytes, u64)>),
}

enum Step {
    Send(Bytes, u64),
    Wait,
    Break,
}

impl Output {
    pub fn json(value: &Value, usage: Usage) -> Self {
        Self::whole("application/json", written(b"", value, b""), usage)
    }

    pub fn whole(content_type: &'static str, bytes: impl Into<Bytes>, usage: Usage) -> Self {
        Self { content_type, headers: Vec::new(), usage, body: Content::Whole(bytes.into()) }
    }

    pub fn events(content_type: &'static str, events: Vec<(Bytes, u64)>, usage: Usage) -> Self {
        Self { content_type, headers: Vec::new(), usage, body: Content::Events(events) }
    }

    /// `error`: how this dialect writes an error in a body, or among events.
    pub fn into_response(
        self,
        behaviour: &Behaviour,
        chunk_ms: u64,
        error: Bytes,
        (served, call): (Arc<Served>, Call),
    ) -> Response<AnswerBody> {
        served.answered(&call, &self.usage);
        let (body, length) = match self.body {
            Content::Whole(bytes) if behaviour.fault.is_none() => {
                served.sent(&call, self.usage.output);
                (whole(bytes), None)
            }
            Content::Whole(bytes) => match broken_whole(bytes, behaviour.fault, error) {
                Ok(bytes) => (whole(bytes), None),
                // The declared length is what makes the half of it a half.
                Err((length, steps)) => (stepwise(steps, 0, served, call), Some(length)),
            },
            Content::Events(events) => {
                let steps = broken_events(events, behaviour, error, self.content_type == SSE);
                (stepwise(steps, chunk_ms, served, call), None)
            }
        };
        let mut answer = Response::new(body);
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                answer.headers_mut().insert(name, value);
            }
        }
        if let Some(length) = length {
            answer.headers_mut().insert(CONTENT_LENGTH, length.into());
        }
        answer
    }
}

/// JSON between other bytes. Straight into a buffer: formatting a value costs twice as much.
pub(super) fn written(before: &[u8], value: &Value, after: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(512);
    bytes.extend_from_slice(before);
    // Neither a buffer nor a value of JSON fails.
    let _ = serde_json::to_writer(&mut bytes, value);
    bytes.extend_from_slice(after);
    bytes.into()
}

pub(super) fn whole(bytes: Bytes) -> AnswerBody {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// The bytes to send, or the length to declare and the steps that do not get there.
fn broken_whole(bytes: Bytes, fault: Option<Fault>, error: Bytes) -> Result<Bytes, (usize, Vec<Step>)> {
    let length = bytes.len();
    let half = bytes.slice(..length / 2);
    match fault {
        Some(Fault::ErrorInside) => Ok(error),
        Some(Fault::Garbage) => Ok(Bytes::from_static(GARBAGE)),
        Some(Fault::EarlyEnd) => Ok(half),
        Some(Fault::HalfStream) => Err((length, vec![Step::Send(half, 0), Step::Break])),
        Some(Fault::Stall) => Err((length, vec![Step::Send(half, 0), Step::Wait, Step::Break])),
        Some(Fault::Hang) | None => Ok(bytes),
    }
}

fn broken_events(mut events: Vec<(Bytes, u64)>, behaviour: &Behaviour, error: Bytes, sse: bool) -> Vec<Step> {
    let half = events.len() / 2;
    let (length, end) = match (behaviour.cut_after, behaviour.fault) {
        (Some(count), _) => (usize::try_from(count).unwrap_or(usize::MAX), vec![Step::Break]),
        (None, Some(Fault::HalfStream)) => (half, vec![Step::Break]),
        (None, Some(Fault::EarlyEnd)) => (half, vec![]),
        (None, Some(Fault::Stall)) => (half, vec![Step::Wait, Step::Break]),
        (None, Some(Fault::ErrorInside)) => (half, vec![Step::Send(error, 0)]),
        (None, Some(Fault::Garbage)) => (half, vec![Step::Send(garbage(events.first(), sse), 0)]),
        (None, Some(Fault::Hang) | None) => (usize::MAX, vec![]),
    };
    events.truncate(length);
    events.into_iter().map(|(bytes, tokens)| Step::Send(bytes, tokens)).chain(end).collect()
}

/// With the name of an event where events have names: clients skip events without one.
fn garbage(sample: Option<&(Bytes, u64)>, sse: bool) -> Bytes {
    if !sse {
        return Bytes::from_static(GARBAGE);
    }
    let named = sample.is_some_and(|(bytes, _)| bytes.starts_with(b"event: message_start"));
    let name = if named { "event: content_block_delta\n" } else { "" };
    format!("{name}{GARBAGE_DATA}").into()
}

/// What was served is what left, not what was planned.
fn stepwise(steps: Vec<Step>, chunk_ms: u64, served: Arc<Served>, call: Call) -> AnswerBody {
    let pause = Duration::from_millis(chunk_ms);
    let frames = stream::iter(steps)
        .then(move |step| {
            if let Step::Send(_, tokens) = &step {
                served.sent(&call, *tokens);
            }
            async move {
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
                match step {
                    Step::Send(bytes, _) => Some(Ok(Frame::data(bytes))),
                    Step::Break => {
                        // The connection is dropped with whatever it has not sent yet: let it send that first.
                        tokio::time::sleep(FLUSH).await;
                        Some(Err(BoxError::from("cut off, as asked")))
                    }
                    Step::Wait => {
                        tokio::time::sleep(FOREVER).await;
                        None
                    }
                }
            }
        })
        .filter_map(std::future::ready);
    StreamBody::new(frames).boxed_unsync()
}

/// Never answers while anybody waits.
pub(super) async fn hang() {
    tokio::time::sleep(FOREVER).await;
}
