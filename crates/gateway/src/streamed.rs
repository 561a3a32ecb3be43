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
use hyper::body::Incoming;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    answered,
    body::ResponseBody,
    call::{Call, Reply},
    headers,
    provider::{
        Usage,
        chunk::{self, ChunkKind},
        sse::{EventTooLarge, Splitter},
    },
    ratelimit,
    refusal::Refusal,
    reserve::{self, Held},
    settle::Ending,
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
pub(crate) async fn relay(call: &Call, held: Option<Held>, response: Response<Incoming>, reply: Reply) {
    let (parts, mut upstream) = response.into_parts();
    let (frames, receiver) = mpsc::channel(FRAMES_MAX);
    let trailers = call.takes_trailers();
    let mut answer = Response::new(ResponseBody::Stream(receiver));
    *answer.status_mut() = parts.status;
    *answer.headers_mut() = head(call, held.as_ref(), parts.headers, trailers);
    let mut pump = Pump {
        call,
        frames,
        splitter: Splitter::new(call.core.config.limits.event_bytes_max),
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

fn head(call: &Call, held: Option<&Held>, provider: HeaderMap, trailers: bool) -> HeaderMap {
    let mut headers = headers::down(provider, &call.backend.name);
    if let Some(held) = held {
        ratelimit::insert(&mut headers, &held.balances, |budget| reserve::window(&held.matches, budget));
    }
    if trailers {
        headers.insert(header::TRAILER, HeaderValue::from_static(USED));
    }
    headers
}

struct Pump<'c> {
    call: &'c Call,
    frames: mpsc::Sender<Frame<Bytes>>,
    splitter: Splitter,
    usage: Option<Usage>,
    /// Generated and not counted yet.
    text: String,
    counted: u64,
}

impl Pump<'_> {
    async fn run(&mut self, upstream: &mut Incoming) -> End {
        let idle = Duration::from_millis(self.call.core.config.timeouts.idle_ms);
        let backend = || self.call.backend.name.clone();
        loop {
            let deadline = self.call.deadline.min(Instant::now() + idle);
            let frame = tokio::select! {
                frame = timeout_at(deadline, upstream.frame()) => frame,
                () = self.frames.closed() => return End::ClientGone,
                () = self.call.core.cut.cancelled() => return End::Broken(Refusal::Stopping),
            };
            let data = match frame {
                Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
                Ok(None) => return End::Complete(self.splitter.rest().unwrap_or_default()),
                Ok(Some(Err(error))) => {
                    tracing::warn!(backend = backend(), %error, "backend broke off a stream");
                    self.call.failed("died");
                    return End::Broken(Refusal::BackendDied { backend: backend() });
                }
                Err(_) => {
                    self.call.failed("timeout");
                    return End::Broken(Refusal::BackendTimeout { backend: backend() });
                }
            };
            let (out, done) = match self.take(&data).await {
                Ok(taken) => taken,
                Err(error) => {
                    tracing::warn!(backend = backend(), %error, "stream ended by the gateway");
                    self.call.core.metrics.upstream_error(&self.call.backend.name, "too_large");
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
                self.counted += answered::count(self.call, std::mem::take(&mut self.text)).await;
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
        self.call.backend.stream_usage && !self.call.facts.usage_asked
    }

    /// False if the client is gone, or takes too long.
    async fn send(&self, frame: Frame<Bytes>) -> bool {
        let within = Duration::from_millis(self.call.core.config.timeouts.write_ms);
        matches!(timeout(within, self.frames.send(frame)).await, Ok(Ok(())))
    }

    async fn finish(mut self, end: End, held: Option<Held>, mut upstream: Incoming, trailers: bool) {
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
        self.call.end(held, Ending::Settle(used.unwrap_or(0))).await;
        match end {
            End::ClientGone => drop(self.call.core.metrics.hang_ups.inc()),
            End::Broken(refusal) => drop(self.send(Frame::data(refusal.event())).await),
            End::Complete(last) => self.complete(last, used, trailers).await,
        }
    }

    async fn complete(&self, last: Bytes, used: Option<u64>, trailers: bool) {
        let Some(used) = used else {
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
    async fn used(&mut self, held: Option<&Held>, why: &'static str) -> Option<u64> {
        if let Some(usage) = self.usage {
            self.call.core.metrics.charged(usage.input, usage.total.saturating_sub(usage.input));
            return Some(usage.total);
        }
        let held = held?;
        let input = self.call.charge_input(Some(held), why).await;
        let output = self.counted + answered::count(self.call, std::mem::take(&mut self.text)).await;
        self.call.core.metrics.charged(0, output);
        tracing::warn!(
            backend = self.call.backend.name, model = self.call.model, reservation = %held.id, input, output, why,
            "the stream has no usage; it was counted with a tokenizer"
        );
        Some(input.saturating_add(output))
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
