//! An answer that is not a stream: read whole, settled, then handed on with its bytes as they came.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Response};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use crate::{
    attempt::Attempt,
    body::ResponseBody,
    estimate::measuring,
    headers,
    memory::Share,
    provider::{Usage, answer},
    ratelimit,
    refusal::Refusal,
    reserve::{self, Held},
    upstream::UpstreamBody,
};

/// Half an answer longer than this is charged as reserved instead of being counted.
const COUNTED_BYTES_MAX: usize = 1 << 20;

/// Reads, settles and answers. An error status costs nothing.
pub(crate) async fn relay(
    attempt: &Attempt<'_>,
    held: Option<Held>,
    response: Response<UpstreamBody>,
) -> Response<ResponseBody> {
    let (parts, mut body) = response.into_parts();
    let mut read = BytesMut::new();
    let mut share = attempt.core().memory.share();
    let end = collect(attempt, &mut body, &mut read, &mut share).await;
    drop(body);
    let success = parts.status.is_success();
    if let Err(refusal) = end {
        if success {
            let usage = partial(attempt, held.as_ref(), &read).await;
            attempt.settle(held, usage).await;
        } else {
            attempt.release(held).await;
        }
        return refusal.response();
    }
    let bytes = read.freeze();
    let mut headers = headers::down(parts.headers);
    attempt.sign(&mut headers);
    if success {
        let usage = used(attempt, held.as_ref(), &bytes).await;
        let before = held.as_ref().map(|held| (Arc::clone(&held.plan), held.balances.clone()));
        let settlement = attempt.settle(held, usage.unwrap_or_default()).await;
        if let Some((plan, before)) = before {
            let balances = settlement.map_or(before, |settlement| settlement.balances);
            ratelimit::insert(&mut headers, &balances, |budget| reserve::window(&plan, budget));
        }
        if let Some(usage) = usage {
            let tokens = usage.total.saturating_add(attempt.wasted);
            headers.insert("x-ai-gateway-tokens-used", HeaderValue::from(tokens));
        }
    } else {
        attempt.release(held).await;
    }
    let mut answer = Response::new(ResponseBody::full(bytes));
    *answer.status_mut() = parts.status;
    *answer.headers_mut() = headers;
    answer
}

/// Reads to the end, within every deadline and bound.
async fn collect(
    attempt: &Attempt<'_>,
    body: &mut UpstreamBody,
    read: &mut BytesMut,
    share: &mut Share,
) -> Result<(), Refusal> {
    let backend = || attempt.name().to_owned();
    let idle = Duration::from_millis(attempt.core().config.timeouts.idle_ms);
    loop {
        let deadline = attempt.deadline().min(Instant::now() + idle);
        let frame = tokio::select! {
            frame = timeout_at(deadline, body.frame()) => frame,
            () = attempt.core().cut.cancelled() => return Err(Refusal::Stopping),
        };
        let data = match frame {
            Ok(None) => return Ok(()),
            Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
            Ok(Some(Err(error))) => {
                tracing::warn!(backend = backend(), %error, "backend broke off its answer");
                attempt.failed("died");
                return Err(Refusal::BackendDied { backend: backend() });
            }
            Err(_) => {
                attempt.failed("timeout");
                return Err(Refusal::BackendTimeout { backend: backend() });
            }
        };
        let length = read.len() + data.len();
        if length > attempt.core().config.limits.answer_bytes_max {
            attempt.core().metrics.upstream_error(attempt.name(), "too_large");
            return Err(Refusal::AnswerTooLarge { backend: backend() });
        }
        if timeout_at(attempt.deadline(), share.cover(length)).await.is_err() {
            return Err(Refusal::Overloaded);
        }
        read.extend_from_slice(&data);
    }
}

/// Tokens of a complete answer; `None` if nobody counts them.
async fn used(attempt: &Attempt<'_>, held: Option<&Held>, bytes: &Bytes) -> Option<Usage> {
    if let Some(usage) = answer::decode(bytes, false).and_then(|answer| answer.usage) {
        attempt.core().metrics.charged(usage);
        return Some(usage);
    }
    let held = held?;
    let input = attempt.charge_input(Some(held), "missing").await;
    let text = answer::decode(bytes, true).map(|answer| answer.text).unwrap_or_default();
    let output = count(attempt, text).await;
    attempt.core().metrics.charged(Usage::of(0, output));
    tracing::warn!(
        backend = attempt.name(), model = attempt.candidate.model, reservation = %held.id, input, output,
        "the answer has no usage; it was counted with a tokenizer"
    );
    Some(Usage::of(input, output))
}

/// Tokens of an answer that broke off: the input, and of the output what arrived, at most what was held.
async fn partial(attempt: &Attempt<'_>, held: Option<&Held>, read: &BytesMut) -> Usage {
    let Some(held) = held else { return Usage::default() };
    let input = attempt.charge_input(Some(held), "upstream_died").await;
    let output = if read.len() > COUNTED_BYTES_MAX {
        held.output
    } else {
        count(attempt, String::from_utf8_lossy(read).into_owned()).await.min(held.output)
    };
    attempt.core().metrics.charged(Usage::of(0, output));
    Usage::of(input, output)
}

/// Counts generated text; long ones on a thread of their own.
pub(crate) async fn count(attempt: &Attempt<'_>, text: String) -> u64 {
    let tokenizer = measuring(attempt.tokenizer());
    if text.len() <= 32 << 10 {
        return tokenizer.count(&text);
    }
    let bound = text.len() as u64;
    tokio::task::spawn_blocking(move || tokenizer.count(&text)).await.unwrap_or(bound)
}
