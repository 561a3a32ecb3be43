//! A stream on its way from a backend to a client: bytes in wherever the network cut them, pieces for the client out, and
//! what they say of usage and text. One reader for each way.

use std::borrow::Cow;

use bytes::Bytes;
use thiserror::Error;

use super::{
    anthropic,
    bedrock::{
        self,
        frame::{Kind, Message},
    },
    chunk,
    chunk::ChunkKind,
    endpoint::Api,
    endpoint::Dialect,
    endpoint::Endpoint,
    openai,
    reply::{ApiError, Context, Event, Garbage, Opening},
    sse::{self, EventTooLarge, Splitter},
    typed,
    usage::Usage,
};

/// What one event of the backend comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Piece {
    /// For the client; may be empty.
    pub(crate) out: Bytes,
    /// All usage so far, if it says so.
    pub(crate) usage: Option<Usage>,
    /// Generated text in it, for counting where usage never comes.
    pub(crate) text: String,
    /// The backend's own error: the stream ends, and `out` says it to the client.
    pub(crate) error: Option<ApiError>,
    /// The answer is complete; nothing follows.
    pub(crate) done: bool,
}

/// Why a stream cannot be read on.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum StreamError {
    #[error(transparent)]
    TooLarge(#[from] EventTooLarge),
    #[error(transparent)]
    Garbage(#[from] Garbage),
}

#[derive(Debug)]
pub(crate) struct StreamReader {
    frames: Frames,
    events: Events,
}

#[derive(Debug)]
enum Frames {
    Sse(Splitter),
    /// AWS's binary messages, with the backend's events as they are.
    Aws(bedrock::frame::Splitter),
    /// The same, with Anthropic's events inside.
    AwsInvoke(bedrock::frame::Splitter),
    /// No frames at all: bytes as they come.
    Raw(Vec<u8>),
}

#[derive(Debug)]
enum Events {
    /// OpenAI's, passed on; usage that the client did not ask for is hidden.
    OpenAI {
        hides_usage: bool,
        /// The last event with choices in it: tells a stream that ends in order from half a one.
        last: Bytes,
        /// The event with nothing but usage came, which is the last but `[DONE]`.
        usage_came: bool,
    },
    /// OpenAI's where they have types, passed on.
    Typed(typed::Reader),
    /// Anthropic's, passed on, and read for what they cost.
    Anthropic(anthropic::stream::Decoder),
    Translated(Box<(Decoder, Encoder)>),
    /// Nothing that could be read.
    Raw,
}

#[derive(Debug)]
enum Decoder {
    OpenAI(openai::stream::Decoder),
    Anthropic(anthropic::stream::Decoder),
    Converse(bedrock::stream::Decoder),
}

#[derive(Debug)]
enum Encoder {
    OpenAI(openai::stream::Encoder),
    Anthropic(anthropic::stream::Encoder),
}

/// One event, out of its frame.
enum Framed {
    /// A server-sent event as it came, or bytes that nothing frames.
    Sse(Bytes),
    /// One of AWS's messages, as it came.
    Aws(Message),
    /// One of Anthropic's events out of AWS's message.
    Unwrapped(Vec<u8>),
}

impl StreamReader {
    /// Of OpenAI's streams, passed on as they are.
    pub(crate) fn passing_openai(hides_usage: bool, event_bytes_max: usize) -> Self {
        let events = Events::OpenAI { hides_usage, last: Bytes::new(), usage_came: false };
        Self { frames: Frames::Sse(Splitter::new(event_bytes_max)), events }
    }

    /// Of streams whose events have types, passed on as they are.
    pub(crate) fn passing_typed(endpoint: Endpoint, event_bytes_max: usize) -> Self {
        let events = Events::Typed(typed::Reader::new(endpoint));
        Self { frames: Frames::Sse(Splitter::new(event_bytes_max)), events }
    }

    /// Of bytes that are no events, such as audio.
    pub(crate) fn passing_bytes() -> Self {
        Self { frames: Frames::Raw(Vec::new()), events: Events::Raw }
    }

    /// Of Anthropic's streams, passed on as they are, or out of AWS's frames.
    pub(crate) fn passing_anthropic(api: Api, event_bytes_max: usize) -> Self {
        Self { frames: Frames::of(api, event_bytes_max), events: Events::Anthropic(Default::default()) }
    }

    pub(crate) fn translating(api: Api, client: Dialect, context: Context, event_bytes_max: usize) -> Self {
        let decoder = match api {
            Api::OpenAI | Api::Azure => Decoder::OpenAI(Default::default()),
            Api::Anthropic | Api::InvokeAnthropic => Decoder::Anthropic(Default::default()),
            Api::Converse => Decoder::Converse(Default::default()),
        };
        let encoder = match client {
            Dialect::OpenAI => Encoder::OpenAI(openai::stream::Encoder::new(context)),
            Dialect::Anthropic => Encoder::Anthropic(anthropic::stream::Encoder::new(context)),
        };
        Self {
            frames: Frames::of(api, event_bytes_max),
            events: Events::Translated(Box::new((decoder, encoder))),
        }
    }

    pub(crate) fn push(&mut self, data: &[u8]) {
        match &mut self.frames {
            Frames::Sse(splitter) => splitter.push(data),
            Frames::Aws(splitter) | Frames::AwsInvoke(splitter) => splitter.push(data),
            Frames::Raw(bytes) => bytes.extend_from_slice(data),
        }
    }

    /// Bytes without frames.
    pub(crate) fn is_raw(&self) -> bool {
        matches!(self.events, Events::Raw)
    }

    /// Bytes of an event that is not whole yet, where events may be large.
    pub(crate) fn held(&self) -> usize {
        match &self.frames {
            Frames::Sse(splitter) => splitter.held(),
            Frames::Aws(_) | Frames::AwsInvoke(_) | Frames::Raw(_) => 0,
        }
    }

    /// The next event in what was pushed.
    ///
    /// # Errors
    /// It is too large, or not what the backend's API promises; nothing more can be read then.
    pub(crate) fn next_piece(&mut self) -> Result<Option<Piece>, StreamError> {
        match self.frames.next_event()? {
            Some(framed) => self.events.piece(framed).map(Some),
            None => Ok(None),
        }
    }

    /// The backend's body has ended. What is left for the client, and whether the answer was complete.
    pub(crate) fn end(&mut self) -> Piece {
        let rest = match &mut self.frames {
            Frames::Sse(splitter) => splitter.rest(),
            // Half a message.
            Frames::Aws(splitter) | Frames::AwsInvoke(splitter) if splitter.rest() > 0 => {
                return Piece::default();
            }
            Frames::Aws(_) | Frames::AwsInvoke(_) | Frames::Raw(_) => None,
        };
        match &mut self.events {
            // Some compatible servers send no `[DONE]`.
            Events::OpenAI { last, usage_came, .. } => {
                let done = *usage_came || chunk::is_finish(last);
                Piece { out: rest.unwrap_or_default(), done, ..Piece::default() }
            }
            // What nothing frames is whole when its body is.
            Events::Raw => Piece { done: true, ..Piece::default() },
            // The last event may lack its empty line.
            Events::Typed(reader) => {
                let out = rest.unwrap_or_default();
                let said = sse::data(&out).map(|data| reader.read(&data)).unwrap_or_default();
                Piece { done: said.done || reader.is_whole(), ..typed_piece(out, said) }
            }
            Events::Anthropic(decoder) => {
                // It may lack its empty line, and be the one that tells the usage. Half a one is no event.
                let raw = rest.unwrap_or_default();
                let last = decoder.push("", &data(&raw)).ok().filter(|events| !events.is_empty());
                let out = if last.is_some() { [&raw[..], b"\n\n"].concat().into() } else { Bytes::new() };
                let mut events = last.unwrap_or_default();
                events.extend(decoder.finish());
                Piece { out, ..said(&events) }
            }
            Events::Translated(both) => {
                let (decoder, encoder) = both.as_mut();
                let last = Framed::Sse(rest.unwrap_or_default());
                let mut events = decoder.events(last).unwrap_or_default();
                events.extend(match decoder {
                    Decoder::OpenAI(decoder) => decoder.finish(),
                    Decoder::Anthropic(decoder) => decoder.finish(),
                    Decoder::Converse(decoder) => decoder.finish(),
                });
                encoder.piece(&events)
            }
        }
    }
}

impl Frames {
    fn of(api: Api, event_bytes_max: usize) -> Self {
        match api {
            Api::Converse => Self::Aws(bedrock::frame::Splitter::new(event_bytes_max)),
            Api::InvokeAnthropic => Self::AwsInvoke(bedrock::frame::Splitter::new(event_bytes_max)),
            _ => Self::Sse(Splitter::new(event_bytes_max)),
        }
    }

    fn next_event(&mut self) -> Result<Option<Framed>, StreamError> {
        let unwraps = matches!(self, Self::AwsInvoke(_));
        match self {
            Self::Sse(splitter) => Ok(splitter.next_event()?.map(Framed::Sse)),
            Self::Raw(bytes) => {
                let raw = Some(Bytes::from(std::mem::take(bytes))).filter(|bytes| !bytes.is_empty());
                Ok(raw.map(Framed::Sse))
            }
            Self::Aws(splitter) | Self::AwsInvoke(splitter) => {
                let Some(message) = splitter.next_message()? else { return Ok(None) };
                Ok(Some(if unwraps && message.kind == Kind::Event {
                    Framed::Unwrapped(bedrock::invoke::unwrap(&message.payload)?)
                } else {
                    Framed::Aws(message)
                }))
            }
        }
    }
}

impl Events {
    fn piece(&mut self, framed: Framed) -> Result<Piece, StreamError> {
        match self {
            Self::OpenAI { hides_usage, last, usage_came } => {
                let Framed::Sse(raw) = framed else { return Ok(Piece::default()) };
                // Comments before the first event keep a connection alive; they are nothing of an answer.
                if last.is_empty() && data(&raw).is_empty() {
                    return Ok(Piece::default());
                }
                let chunk = chunk::inspect(&raw)?;
                match chunk.kind {
                    ChunkKind::Passed => *last = raw.clone(),
                    ChunkKind::UsageOnly => *usage_came = true,
                    ChunkKind::Done => {}
                }
                let hidden = chunk.kind == ChunkKind::UsageOnly && *hides_usage;
                Ok(Piece {
                    out: if hidden { Bytes::new() } else { raw },
                    usage: chunk.usage,
                    text: chunk.text,
                    error: chunk.error,
                    done: chunk.kind == ChunkKind::Done,
                })
            }
            Self::Raw => match framed {
                Framed::Sse(out) => Ok(Piece { out, ..Piece::default() }),
                Framed::Aws(_) | Framed::Unwrapped(_) => Ok(Piece::default()),
            },
            Self::Typed(reader) => {
                let Framed::Sse(raw) = framed else { return Ok(Piece::default()) };
                let said = reader.read(&data(&raw));
                Ok(typed_piece(raw, said))
            }
            Self::Anthropic(decoder) => match framed {
                Framed::Sse(raw) => {
                    let said = match data(&raw) {
                        comment if comment.is_empty() => Piece::default(),
                        data => said(&decoder.read(&data)?),
                    };
                    Ok(Piece { out: raw, ..said })
                }
                Framed::Unwrapped(data) => {
                    let out = as_sse(&data).into();
                    Ok(Piece { out, ..said(&decoder.read(&data)?) })
                }
                Framed::Aws(message) => {
                    let events = bedrock::stream::Decoder::default().message(&message)?;
                    let piece = said(&events);
                    let out = piece.error.as_ref().map(anthropic::error::encode_event).unwrap_or_default();
                    Ok(Piece { out: out.into(), ..piece })
                }
            },
            Self::Translated(both) => {
                let (decoder, encoder) = both.as_mut();
                let before = decoder.usage();
                let piece = encoder.piece(&decoder.events(framed)?);
                let news = decoder.usage().filter(|usage| before != Some(*usage));
                Ok(Piece { usage: piece.usage.or(news), ..piece })
            }
        }
    }
}

impl Decoder {
    /// What it has read of usage and not told yet.
    fn usage(&self) -> Option<Usage> {
        match self {
            Self::OpenAI(decoder) => decoder.usage(),
            Self::Anthropic(_) | Self::Converse(_) => None,
        }
    }

    fn events(&mut self, framed: Framed) -> Result<Vec<Event>, Garbage> {
        match (self, framed) {
            // A comment keeps the connection alive.
            (decoder, Framed::Sse(raw)) => match (decoder, data(&raw)) {
                (_, comment) if comment.is_empty() => Ok(Vec::new()),
                (Self::OpenAI(decoder), data) => decoder.push("", &data),
                (Self::Anthropic(decoder), data) => decoder.push("", &data),
                (Self::Converse(_), _) => Ok(Vec::new()),
            },
            (Self::Anthropic(decoder), Framed::Unwrapped(data)) => decoder.push("", &data),
            (Self::Converse(decoder), Framed::Aws(message)) => decoder.message(&message),
            // An exception of AWS's among Anthropic's events.
            (Self::Anthropic(_), Framed::Aws(message)) => {
                bedrock::stream::Decoder::default().message(&message)
            }
            (Self::OpenAI(_), Framed::Aws(_) | Framed::Unwrapped(_))
            | (Self::Converse(_), Framed::Unwrapped(_)) => Ok(Vec::new()),
        }
    }
}

impl Encoder {
    fn piece(&mut self, events: &[Event]) -> Piece {
        let mut out = Vec::new();
        for event in events {
            match self {
                Self::OpenAI(encoder) => encoder.encode(event, &mut out),
                Self::Anthropic(encoder) => encoder.encode(event, &mut out),
            }
        }
        Piece { out: out.into(), ..said(events) }
    }
}

/// Of an event; empty: it is a comment.
fn data(event: &[u8]) -> Cow<'_, [u8]> {
    sse::data(event).unwrap_or_default()
}

/// One of Anthropic's events as it sends it itself: its type is the event's name too.
fn as_sse(data: &[u8]) -> Vec<u8> {
    #[derive(serde::Deserialize)]
    struct Typed<'a> {
        #[serde(borrow, rename = "type")]
        kind: Cow<'a, str>,
    }
    let mut out = Vec::with_capacity(data.len() + 48);
    if let Ok(Typed { kind }) = serde_json::from_slice(data) {
        out.extend_from_slice(b"event: ");
        out.extend(kind.bytes().filter(|byte| !byte.is_ascii_control()));
        out.push(b'\n');
    }
    for line in data.split(|byte| matches!(byte, b'\n' | b'\r')) {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out.push(b'\n');
    out
}

fn typed_piece(out: Bytes, said: typed::Said) -> Piece {
    let typed::Said { usage, text, error, done } = said;
    Piece { out, usage, text, error, done }
}

fn is_done(events: &[Event]) -> bool {
    events.contains(&Event::Done)
}

/// What events say besides what goes to the client.
fn said(events: &[Event]) -> Piece {
    let mut piece = Piece { done: is_done(events), ..Piece::default() };
    for event in events {
        match event {
            Event::Text { text, .. } | Event::Thinking { text, .. } | Event::Refusal { text, .. } => {
                piece.text.push_str(text);
            }
            Event::Input { json, .. } => piece.text.push_str(json),
            Event::Open { block: Opening::ToolUse { name, .. }, .. } => piece.text.push_str(name),
            // Nobody can read it: for what it is worth.
            Event::Open { block: Opening::RedactedThinking(data), .. } => piece.text.push_str(data),
            Event::Usage(usage) => piece.usage = Some(*usage),
            Event::Error(error) => piece.error = Some(error.clone()),
            _ => {}
        }
    }
    piece
}
