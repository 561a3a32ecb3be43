//! An answer that is a stream: events go to the client as they come, what they cost is settled before the last one.
//!
//! The task of the call owns the upstream body and fills a bounded channel, so a slow client holds a few frames and
//! nothing else. `x-ai-gateway-tokens-used` comes as a trailer to clients that send `te: trailers`, and as a comment
//! after the last event to all others: SDKs skip it, and the bytes before it are the provider's.

use std::{pin::pin, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, header};
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    time::{Instant, sleep, timeout, timeout_at},
};

use crate::{
    answered,
    arriving::{Arrived, Arriving},
    attempt::Attempt,
    body::{Piece, ResponseBody},
    call::{Reply, Trail},
    leased::Leased,
    memory::Share,
    provider::{
        Api, Dialect, Endpoint, Usage, Way,
        exchange::Reading,
        reply::{ApiError, Garbage},
        stream::{Sink, StreamError, StreamReader},
    },
    ratelimit,
    refusal::Refusal,
    reserve::{self, Held},
    upstream::UpstreamBody,
};

/// Pieces on their way to one client.
const PIECES_MAX: usize = 8;
/// Events that arrived together are one piece, until it is as long as this.
const PIECE_BYTES: usize = 32 << 10;
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
    let (parts, upstream) = response.into_parts();
    let (pieces, receiver) = mpsc::channel(PIECES_MAX);
    let reading = attempt.reading();
    let mut pump = Pump {
        attempt,
        pieces: &pieces,
        reader: reader(attempt, &reading, &parts.headers),
        memory: attempt.core().memory.share(),
        usage: None,
        sink: Sink::default(),
        counted: 0,
    };
    // A head alone is no answer yet.
    let patience =
        attempt.stream_idle().min(Duration::from_millis(attempt.core().config.timeouts.first_byte_ms));
    let (gone, cut, timer) =
        (pin!(pieces.closed()), pin!(attempt.core().cut.cancelled()), pin!(sleep(patience)));
    let mut arriving = Arriving::new(upstream, attempt.deadline(), (gone, cut), timer);
    let first = tokio::select! {
        first = pump.read(&mut arriving, patience) => first,
        () = reply.closed() => Err(End::ClientGone),
    };
    let first = match first {
        Ok(first) => first,
        Err(End::ClientGone) => {
            pump.finish(Bytes::new(), End::ClientGone, trail.held.take(), arriving, false).await;
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
    let (unsent, end) = match reply.send(answer) {
        Ok(()) => pump.run(first, &mut arriving).await,
        Err(_) => (Bytes::new(), End::ClientGone),
    };
    // Whoever leaves has been served so far.
    if matches!(end, End::Complete(_) | End::ClientGone) {
        attempt.completed();
    }
    pump.finish(unsent, end, trail.held.take(), arriving, trailers).await;
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
    pieces: &'c mpsc::Sender<Piece>,
    reader: StreamReader,
    /// For events of more than a MiB.
    memory: Share,
    /// The last that the provider said. It holds what was generated until then.
    usage: Option<Usage>,
    /// What is to be sent, and the text that was generated since then: not counted yet, and tokens of what was.
    sink: Sink,
    counted: u64,
}

/// What came of some bytes: something for the client, and perhaps the end.
struct Read {
    out: Bytes,
    end: Option<End>,
}

impl Pump<'_> {
    /// Until the end: that, and what is not sent yet.
    async fn run(&mut self, first: Read, arriving: &mut Arriving<'_>) -> (Bytes, End) {
        let mut read = first;
        loop {
            if let Some(end) = read.end {
                return (read.out, end);
            }
            if !read.out.is_empty() && !self.send(Piece::Data(read.out)).await {
                return (Bytes::new(), End::ClientGone);
            }
            read = match self.read(arriving, self.attempt.stream_idle()).await {
                Ok(read) => read,
                Err(end) => return (Bytes::new(), end),
            };
        }
    }

    /// Reads on until there is something for the client, each time for at most `patience`: all that arrives together.
    ///
    /// # Errors
    /// The stream ended, with nothing more for the client than what the end holds.
    async fn read(&mut self, arriving: &mut Arriving<'_>, patience: Duration) -> Result<Read, End> {
        loop {
            let mut data = self.arrived(arriving.next(patience).await)?;
            let end = loop {
                self.reader.push(data);
                let held = self.reader.held();
                if !self.memory.covers(held) {
                    // Those who hold some of it may wait for more, each for the others.
                    let deadline = self.attempt.deadline().min(Instant::now() + self.attempt.stream_idle());
                    if timeout_at(deadline, self.memory.cover(held)).await.is_err() {
                        return Err(End::Broken(Refusal::Overloaded));
                    }
                }
                let end = self.take().await;
                if end.is_some() {
                    break end;
                }
                if self.sink.out.len() >= PIECE_BYTES {
                    arriving.leave_more();
                    break None;
                }
                match arriving.more().await {
                    Some(more) => data = more,
                    None => break None,
                }
            };
            // Where its end has come too, nothing has to be waited for.
            if let Some(End::Complete(_)) = end {
                arriving.drop_more().await;
            }
            let out = Bytes::from(std::mem::take(&mut self.sink.out));
            match end {
                Some(end) if out.is_empty() => return Err(end),
                end if end.is_some() || !out.is_empty() => return Ok(Read { out, end }),
                _ => {}
            }
        }
    }

    fn arrived(&mut self, arrived: Arrived) -> Result<Bytes, End> {
        let backend = || self.attempt.name().to_owned();
        Err(match arrived {
            Arrived::Data(data) => return Ok(data),
            Arrived::End => self.ended(),
            Arrived::Broken(error) => {
                tracing::warn!(backend = backend(), %error, "backend broke off a stream");
                self.attempt.failed("died");
                End::Broken(Refusal::BackendDied { backend: backend() })
            }
            Arrived::TimedOut => {
                self.attempt.failed("timeout");
                End::Broken(Refusal::BackendTimeout { backend: backend() })
            }
            Arrived::Gone => End::ClientGone,
            Arrived::Cut => End::Broken(Refusal::Stopping),
        })
    }

    /// The backend's body is at its end.
    fn ended(&mut self) -> End {
        let last = self.reader.end(&mut self.sink);
        let out = std::mem::take(&mut self.sink.out);
        self.note(last.usage);
        if last.done {
            return End::Complete(out.into());
        }
        let backend = self.attempt.name().to_owned();
        tracing::warn!(backend, "backend ended a stream before its answer was complete");
        self.attempt.failed("died");
        End::Broken(Refusal::BackendDied { backend })
    }

    /// The events in what arrived go into the sink; the end, if it came, with the bytes of its own.
    async fn take(&mut self) -> Option<End> {
        loop {
            let before = self.sink.out.len();
            let piece = match self.reader.read(&mut self.sink) {
                Ok(piece) => piece?,
                Err(error) => return Some(self.unreadable(error)),
            };
            self.note(piece.usage);
            if self.sink.text.len() > TEXT_BYTES_MAX {
                self.counted += answered::count(self.attempt, std::mem::take(&mut self.sink.text)).await;
            }
            if let Some(error) = piece.error {
                self.attempt.failed("error_inside");
                return Some(End::Error(error, self.sink.out.split_off(before).into()));
            }
            if piece.done {
                return Some(End::Complete(self.sink.out.split_off(before).into()));
            }
        }
    }

    /// The usage that an event says is that of all up to its end.
    fn note(&mut self, usage: Option<Usage>) {
        if usage.is_some() {
            self.usage = usage;
            self.counted = 0;
            self.sink.text.clear();
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
    async fn send(&self, piece: Piece) -> bool {
        let piece = match self.pieces.try_send(piece) {
            Ok(()) => return true,
            Err(TrySendError::Closed(_)) => return false,
            Err(TrySendError::Full(piece)) => piece,
        };
        let within = Duration::from_millis(self.attempt.core().config.timeouts.write_ms);
        matches!(timeout(within, self.pieces.send(piece)).await, Ok(Ok(())))
    }

    /// `unsent`: what came before the end.
    async fn finish(
        mut self,
        mut unsent: Bytes,
        mut end: End,
        held: Option<Held>,
        mut arriving: Arriving<'_>,
        trailers: bool,
    ) {
        // All that came has to be paid for, but it need not wait for that.
        let at_once = matches!(end, End::Complete(_)) && arriving.is_at_end() && self.settles_at_once(&held);
        if !at_once && !unsent.is_empty() && !self.send(Piece::Data(std::mem::take(&mut unsent))).await {
            end = End::ClientGone;
        }
        let why = match &end {
            End::Complete(_) => {
                // The connection goes back to the pool once its body has been read to the end.
                arriving.drain(DRAIN).await;
                "missing"
            }
            End::ClientGone => "hang_up",
            End::Broken(_) | End::Garbage(_) | End::Error(..) => "upstream_died",
        };
        // Ends the generation at the provider, if it is still going on.
        drop(arriving);
        let used = self.used(held.as_ref(), why).await;
        self.attempt.settle(held, used.unwrap_or_default()).await;
        if self.reader.is_raw() {
            return self.finish_raw(unsent, end, used, trailers).await;
        }
        let dialect: Dialect = self.attempt.call.facts.endpoint.dialect();
        match end {
            End::ClientGone => drop(self.attempt.core().metrics.hang_ups.inc()),
            End::Broken(refusal) => drop(self.send(Piece::Data(refusal.event(dialect))).await),
            End::Garbage(Garbage(problem)) => {
                let refusal = Refusal::BackendGarbage { backend: self.attempt.name().to_owned(), problem };
                self.send(Piece::Data(refusal.event(dialect))).await;
            }
            End::Error(_, said) => drop(self.send(Piece::Data(said)).await),
            End::Complete(last) => self.complete(joined(unsent, last), used, trailers).await,
        }
    }

    /// Whether nothing has to be asked or counted for it.
    fn settles_at_once(&self, held: &Option<Held>) -> bool {
        let is_said = self.usage.is_some() && self.is_whole();
        let Some(held) = held else { return true };
        let waits = self.attempt.core().config.timeouts.settle_wait_ms > 0;
        is_said && (!waits || held.spare.is_some() || held.leased.as_ref().is_some_and(Leased::is_all))
    }

    /// Bytes without frames: nothing can be put among them.
    async fn finish_raw(&self, unsent: Bytes, end: End, used: Option<Usage>, trailers: bool) {
        match end {
            End::ClientGone => drop(self.attempt.core().metrics.hang_ups.inc()),
            End::Complete(_) if trailers => self.complete(unsent, used, trailers).await,
            End::Complete(_) if unsent.is_empty() => {}
            End::Complete(_) => drop(self.send(Piece::Data(unsent)).await),
            End::Broken(_) | End::Garbage(_) | End::Error(..) => {
                // The client may be gone: then nobody has to be told.
                self.send(Piece::BrokenOff).await;
            }
        }
    }

    async fn complete(&self, last: Bytes, used: Option<Usage>, trailers: bool) {
        let Some(used) = used.map(|used| used.total.saturating_add(self.attempt.wasted)) else {
            if !last.is_empty() {
                self.send(Piece::Data(last)).await;
            }
            return;
        };
        if trailers {
            let fields =
                HeaderMap::from_iter([(http::HeaderName::from_static(USED), HeaderValue::from(used))]);
            let sent = last.is_empty() || self.send(Piece::Data(last)).await;
            if sent {
                self.send(Piece::Trailers(Box::new(fields))).await;
            }
        } else {
            let comment = Bytes::from(format!(": {USED}={used}\n\n"));
            self.send(Piece::Data(joined(last, comment))).await;
        }
    }

    /// All that was generated is in the usage.
    fn is_whole(&self) -> bool {
        self.counted == 0 && self.sink.text.is_empty()
    }

    /// Tokens of the stream so far: the provider's usage, and what came after it or without it, counted. `None` if nobody
    /// counts them.
    async fn used(&mut self, held: Option<&Held>, why: &'static str) -> Option<Usage> {
        if let Some(usage) = self.usage.filter(|_| self.is_whole() || held.is_none()) {
            self.attempt.core().metrics.charged(usage);
            return Some(usage);
        }
        let held = held?;
        let counted = self.counted + answered::count(self.attempt, std::mem::take(&mut self.sink.text)).await;
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
