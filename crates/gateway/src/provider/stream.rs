//! A stream on its way from a backend to a client: bytes in wherever the network cut them, bytes for the client out, and
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
    chunk::{self, Chunk, ChunkKind},
    endpoint::Api,
    endpoint::Dialect,
    endpoint::Endpoint,
    openai,
    reply::{ApiError, Context, Event, Garbage, Opening},
    sse::{self, EventTooLarge, Splitter},
    typed,
    usage::Usage,
};

/// Where the events of a stream go: many of them, one behind the other.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Sink {
    /// For the client.
    pub(crate) out: Vec<u8>,
    /// Generated text, for counting where usage never comes.
    pub(crate) text: String,
}

/// What one event of the backend says, besides what went to the [`Sink`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Piece {
    /// All usage so far, that of this event's text too, if it says so.
    pub(crate) usage: Option<Usage>,
    /// The backend's own error: the stream ends, and what it put out says it to the client.
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
    Raw(Bytes),
}

#[derive(Debug)]
enum Events {
    /// OpenAI's, passed on; usage that the client did not ask for is hidden.
    OpenAI {
        hides_usage: bool,
        /// The last event with choices in it: tells a stream that ends in order from half a one.
        last: Vec<u8>,
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
enum Framed<'a> {
    /// A server-sent event as it came, or bytes that nothing frames.
    Sse(&'a [u8]),
    /// One of AWS's messages, as it came.
    Aws(Message),
    /// One of Anthropic's events out of AWS's message.
    Unwrapped(Vec<u8>),
}

impl StreamReader {
    /// Of OpenAI's streams, passed on as they are.
    pub(crate) fn passing_openai(hides_usage: bool, event_bytes_max: usize) -> Self {
        let events = Events::OpenAI { hides_usage, last: Vec::new(), usage_came: false };
        Self { frames: Frames::Sse(Splitter::new(event_bytes_max)), events }
    }

    /// Of streams whose events have types, passed on as they are.
    pub(crate) fn passing_typed(endpoint: Endpoint, event_bytes_max: usize) -> Self {
        let events = Events::Typed(typed::Reader::new(endpoint));
        Self { frames: Frames::Sse(Splitter::new(event_bytes_max)), events }
    }

    /// Of bytes that are no events, such as audio.
    pub(crate) fn passing_bytes() -> Self {
        Self { frames: Frames::Raw(Bytes::new()), events: Events::Raw }
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

    /// Takes what arrived. Call [`Self::read`] until it returns `None` before the next push.
    pub(crate) fn push(&mut self, arrived: Bytes) {
        match &mut self.frames {
            Frames::Sse(splitter) => splitter.push(arrived),
            Frames::Aws(splitter) | Frames::AwsInvoke(splitter) => splitter.push(&arrived),
            Frames::Raw(bytes) => *bytes = arrived,
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

    /// Reads the next event in what was pushed.
    ///
    /// # Errors
    /// It is too large, or not what the backend's API promises; nothing more can be read then.
    pub(crate) fn read(&mut self, sink: &mut Sink) -> Result<Option<Piece>, StreamError> {
        let mut raw = Bytes::new();
        match self.frames.next_event(&mut raw)? {
            Some(framed) => Ok(Some(self.events.read(framed, sink)?)),
            None => Ok(None),
        }
    }

    /// The backend's body has ended. What is left for the client, and whether the answer was complete.
    pub(crate) fn end(&mut self, sink: &mut Sink) -> Piece {
        let rest = match &mut self.frames {
            Frames::Sse(splitter) => splitter.rest(),
            // Half a message.
            Frames::Aws(splitter) | Frames::AwsInvoke(splitter) if splitter.rest() > 0 => {
                return Piece::default();
            }
            Frames::Aws(_) | Frames::AwsInvoke(_) | Frames::Raw(_) => None,
        };
        let rest = rest.unwrap_or_default();
        match &mut self.events {
            // Some compatible servers send no `[DONE]`.
            Events::OpenAI { last, usage_came, .. } => {
                sink.out.extend(rest);
                Piece { done: *usage_came || chunk::is_finish(last), ..Piece::default() }
            }
            // What nothing frames is whole when its body is.
            Events::Raw => Piece { done: true, ..Piece::default() },
            // The last event may lack its empty line.
            Events::Typed(reader) => {
                let said = sse::data(&rest).map(|data| reader.read(&data)).unwrap_or_default();
                sink.out.extend_from_slice(&rest);
                let piece = typed_piece(said, sink);
                Piece { done: piece.done || reader.is_whole(), ..piece }
            }
            Events::Anthropic(decoder) => {
                // It may lack its empty line, and be the one that tells the usage. Half a one is no event.
                let last = decoder.push("", &data(&rest)).ok().filter(|events| !events.is_empty());
                if last.is_some() {
                    sink.out.extend_from_slice(&rest);
                    sink.out.extend_from_slice(b"\n\n");
                }
                let mut events = last.unwrap_or_default();
                events.extend(decoder.finish());
                said(&events, sink)
            }
            Events::Translated(both) => {
                let (decoder, encoder) = both.as_mut();
                let mut events = decoder.events(Framed::Sse(&rest)).unwrap_or_default();
                events.extend(match decoder {
                    Decoder::OpenAI(decoder) => decoder.finish(),
                    Decoder::Anthropic(decoder) => decoder.finish(),
                    Decoder::Converse(decoder) => decoder.finish(),
                });
                encoder.write(&events, sink)
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

    /// `raw`: where bytes without frames stay while they are read.
    fn next_event<'a>(&'a mut self, raw: &'a mut Bytes) -> Result<Option<Framed<'a>>, StreamError> {
        let unwraps = matches!(self, Self::AwsInvoke(_));
        match self {
            Self::Sse(splitter) => Ok(splitter.next_event()?.map(Framed::Sse)),
            Self::Raw(bytes) => {
                *raw = std::mem::take(bytes);
                Ok(Some(Framed::Sse(raw)).filter(|_| !raw.is_empty()))
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
    fn read(&mut self, framed: Framed<'_>, sink: &mut Sink) -> Result<Piece, Garbage> {
        match self {
            Self::OpenAI { hides_usage, last, usage_came } => {
                let Framed::Sse(raw) = framed else { return Ok(Piece::default()) };
                // Comments before the first event keep a connection alive; they are nothing of an answer.
                if last.is_empty() && data(raw).is_empty() {
                    return Ok(Piece::default());
                }
                let Chunk { kind, usage, error } = chunk::inspect(raw, &mut sink.text)?;
                match kind {
                    ChunkKind::Passed => {
                        last.clear();
                        last.extend_from_slice(raw);
                    }
                    ChunkKind::UsageOnly => *usage_came = true,
                    ChunkKind::Done => {}
                }
                if kind != ChunkKind::UsageOnly || !*hides_usage {
                    sink.out.extend_from_slice(raw);
                }
                Ok(Piece { usage, error, done: kind == ChunkKind::Done })
            }
            Self::Raw => {
                if let Framed::Sse(raw) = framed {
                    sink.out.extend_from_slice(raw);
                }
                Ok(Piece::default())
            }
            Self::Typed(reader) => {
                let Framed::Sse(raw) = framed else { return Ok(Piece::default()) };
                sink.out.extend_from_slice(raw);
                Ok(typed_piece(reader.read(&data(raw)), sink))
            }
            Self::Anthropic(decoder) => match framed {
                Framed::Sse(raw) => {
                    let piece = match data(raw) {
                        comment if comment.is_empty() => Piece::default(),
                        data => said(&decoder.read(&data)?, sink),
                    };
                    sink.out.extend_from_slice(raw);
                    Ok(piece)
                }
                Framed::Unwrapped(data) => {
                    let piece = said(&decoder.read(&data)?, sink);
                    as_sse(&data, &mut sink.out);
                    Ok(piece)
                }
                Framed::Aws(message) => {
                    let events = bedrock::stream::Decoder::default().message(&message)?;
                    let piece = said(&events, sink);
                    if let Some(error) = &piece.error {
                        sink.out.extend(anthropic::error::encode_event(error));
                    }
                    Ok(piece)
                }
            },
            Self::Translated(both) => {
                let (decoder, encoder) = both.as_mut();
                let before = decoder.usage();
                let piece = encoder.write(&decoder.events(framed)?, sink);
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

    fn events(&mut self, framed: Framed<'_>) -> Result<Vec<Event>, Garbage> {
        match (self, framed) {
            // A comment keeps the connection alive.
            (decoder, Framed::Sse(raw)) => match (decoder, data(raw)) {
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
    fn write(&mut self, events: &[Event], sink: &mut Sink) -> Piece {
        for event in events {
            match self {
                Self::OpenAI(encoder) => encoder.encode(event, &mut sink.out),
                Self::Anthropic(encoder) => encoder.encode(event, &mut sink.out),
            }
        }
        said(events, sink)
    }
}

/// Of an event; empty: it is a comment.
fn data(event: &[u8]) -> Cow<'_, [u8]> {
    sse::data(event).unwrap_or_default()
}

/// One of Anthropic's events as it sends it itself: its type is the event's name too.
fn as_sse(data: &[u8], out: &mut Vec<u8>) {
    #[derive(serde::Deserialize)]
    struct Typed<'a> {
        #[serde(borrow, rename = "type")]
        kind: Cow<'a, str>,
    }
    out.reserve(data.len() + 48);
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
}

fn typed_piece(said: typed::Said, sink: &mut Sink) -> Piece {
    let typed::Said { usage, text, error, done } = said;
    sink.text.push_str(&text);
    Piece { usage, error, done }
}

/// What events say besides what goes to the client.
fn said(events: &[Event], sink: &mut Sink) -> Piece {
    let mut piece = Piece { done: events.contains(&Event::Done), ..Piece::default() };
    for event in events {
        match event {
            Event::Text { text, .. } | Event::Thinking { text, .. } | Event::Refusal { text, .. } => {
                sink.text.push_str(text);
            }
            Event::Input { json, .. } => sink.text.push_str(json),
            Event::Open { block: Opening::ToolUse { name, .. }, .. } => sink.text.push_str(name),
            // Nobody can read it: for what it is worth.
            Event::Open { block: Opening::RedactedThinking(data), .. } => sink.text.push_str(data),
            Event::Usage(usage) => piece.usage = Some(*usage),
            Event::Error(error) => piece.error = Some(error.clone()),
            _ => {}
        }
    }
    piece
}

#[cfg(test)]
impl StreamReader {
    /// Everything in `pieces`, one arriving after the other: what a client gets, generated text, the last usage, and
    /// whether the answer was complete.
    pub(crate) fn read_all<'a>(&mut self, pieces: impl Iterator<Item = &'a [u8]>) -> (Sink, Piece) {
        let (mut sink, mut all) = (Sink::default(), Piece::default());
        for bytes in pieces {
            self.push(Bytes::copy_from_slice(bytes));
            while let Some(piece) = self.read(&mut sink).expect("a stream that can be read") {
                let Piece { usage, error, done } = piece;
                all =
                    Piece { usage: usage.or(all.usage), error: error.or(all.error), done: all.done || done };
            }
        }
        (sink, all)
    }
}
