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
    body::ResponseBody,
    call::Reply,
    headers,
    provider::{
        Usage,
        chunk::{self, ChunkKind},
        sse::{EventTooLarge, Splitter},
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
    Broken(Refusal),
}

/// Relays one stream to its end and settles it.
pub(crate) async fn relay(
    attempt: &Attempt<'_>,
    held: Option<Held>,
    response: Response<UpstreamBody>,
    reply: Reply,
) {
    let (parts, mut upstream) = response.into_parts();
    let (frames, receiver) = mpsc::channel(FRAMES_MAX);
    let trailers = attempt.call.takes_trailers();
    let mut answer = Response::new(ResponseBody::Stream(receiver));
    *answer.status_mut() = parts.status;
    *answer.headers_mut() = head(attempt, held.as_ref(), parts.headers, trailers);
    let mut pump = Pump {
        attempt,
        frames,
        splitter: Splitter::new(attempt.core().config.limits.event_bytes_max),
        usage: None,
        text: String::new(),
        counted: 0,
    };
    let end = match reply.send(answer) {
        Ok(()) => pump.run(&mut upstream).await,
        Err(_) => End::ClientGone,
    };
    pump.finish(end, held, upstream, trailers).await;
}

fn head(attempt: &Attempt<'_>, held: Option<&Held>, provider: HeaderMap, trailers: bool) -> HeaderMap {
    let mut headers = headers::down(provider);
    attempt.sign(&mut headers);
    if let Some(held) = held {
        ratelimit::insert(&mut headers, &held.balances, |budget| reserve::window(&held.plan, budget));
    }
    if trailers {
        headers.insert(header::TRAILER, HeaderValue::from_static(USED));
    }
    headers
}

struct Pump<'c> {
    attempt: &'c Attempt<'c>,
    frames: mpsc::Sender<Frame<Bytes>>,
    splitter: Splitter,
    usage: Option<Usage>,
    /// Generated and not counted yet.
    text: String,
    counted: u64,
}

impl Pump<'_> {
    async fn run(&mut self, upstream: &mut UpstreamBody) -> End {
        let idle = self.attempt.stream_idle();
        let backend = || self.attempt.name().to_owned();
        loop {
            let deadline = self.attempt.deadline().min(Instant::now() + idle);
            let frame = tokio::select! {
                frame = timeout_at(deadline, upstream.frame()) => frame,
                () = self.frames.closed() => return End::ClientGone,
                () = self.attempt.core().cut.cancelled() => return End::Broken(Refusal::Stopping),
            };
            let data = match frame {
                Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
                Ok(None) => return End::Complete(self.splitter.rest().unwrap_or_default()),
                Ok(Some(Err(error))) => {
                    tracing::warn!(backend = backend(), %error, "backend broke off a stream");
                    self.attempt.failed("died");
                    return End::Broken(Refusal::BackendDied { backend: backend() });
                }
                Err(_) => {
                    self.attempt.failed("timeout");
                    return End::Broken(Refusal::BackendTimeout { backend: backend() });
                }
            };
            let (out, done) = match self.take(&data).await {
                Ok(taken) => taken,
                Err(error) => {
                    tracing::warn!(backend = backend(), %error, "stream ended by the gateway");
                    self.attempt.core().metrics.upstream_error(self.attempt.name(), "too_large");
                    return End::Broken(Refusal::AnswerTooLarge { backend: backend() });
                }
            };
            if !out.is_empty() && !self.send(Frame::data(out)).await {
                return End::ClientGone;
            }
            if let Some(done) = done {
                return End::Complete(done);
            }
        }
    }

    /// The events in what arrived: those for the client, and the last one if it came.
    async fn take(&mut self, data: &[u8]) -> Result<(Bytes, Option<Bytes>), EventTooLarge> {
        self.splitter.push(data);
        let mut out = Bytes::new();
        while let Some(event) = self.splitter.next_event()? {
            let chunk = chunk::inspect(&event);
            self.usage = chunk.usage.or(self.usage);
            self.text.push_str(&chunk.text);
            if self.text.len() > TEXT_BYTES_MAX {
                self.counted += answered::count(self.attempt, std::mem::take(&mut self.text)).await;
            }
            match chunk.kind {
                ChunkKind::Done => return Ok((out, Some(event))),
                ChunkKind::UsageOnly if self.hides_usage() => {}
                _ => out = joined(out, event),
            }
        }
        Ok((out, None))
    }

    /// Usage that the gateway asked for and the client did not.
    fn hides_usage(&self) -> bool {
        self.attempt.backend.stream_usage && !self.attempt.call.facts.usage_asked
    }

    /// False if the client is gone, or takes too long.
    async fn send(&self, frame: Frame<Bytes>) -> bool {
        let within = Duration::from_millis(self.attempt.core().config.timeouts.write_ms);
        matches!(timeout(within, self.frames.send(frame)).await, Ok(Ok(())))
    }

    async fn finish(mut self, end: End, held: Option<Held>, mut upstream: UpstreamBody, trailers: bool) {
        let why = match &end {
            End::Complete(_) => {
                // The connection goes back to the pool once its body has been read to the end.
                let _ = timeout(DRAIN, async { while let Some(Ok(_)) = upstream.frame().await {} }).await;
                "missing"
            }
            End::ClientGone => "hang_up",
            End::Broken(_) => "upstream_died",
        };
        // Ends the generation at the provider, if it is still going on.
        drop(upstream);
        let used = self.used(held.as_ref(), why).await;
        self.attempt.settle(held, used.unwrap_or_default()).await;
        match end {
            End::ClientGone => drop(self.attempt.core().metrics.hang_ups.inc()),
            End::Broken(refusal) => drop(self.send(Frame::data(refusal.event())).await),
            End::Complete(last) => self.complete(last, used, trailers).await,
        }
    }

    async fn complete(&self, last: Bytes, used: Option<Usage>, trailers: bool) {
        let Some(used) = used.map(|used| used.total.saturating_add(self.attempt.wasted)) else {
            self.send(Frame::data(last)).await;
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

    /// Tokens of the stream so far: the provider's usage, or else counted. `None` if nobody counts them.
    async fn used(&mut self, held: Option<&Held>, why: &'static str) -> Option<Usage> {
        if let Some(usage) = self.usage {
            self.attempt.core().metrics.charged(usage);
            return Some(usage);
        }
        let held = held?;
        let input = self.attempt.charge_input(Some(held), why).await;
        let output = self.counted + answered::count(self.attempt, std::mem::take(&mut self.text)).await;
        self.attempt.core().metrics.charged(Usage::of(0, output));
        tracing::warn!(
            backend = self.attempt.name(), model = self.attempt.candidate.model, reservation = %held.id, input, output, why,
            "the stream has no usage; it was counted with a tokenizer"
        );
        Some(Usage::of(input, output))
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
