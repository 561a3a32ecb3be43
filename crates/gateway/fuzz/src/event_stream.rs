//! What must hold of any bytes as `application/vnd.amazon.eventstream` of Bedrock's.
//!
//! No checksum is ever guessed: the bytes are tried bare, and as the payloads of frames that are whole, one a line, the
//! event's name first.

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message as Raw};

use crate::{
    order,
    provider::{
        bedrock::{
            frame::{Message, Splitter},
            invoke,
            stream::Decoder,
        },
        reply::{Event, Garbage},
    },
};

const EVENT_BYTES_MAX: usize = 1 << 16;

fn split<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Message>, Result<usize, Garbage>) {
    let mut splitter = Splitter::new(EVENT_BYTES_MAX);
    let mut messages = Vec::new();
    for piece in pieces {
        splitter.push(piece);
        loop {
            match splitter.next_message() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Err(error)),
            }
        }
    }
    (messages, Ok(splitter.rest()))
}

/// # Panics
/// It does not hold.
pub fn hold(bytes: &[u8]) {
    let _ = same_wherever_cut(bytes);
    let (stream, count) = framed(bytes);
    let (messages, end) = same_wherever_cut(&stream);
    assert!(end == Ok(0) && messages.len() == count);
    let mut decoder = Decoder::default();
    let mut events: Vec<Event> = Vec::new();
    for message in &messages {
        let _ = invoke::unwrap(&message.payload);
        match decoder.message(message) {
            Ok(more) => events.extend(more),
            Err(error) => {
                assert!(!error.0.is_empty());
                break;
            }
        }
    }
    events.extend(decoder.finish());
    order::hold(&events);
}

fn same_wherever_cut(stream: &[u8]) -> (Vec<Message>, Result<usize, Garbage>) {
    let whole = split(std::iter::once(stream));
    for size in [1, 5, 64] {
        assert_eq!(whole, split(stream.chunks(size)));
    }
    whole
}

/// A frame for each line.
fn framed(bytes: &[u8]) -> (Vec<u8>, usize) {
    let mut stream = Vec::new();
    let mut count = 0;
    for line in bytes.split(|byte| *byte == b'\n') {
        let space = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
        let (name, payload) = line.split_at(space);
        let name = String::from_utf8_lossy(name);
        let kind = if name.ends_with("Exception") { "exception" } else { "event" };
        let text = |text: &str| HeaderValue::String(text.to_owned().into());
        let message = Raw::new(payload.get(1..).unwrap_or(b"").to_vec())
            .add_header(Header::new(format!(":{kind}-type"), text(&name)))
            .add_header(Header::new(":message-type", text(kind)));
        // Names and payloads too large for a frame.
        if stream.len() + line.len() * 3 > EVENT_BYTES_MAX / 2
            || write_message_to(&message, &mut stream).is_err()
        {
            break;
        }
        count += 1;
    }
    (stream, count)
}
