//! An answer that is not a stream: read whole, settled, then handed on with its bytes as they came.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

use crate::{
    body::ResponseBody,
    call::Call,
    estimate::measuring,
    headers,
    memory::Share,
    provider::{Usage, answer},
    ratelimit,
    refusal::Refusal,
    reserve::{self, Held},
    settle::Ending,
};

/// Half an answer longer than this is charged as reserved instead of being counted.
const COUNTED_BYTES_MAX: usize = 1 << 20;

/// Reads, settles and answers. An error status costs nothing.
pub(crate) async fn relay(
    call: &Call,
    held: Option<Held>,
    response: Response<Incoming>,
) -> Response<ResponseBody> {
    let (parts, mut body) = response.into_parts();
    let mut read = BytesMut::new();
    let mut share = call.core.memory.share();
    let end = collect(call, &mut body, &mut read, &mut share).await;
    drop(body);
    let success = parts.status.is_success();
    if let Err(refusal) = end {
        let ending = if success {
            Ending::Settle(charge_partial(call, held.as_ref(), &read).await)
        } else {
            Ending::Release
        };
        call.end(held, ending).await;
        return refusal.response();
    }
    let bytes = read.freeze();
    let mut headers = headers::down(parts.headers, &call.backend.name);
    if success {
        let used = used(call, held.as_ref(), &bytes).await;
        let windows = held.as_ref().map(|held| (held.matches.clone(), held.balances.clone()));
        let settlement = call.end(held, Ending::Settle(used.unwrap_or(0))).await;
        if let Some((matches, before)) = windows {
            let balances = settlement.map_or(before, |settlement| settlement.balances);
            ratelimit::insert(&mut headers, &balances, |budget| reserve::window(&matches, budget));
        }
        if let Some(used) = used {
            headers.insert("x-ai-gateway-tokens-used", HeaderValue::from(used));
        }
    } else {
        call.end(held, Ending::Release).await;
    }
    let mut answer = Response::new(ResponseBody::full(bytes));
    *answer.status_mut() = parts.status;
    *answer.headers_mut() = headers;
    answer
}

/// Reads to the end, within every deadline and bound.
async fn collect(
    call: &Call,
    body: &mut Incoming,
    read: &mut BytesMut,
    share: &mut Share,
) -> Result<(), Refusal> {
    let backend = || call.backend.name.clone();
    let idle = Duration::from_millis(call.core.config.timeouts.idle_ms);
    loop {
        let deadline = call.deadline.min(Instant::now() + idle);
        let frame = tokio::select! {
            frame = timeout_at(deadline, body.frame()) => frame,
            () = call.core.cut.cancelled() => return Err(Refusal::Stopping),
        };
        let data = match frame {
            Ok(None) => return Ok(()),
            Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
            Ok(Some(Err(error))) => {
                tracing::warn!(backend = backend(), %error, "backend broke off its answer");
                call.failed("died");
                return Err(Refusal::BackendDied { backend: backend() });
            }
            Err(_) => {
                call.failed("timeout");
                return Err(Refusal::BackendTimeout { backend: backend() });
            }
        };
        let length = read.len() + data.len();
        if length > call.core.config.limits.answer_bytes_max {
            call.core.metrics.upstream_error(&call.backend.name, "too_large");
            return Err(Refusal::AnswerTooLarge { backend: backend() });
        }
        if timeout_at(call.deadline, share.cover(length)).await.is_err() {
            return Err(Refusal::Overloaded);
        }
        read.extend_from_slice(&data);
    }
}

/// Tokens of a complete answer; `None` if nobody counts them.
async fn used(call: &Call, held: Option<&Held>, bytes: &Bytes) -> Option<u64> {
    if let Some(usage) = answer::decode(bytes, false).and_then(|answer| answer.usage) {
        call.core.metrics.charged(usage.input, usage.total.saturating_sub(usage.input));
        return Some(usage.total);
    }
    let held = held?;
    let input = call.charge_input(Some(held), "missing").await;
    let text = answer::decode(bytes, true).map(|answer| answer.text).unwrap_or_default();
    let output = count(call, text).await;
    call.core.metrics.charged(0, output);
    tracing::warn!(
        backend = call.backend.name, model = call.model, reservation = %held.id, input, output,
        "the answer has no usage; it was counted with a tokenizer"
    );
    Some(Usage::of(input, output).total)
}

/// Tokens of an answer that broke off: the input, and of the output what arrived, at most what was held.
async fn charge_partial(call: &Call, held: Option<&Held>, read: &BytesMut) -> u64 {
    let Some(held) = held else { return 0 };
    let input = call.charge_input(Some(held), "upstream_died").await;
    let output_held = held.tokens.saturating_sub(held.input);
    let output = if read.len() > COUNTED_BYTES_MAX {
        output_held
    } else {
        count(call, String::from_utf8_lossy(read).into_owned()).await.min(output_held)
    };
    call.core.metrics.charged(0, output);
    Usage::of(input, output).total
}

/// Counts generated text; long ones on a thread of their own.
pub(crate) async fn count(call: &Call, text: String) -> u64 {
    let tokenizer = measuring(call.tokenizer());
    if text.len() <= 32 << 10 {
        return tokenizer.count(&text);
    }
    let bound = text.len() as u64;
    tokio::task::spawn_blocking(move || tokenizer.count(&text)).await.unwrap_or(bound)
}
