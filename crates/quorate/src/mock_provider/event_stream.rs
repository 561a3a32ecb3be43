//! Frames of `application/vnd.amazon.eventstream`, by the crate of the house that defined it.

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use hyper::body::Bytes;
use serde_json::{Value, json};

use super::error::Refusal;
use super::read;

pub(super) const CONTENT_TYPE: &str = "application/vnd.amazon.eventstream";

pub(super) fn event(kind: &str, payload: &Value) -> Bytes {
    frame("event", ":event-type", kind, payload)
}

/// An Anthropic event within `invoke-with-response-stream`.
pub(super) fn chunk(inner: &Value) -> Bytes {
    event("chunk", &json!({"bytes": read::encode(inner.to_string())}))
}

/// An error among the events. Names of exceptions begin small here, as in the service's model.
pub(super) fn exception(refusal: &Refusal) -> Bytes {
    let name = refusal.bedrock_type();
    let name = name[..1].to_ascii_lowercase() + &name[1..];
    frame("exception", ":exception-type", &name, &json!({"message": refusal.message}))
}

fn frame(message_type: &str, kind_header: &'static str, kind: &str, payload: &Value) -> Bytes {
    let header =
        |name: &'static str, value: &str| Header::new(name, HeaderValue::String(value.to_owned().into()));
    let message = Message::new(Bytes::from(payload.to_string()))
        .add_header(header(kind_header, kind))
        .add_header(header(":content-type", "application/json"))
        .add_header(header(":message-type", message_type));
    let mut bytes = Vec::new();
    // Only headers and payloads beyond the format's bounds (128 KiB, 16 MiB) fail, and pieces are small.
    if write_message_to(&message, &mut bytes).is_err() {
        bytes.clear();
    }
    bytes.into()
}

#[cfg(test)]
mod tests {
    use aws_smithy_eventstream::frame::{DecodedFrame, MessageFrameDecoder};
    use bytes::BytesMut;

    use super::*;

    #[test]
    fn frames_decode_again_wherever_they_are_cut() {
        let sent = [
            event("messageStart", &json!({"role": "assistant"})),
            chunk(&json!({"type": "ping"})),
            exception(&Refusal::asked(429)),
        ];
        let bytes = sent.concat();
        for cut in 0..=bytes.len() {
            let mut decoder = MessageFrameDecoder::new();
            let mut found = Vec::new();
            let mut buffer = BytesMut::new();
            for part in [&bytes[..cut], &bytes[cut..]] {
                buffer.extend_from_slice(part);
                while let DecodedFrame::Complete(message) = decoder.decode_frame(&mut buffer).unwrap() {
                    let kind = message.headers()[0].value().as_string().unwrap().as_str().to_owned();
                    found.push((kind, serde_json::from_slice::<Value>(message.payload()).unwrap()));
                }
            }
            assert_eq!(
                found,
                [
                    ("messageStart".to_owned(), json!({"role": "assistant"})),
                    ("chunk".to_owned(), json!({"bytes": read::encode("{\"type\":\"ping\"}")})),
                    ("throttlingException".to_owned(), json!({"message": Refusal::asked(429).message})),
                ]
            );
        }
    }
}
