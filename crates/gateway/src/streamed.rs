//! An answer that is a stream: events go to the client as they come, what they cost is settled before the last one.
//!
//! The task of the call owns the upstream body and fills a bounded channel, so a slow client holds a few frames and
//! nothing else. `x-ai-gateway-tokens-used` comes as a trailer to clients that send `te: trailers`, and as a comment
//! after the last event to all others: SDKs skip it, and the bytes before it are the provider's.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, header};
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    answered,
    attempt::Attempt,
    body::{self, BrokenOff, ResponseBody},
    call::{Reply, Trail},
    memory::Share,
    provider::{
        Api, Dialect, Endpoint, Usage, Way,
        exchange::Reading,
        reply::{ApiError, Garbage},
        stream::{Piece, StreamError, StreamReader},
    },
    ratelimit,
    refusal::Refusal,
    reserve::{self, Held},
    upstream::UpstreamBody,
};

/// Frames on their way to one client.
const FRAMES_MAX: usize = 16;
/// Generated text kept for counting; beyond it, what is there is counted and dropped.
const TEXT_BYTES_MAX: usize = 64 << 10;
/// How long the end of the upstream body is waited for, so that its connection can be used again.
const DRAIN: Duration = Duration::from_millis(200);
const USED: &str = "x-ai-gateway-tokens-used";

/// Why a stream ended.
#[derive(Debug)]
enum End {
    /// The provider is finished; what is left to send.
    Complete(Bytes),
    ClientGone,
    /// The provider said an error, which is sent as it is (or translated).
    Error(ApiError, Bytes),
    Garbage(Garbage),
    Broken(Refusal),
}

/// Relays one stream to its end and settles it. What fails before anything of the answer is there comes back: the client
/// has not been told anything yet. `more`: another attempt may follow then.
pub(crate) async fn relay(
    attempt: &Attempt<'_>,
    trail: &mut Trail,
    response: Response<UpstreamBody>,
    mut reply: Reply,
    more: bool,
) -> Option<(Refusal, Reply)> {
    let (parts, mut upstream) = response.into_parts();
    let (frames, receiver) = mpsc::channel(FRAMES_MAX);
    let reading = attempt.reading();
    let mut pump = Pump {
        attempt,
        frames,
        reader: reader(attempt, &reading, &parts.headers),
        memory: attempt.core().memory.share(),
        usage: None,
        text: String::new(),
        counted: 0,
    };
    // A head alone is no answer yet.
    let patience =
        attempt.stream_idle().min(Duration::from_millis(attempt.core().config.timeouts.first_byte_ms));
    let first = tokio::select! {
        first = pump.read(&mut upstream, patience) => first,
        () = reply.closed() => Err(End::ClientGone),
    };
    let first = match first {
        Ok(first) => first,
        Err(End::ClientGone) => {
            pump.finish(End::ClientGone, trail.held.take(), upstream, false).await;
            return None;
        }
        Err(End::Complete(last)) => Read { out: Bytes::new(), end: Some(End::Complete(last)) },
        Err(end) => return Some((pump.failed(end, trail, more).await, reply)),
    };
    attempt.begun();
    let trailers = attempt.call.takes_trailers();
    let mut answer = Response::new(ResponseBody::Stream(receiver));
    *answer.status_mut() = parts.status;
    *answer.headers_mut() = head(attempt, trail.held.as_ref(), parts.headers, &reading, trailers);
    let end = match reply.send(answer) {
        Ok(()) => pump.run(first, &mut upstream).await,
        Err(_) => End::ClientGone,
    };
    // Whoever leaves has been served so far.
    if matches!(end, End::Complete(_) | End::ClientGone) {
        attempt.completed();
    }
    pump.finish(end, trail.held.take(), upstream, trailers).await;
    None
}

fn head(
    attempt: &Attempt<'_>,
    held: Option<&Held>,
    provider: HeaderMap,
    reading: &Reading,
    trailers: bool,
) -> HeaderMap {
    let mut headers = answered::head(attempt, provider, reading);
    if reading.way == Way::Translate || reading.api == Api::InvokeAnthropic {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    }
    if let Some(held) = held {
        ratelimit::insert(&mut headers, &held.balances, |budget| reserve::window(&held.plan, budget));
    }
    if trailers {
        headers.insert(header::TRAILER, HeaderValue::from_static(USED));
    }
    headers
}

fn reader(attempt: &Attempt<'_>, reading: &Reading, headers: &HeaderMap) -> StreamReader {
    let limits = &attempt.core().config.limits;
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    match reading.endpoint {
        Endpoint::Speech if !kind.trim_start().starts_with("text/event-stream") => {
            StreamReader::passing_bytes()
        }
        // An event holds a whole picture.
        Endpoint::Images => reading.stream(limits.answer_bytes_max),
        _ => reading.stream(limits.event_bytes_max),
    }
}

struct Pump<'c> {
    attempt: &'c Attempt<'c>,
    frames: mpsc::Sender<body::Piece>,
    reader: StreamReader,
    /// For events of more than a MiB.
    memory: Share,
    /// The last that the provider said. It holds what was generated until then.
    usage: Option<Usage>,
    /// Generated since then: not counted yet, and tokens of what was.
    text: String,
    counted: u64,
}

/// What came of some bytes: something for the client, and perhaps the end.
struct Read {
    out: Bytes,
    end: Option<End>,
}

impl Pump<'_> {
    async fn run(&mut self, first: Read, upstream: &mut UpstreamBody) -> End {
        let mut read = first;
        loop {
            if !read.out.is_empty() && !self.send(Frame::data(read.out)).await {
                return End::ClientGone;
            }
            if let Some(end) = read.end {
                return end;
            }
            read = match self.read(upstream, self.attempt.stream_idle()).await {
                Ok(read) => read,
                Err(end) => return end,
            };
        }
    }

    /// Reads on until there is something for the client, each time for at most `patience`.
    ///
    /// # Errors
    /// The stream ended, with nothing more for the client than what the end holds.
    async fn read(&mut self, upstream: &mut UpstreamBody, patience: Duration) -> Result<Read, End> {
        let backend = || self.attempt.name().to_owned();
        loop {
            let deadline = self.attempt.deadline().min(Instant::now() + patience);
            let frame = tokio::select! {
                frame = timeout_at(deadline, upstream.frame()) => frame,
                () = self.frames.closed() => return Err(End::ClientGone),
                () = self.attempt.core().cut.cancelled() => return Err(End::Broken(Refusal::Stopping)),
            };
            let data = match frame {
                Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
                Ok(None) => return Err(self.ended()),
                Ok(Some(Err(error))) => {
                    tracing::warn!(backend = backend(), %error, "backend broke off a stream");
                    self.attempt.failed("died");
                    return Err(End::Broken(Refusal::BackendDied { backend: backend() }));
                }
                Err(_) => {
                    self.attempt.failed("timeout");
                    return Err(End::Broken(Refusal::BackendTimeout { backend: backend() }));
                }
            };
            self.reader.push(&data);
            if timeout_at(self.attempt.deadline(), self.memory.cover(self.reader.held())).await.is_err() {
                return Err(End::Broken(Refusal::Overloaded));
            }
            let read = self.take().await;
            if !read.out.is_empty() {
                return Ok(read);
            }
            if let Some(end) = read.end {
                return Err(end);
            }
        }
    }

    /// The backend's body is at its end.
    fn ended(&mut self) -> End {
        let last = self.reader.end();
        self.note(last.usage, &last.text);
        if last.done {
            return End::Complete(last.out);
        }
        let backend = self.attempt.name().to_owned();
        tracing::warn!(backend, "backend ended a stream before its answer was complete");
        self.attempt.failed("died");
        End::Broken(Refusal::BackendDied { backend })
    }

    /// The events in what arrived: those for the client, and the end if it came.
    async fn take(&mut self) -> Read {
        let mut out = Bytes::new();
        loop {
            let piece = match self.reader.next_piece() {
                Ok(Some(piece)) => piece,
                Ok(None) => return Read { out, end: None },
                Err(error) => return Read { out, end: Some(self.unreadable(error)) },
            };
            let Piece { out: bytes, usage, text, error, done } = piece;
            self.note(usage, &text);
            if self.text.len() > TEXT_BYTES_MAX {
                self.counted += answered::count(self.attempt, std::mem::take(&mut self.text)).await;
            }
            if let Some(error) = error {
                self.attempt.failed("error_inside");
                return Read { out, end: Some(End::Error(error, bytes)) };
            }
            if done {
                return Read { out, end: Some(End::Complete(bytes)) };
            }
            out = joined(out, bytes);
        }
    }

    /// What one piece says of its cost. Its usage is that of all up to its end.
    fn note(&mut self, usage: Option<Usage>, text: &str) {
        if usage.is_some() {
            self.usage = usage;
            self.counted = 0;
            self.text.clear();
        } else {
            self.text.push_str(text);
        }
    }

    fn unreadable(&self, error: StreamError) -> End {
        let backend = self.attempt.name().to_owned();
        tracing::warn!(backend, %error, "stream ended by the gateway");
        match error {
            StreamError::TooLarge(_) => {
                self.attempt.core().metrics.upstream_error(self.attempt.name(), "too_large");
                End::Broken(Refusal::AnswerTooLarge { backend })
            }
            StreamError::Garbage(garbage) => {
                self.attempt.failed("garbage");
                End::Garbage(garbage)
            }
        }
    }

    /// The end of a stream of which the client has heard nothing.
    async fn failed(mut self, end: End, trail: &mut Trail, more: bool) -> Refusal {
        let backend = self.attempt.name().to_owned();
        let (refusal, free) = match end {
            End::Error(error, _) => (Refusal::BackendError { backend, error }, self.usage.is_none()),
            End::Garbage(Garbage(problem)) => (Refusal::BackendGarbage { backend, problem }, false),
            End::Broken(refusal) => (refusal, false),
            End::Complete(_) | End::ClientGone => (Refusal::Internal, false),
        };
        if free {
            return refusal;
        }
        let more = more && !matches!(refusal, Refusal::Stopping);
        let used = self.used(trail.held.as_ref(), "upstream_died").await;
        trail.charge(self.attempt, used.unwrap_or_default(), more).await;
        refusal
    }

    /// False if the client is gone, or takes too long.
    async fn send(&self, frame: Frame<Bytes>) -> bool {
        let within = Duration::from_millis(self.attempt.core().config.timeouts.write_ms);
        matches!(timeout(within, self.frames.send(Ok(frame))).await, Ok(Ok(())))
    }

    async fn finish(mut self, end: End, held: Option<Held>, mut upstream: UpstreamBody, trailers: bool) {
        let why = match &end {
            End::Complete(_) => {
                // The connection goes back to the pool once its body has been read to the end.
                let _ = timeout(DRAIN, async { while let Some(Ok(_)) = upstream.frame().await {} }).await;
                "missing"
            }
            End::ClientGone => "hang_up",
            End::Broken(_) | End::Garbage(_) | End::Error(..) => "upstream_died",
        };
        // Ends the generation at the provider, if it is still going on.
        drop(upstream);
        let used = self.used(held.as_ref(), why).await;
        self.attempt.settle(held, used.unwrap_or_default()).await;
        if self.reader.is_raw() {
            return self.finish_raw(end, used, trailers).await;
        }
        let dialect: Dialect = self.attempt.call.facts.endpoint.dialect();
        match end {
            End::ClientGone => drop(self.attempt.core().metrics.hang_ups.inc()),
            End::Broken(refusal) => drop(self.send(Frame::data(refusal.event(dialect))).await),
            End::Garbage(Garbage(problem)) => {
                let refusal = Refusal::BackendGarbage { backend: self.attempt.name().to_owned(), problem };
                self.send(Frame::data(refusal.event(dialect))).await;
            }
            End::Error(_, said) => drop(self.send(Frame::data(said)).await),
            End::Complete(last) => self.complete(last, used, trailers).await,
        }
    }

    /// Bytes without frames: nothing can be put among them.
    async fn finish_raw(&self, end: End, used: Option<Usage>, trailers: bool) {
        match end {
            End::ClientGone => drop(self.attempt.core().metrics.hang_ups.inc()),
            End::Complete(_) if trailers => self.complete(Bytes::new(), used, trailers).await,
            End::Complete(_) => {}
            End::Broken(_) | End::Garbage(_) | End::Error(..) => {
                let within = Duration::from_millis(self.attempt.core().config.timeouts.write_ms);
                // The client may be gone: then nobody has to be told.
                let _ = timeout(within, self.frames.send(Err(BrokenOff))).await;
            }
        }
    }

    async fn complete(&self, last: Bytes, used: Option<Usage>, trailers: bool) {
        let Some(used) = used.map(|used| used.total.saturating_add(self.attempt.wasted)) else {
            if !last.is_empty() {
                self.send(Frame::data(last)).await;
            }
            return;
        };
        if trailers {
            let fields =
                HeaderMap::from_iter([(http::HeaderName::from_static(USED), HeaderValue::from(used))]);
            let sent = last.is_empty() || self.send(Frame::data(last)).await;
            if sent {
                self.send(Frame::trailers(fields)).await;
            }
        } else {
            let comment = Bytes::from(format!(": {USED}={used}\n\n"));
            self.send(Frame::data(joined(last, comment))).await;
        }
    }

    /// Tokens of the stream so far: the provider's usage, and what came after it or without it, counted. `None` if nobody
    /// counts them.
    async fn used(&mut self, held: Option<&Held>, why: &'static str) -> Option<Usage> {
        let is_whole = self.counted == 0 && self.text.is_empty();
        if let Some(usage) = self.usage.filter(|_| is_whole || held.is_none()) {
            self.attempt.core().metrics.charged(usage);
            return Some(usage);
        }
        let held = held?;
        let counted = self.counted + answered::count(self.attempt, std::mem::take(&mut self.text)).await;
        let usage = match self.usage {
            // The first event of Anthropic's streams: the input, and next to nothing of the output.
            Some(said) if said.input > 0 => {
                self.attempt.estimates(why);
                said.with_output(held.most_output(said.output, counted))
            }
            _ => {
                let input = self.attempt.input_of(held, why, None).await;
                Usage::of(input, held.most_output(0, counted))
            }
        };
        self.attempt.core().metrics.charged(usage);
        tracing::warn!(
            backend = self.attempt.name(), model = self.attempt.candidate.model, reservation = %held.id,
            input = usage.input, output = usage.output, why,
            "the stream has no usage of all that came; it was counted with a tokenizer"
        );
        Some(usage)
    }
}

/// Two pieces as one frame, without copying if one is empty.
fn joined(first: Bytes, second: Bytes) -> Bytes {
    if first.is_empty() {
        return second;
    }
    let mut both = BytesMut::from(first);
    both.extend_from_slice(&second);
    both.freeze()
}
