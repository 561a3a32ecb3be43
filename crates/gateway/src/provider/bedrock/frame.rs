//! Splits `application/vnd.amazon.eventstream` into messages, wherever the network cut it. What a message means is the
//! stream decoder's business.
//!
//! Source: Smithy's specification of event streams: a prelude (length of all, length of the headers, CRC), headers, payload,
//! CRC.

use aws_smithy_eventstream::frame::read_message_from;
use aws_smithy_types::event_stream::Message as Raw;
use bytes::{Buf, Bytes, BytesMut};
use serde_json::json;

use crate::provider::reply::Garbage;

/// Prelude and the message's own CRC.
const OVERHEAD: usize = 16;

/// A message of the stream, by its headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) kind: Kind,
    /// `:event-type`, `:exception-type` or `:error-code`.
    pub(crate) name: String,
    /// JSON. Errors carry their text in a header: here it is `{"message": …}`, as that of exceptions.
    pub(crate) payload: Bytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Event,
    /// An error that the API's model names.
    Exception,
    /// Any other error.
    Error,
}

/// Holds at most one unfinished message.
#[derive(Debug)]
pub(crate) struct Splitter {
    buffer: BytesMut,
    event_bytes_max: usize,
}

impl Splitter {
    pub(crate) fn new(event_bytes_max: usize) -> Self {
        Self { buffer: BytesMut::new(), event_bytes_max }
    }

    /// Takes what arrived. Call [`Self::next_message`] until it returns `None` before the next push.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message. After an error the stream is lost: where its next message begins cannot be told.
    pub(crate) fn next_message(&mut self) -> Result<Option<Message>, Garbage> {
        let Some(mut prelude) = self.buffer.get(..4) else { return Ok(None) };
        // A length beyond what memory can count is too large in any case.
        let length = usize::try_from(prelude.get_u32()).unwrap_or(usize::MAX);
        if length < OVERHEAD {
            return Err(Garbage(format!(
                "the backend sent a message of {length} bytes, fewer than its frame has"
            )));
        }
        if length > self.event_bytes_max {
            let max = self.event_bytes_max;
            return Err(Garbage(format!("the backend sent a message of {length} bytes, more than {max}")));
        }
        if self.buffer.len() < length {
            return Ok(None);
        }
        let raw = read_message_from(self.buffer.split_to(length).freeze())
            .map_err(|error| Garbage(format!("the backend sent a damaged message: {error}")))?;
        message(&raw).map(Some)
    }

    /// At the end of the body: bytes of a message that was not finished.
    pub(crate) fn rest(&self) -> usize {
        self.buffer.len()
    }
}

fn message(raw: &Raw) -> Result<Message, Garbage> {
    let header = |name: &str| {
        let found = raw.headers().iter().find(|header| header.name().as_str() == name)?;
        Some(found.value().as_string().ok()?.as_str())
    };
    let (kind, name) = match header(":message-type") {
        Some("event") => (Kind::Event, ":event-type"),
        Some("exception") => (Kind::Exception, ":exception-type"),
        Some("error") => (Kind::Error, ":error-code"),
        _ => return Err(Garbage("the backend sent a message without a known `:message-type`".to_owned())),
    };
    let payload = match (kind, header(":error-message")) {
        (Kind::Error, Some(text)) => Bytes::from(json!({"message": text}).to_string()),
        _ => raw.payload().clone(),
    };
    match header(name) {
        Some(name) => Ok(Message { kind, name: name.to_owned(), payload }),
        None => Err(Garbage(format!("the backend sent a message without `{name}`"))),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use aws_smithy_eventstream::frame::write_message_to;
    use aws_smithy_types::event_stream::{Header, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    /// A stream of messages: headers, payload.
    pub(crate) fn encode(messages: &[(&[(&str, &str)], &str)]) -> Vec<u8> {
        let mut stream = Vec::new();
        for (headers, payload) in messages {
            let mut message = Raw::new(Bytes::copy_from_slice(payload.as_bytes()));
            for (name, value) in *headers {
                let value = HeaderValue::String((*value).to_owned().into());
                message = message.add_header(Header::new((*name).to_owned(), value));
            }
            write_message_to(&message, &mut stream).unwrap();
        }
        stream
    }

    /// As Bedrock frames the events of a stream; those whose name says so are exceptions.
    pub(crate) fn encode_frames(events: &[(&str, &str)]) -> Vec<u8> {
        let mut stream = Vec::new();
        for (name, payload) in events {
            let (of, kind) = if name.ends_with("Exception") {
                (":exception-type", "exception")
            } else {
                (":event-type", "event")
            };
            let headers = [(of, *name), (":content-type", "application/json"), (":message-type", kind)];
            stream.extend(encode(&[(&headers, payload)]));
        }
        stream
    }

    pub(crate) fn split(pieces: &[&[u8]]) -> (Vec<Message>, Result<usize, Garbage>) {
        let mut splitter = Splitter::new(1 << 16);
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

    #[test]
    fn kinds_and_names() {
        let stream = encode(&[
            (&[(":message-type", "event"), (":event-type", "messageStop")], "{}"),
            (
                &[(":message-type", "exception"), (":exception-type", "throttlingException")],
                r#"{"message":"a"}"#,
            ),
            (&[(":message-type", "error"), (":error-code", "Gone"), (":error-message", "no \"more\"")], ""),
        ]);
        let (messages, rest) = split(&[&stream]);
        let seen: Vec<_> = messages.iter().map(|m| (m.kind, m.name.as_str(), m.payload.as_ref())).collect();
        assert_eq!(
            seen,
            [
                (Kind::Event, "messageStop", b"{}".as_slice()),
                (Kind::Exception, "throttlingException", br#"{"message":"a"}"#),
                (Kind::Error, "Gone", br#"{"message":"no \"more\""}"#),
            ]
        );
        assert_eq!(rest, Ok(0));
        assert_eq!(split(&[&stream[..stream.len() - 1]]).0.len(), 2);
    }

    #[test]
    fn damage_is_noticed_at_every_byte() {
        let stream = encode_frames(&[("messageStart", r#"{"role":"assistant"}"#)]);
        for at in 0..stream.len() {
            for bit in 0..8 {
                let mut damaged = stream.clone();
                damaged[at] ^= 1 << bit;
                let (messages, end) = split(&[&damaged]);
                // A length that grew waits for more, and never makes a message.
                assert!(messages.is_empty() && end != Ok(0), "bit {bit} of byte {at}: {messages:?}");
            }
        }
    }

    #[test]
    fn bounds_and_headers() {
        for (bytes, says) in [
            (b"<html><body>not a stream</body></html>".to_vec(), "more than"),
            (vec![0, 0, 0, 15], "fewer"),
            (encode(&[(&[], "{}")]), "`:message-type`"),
            (encode(&[(&[(":message-type", "event")], "{}")]), "`:event-type`"),
            (encode(&[(&[(":message-type", "news"), (":event-type", "a")], "{}")]), "`:message-type`"),
        ] {
            assert!(split(&[&bytes]).1.unwrap_err().to_string().contains(says), "{says}");
        }
        let mut splitter = Splitter::new(100);
        splitter.push(&101u32.to_be_bytes());
        assert!(splitter.next_message().is_err());
    }

    proptest! {
        #[test]
        fn any_bytes(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..64), 0..8)) {
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            let _ = split(&pieces);
        }

        #[test]
        fn the_cut_does_not_matter(
            payloads in proptest::collection::vec("[ -~é]{0,40}", 0..6),
            cut in 0usize..2000,
        ) {
            let events: Vec<(&str, &str)> = payloads.iter().map(|payload| ("metadata", payload.as_str())).collect();
            let stream = encode_frames(&events);
            let whole = split(&[&stream]);
            prop_assert_eq!(whole.0.len(), events.len());
            let cut = cut % (stream.len() + 1);
            prop_assert_eq!(&whole, &split(&[&stream[..cut], &stream[cut..]]));
            let bytes: Vec<&[u8]> = stream.chunks(1).collect();
            prop_assert_eq!(&whole, &split(&bytes));
        }
    }
}
