//! An answer that is not a stream: read whole, settled, then handed on, with its bytes as they came where the client speaks
//! as the backend does.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use crate::{
    attempt::Attempt,
    body::ResponseBody,
    call::Trail,
    counts,
    estimate::measuring,
    headers,
    memory::Share,
    provider::{
        Usage, Way, anthropic,
        exchange::{Bad, Reading, Whole},
    },
    ratelimit,
    refusal::Refusal,
    reserve::{self, Held},
    upstream::UpstreamBody,
};

/// Half an answer longer than this is charged as reserved instead of being counted.
const COUNTED_BYTES_MAX: usize = 1 << 20;
const TOKENS_USED: HeaderName = HeaderName::from_static("x-ai-gateway-tokens-used");

/// Reads, settles and answers. An error status costs nothing.
///
/// # Errors
/// It is no whole answer. It is charged for what it may have cost, as one of several attempts where there may be `more`.
pub(crate) async fn relay(
    attempt: &Attempt<'_>,
    trail: &mut Trail,
    response: Response<UpstreamBody>,
    more: bool,
) -> Result<Response<ResponseBody>, Refusal> {
    let (parts, mut body) = response.into_parts();
    let reading = attempt.reading();
    let mut read = BytesMut::new();
    let mut share = attempt.core().memory.share();
    let success = parts.status.is_success();
    let end = collect(attempt, &mut body, success, &mut read, &mut share).await;
    drop(body);
    if let Err(refusal) = end {
        if success {
            let usage = partial(attempt, trail.held.as_ref(), &read).await;
            trail.charge(attempt, usage, more && !matches!(refusal, Refusal::Stopping)).await;
        }
        return Err(refusal);
    }
    let bytes = read.freeze();
    if !success {
        attempt.release(trail.held.take()).await;
        let (status, body) = reading.error(parts.status.as_u16(), error_kind(&parts.headers), &bytes);
        return Ok(respond(status, head(attempt, parts.headers, &reading), body));
    }
    let whole = match reading.whole(&bytes) {
        Ok(whole) => whole,
        Err(bad) => return Err(rejected(attempt, trail, bad, reading.said(&bytes), more).await),
    };
    let mut headers = head(attempt, parts.headers, &reading);
    attempt.served();
    let usage = used(attempt, &reading, trail.held.as_ref(), &bytes, &whole).await;
    let held = trail.held.take();
    let plan = held.as_ref().map(|held| Arc::clone(&held.plan));
    let balances = attempt.settle(held, usage.unwrap_or_default()).await;
    if let Some(plan) = plan {
        ratelimit::insert(&mut headers, &balances, |budget| reserve::window(&plan, budget));
    }
    if let Some(usage) = usage {
        let tokens = usage.total.saturating_add(attempt.wasted);
        headers.insert(TOKENS_USED, HeaderValue::from(tokens));
    }
    Ok(respond(parts.status.as_u16(), headers, whole.body))
}

/// Tokens of the input, for clients of a backend that does not tell: counted as budgets count.
pub(crate) async fn here(attempt: &Attempt<'_>) -> Response<ResponseBody> {
    let tokenizer = measuring(attempt.tokenizer());
    let input = counts::count_with(attempt.call, tokenizer, &attempt.candidate, None).await;
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert("x-quorate-estimated", HeaderValue::from_static("true"));
    attempt.sign(&mut headers);
    // Nothing was sent.
    headers.insert("x-quorate-attempts", HeaderValue::from_static("0"));
    respond(200, headers, anthropic::count::encode(input).into())
}

fn respond(status: u16, headers: HeaderMap, body: Bytes) -> Response<ResponseBody> {
    let mut answer = Response::new(ResponseBody::full(body));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    *answer.headers_mut() = headers;
    answer
}

/// The headers of an answer; of one in other words than the backend's, what spoke about those is left out.
pub(crate) fn head(attempt: &Attempt<'_>, provider: HeaderMap, reading: &Reading) -> HeaderMap {
    let mut headers = headers::down(provider);
    if reading.way == Way::Translate {
        headers.remove(header::CONTENT_ENCODING);
        headers.remove(header::ETAG);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    attempt.sign(&mut headers);
    headers
}

/// AWS's name of an error.
fn error_kind(headers: &HeaderMap) -> &str {
    headers.get("x-amzn-errortype").and_then(|kind| kind.to_str().ok()).unwrap_or_default()
}

/// A status of success with no answer under it. `said`: the usage in it.
async fn rejected(
    attempt: &Attempt<'_>,
    trail: &mut Trail,
    bad: Bad,
    said: Option<Usage>,
    more: bool,
) -> Refusal {
    let backend = attempt.name().to_owned();
    tracing::warn!(backend, %bad, "backend answered with a success that is none");
    let is_garbage = matches!(bad, Bad::Garbage(_));
    attempt.failed(if is_garbage { "garbage" } else { "error_inside" });
    if let Some(usage) = said {
        attempt.core().metrics.charged(usage);
        trail.charge(attempt, usage, more).await;
    } else if is_garbage {
        let used = attempt.charge_input(trail.held.as_ref(), "garbage").await;
        trail.charge(attempt, Usage::of(used, 0), more).await;
    }
    match bad {
        Bad::ErrorInside(error) => Refusal::BackendError { backend, error },
        Bad::Garbage(garbage) => Refusal::BackendGarbage { backend, problem: garbage.0 },
    }
}

/// Reads to the end, within every deadline and bound.
async fn collect(
    attempt: &Attempt<'_>,
    body: &mut UpstreamBody,
    success: bool,
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
        if success && !data.is_empty() {
            attempt.saw_first_byte();
        }
        let length = read.len() + data.len();
        if length > attempt.core().config.limits.answer_bytes_max {
            attempt.core().metrics.upstream_error(attempt.name(), "too_large");
            return Err(Refusal::AnswerTooLarge { backend: backend() });
        }
        // Those who hold some of it may wait for more, each for the others.
        let deadline = attempt.deadline().min(Instant::now() + idle);
        if timeout_at(deadline, share.cover(length)).await.is_err() {
            return Err(Refusal::Overloaded);
        }
        read.extend_from_slice(&data);
    }
}

/// Tokens of a complete answer; `None` if nobody counts them.
async fn used(
    attempt: &Attempt<'_>,
    reading: &Reading,
    held: Option<&Held>,
    bytes: &Bytes,
    whole: &Whole,
) -> Option<Usage> {
    if let Some(usage) = whole.usage {
        attempt.core().metrics.charged(usage);
        return Some(usage);
    }
    let held = held?;
    let input = attempt.charge_input_of(Some(held), "missing", whole.heard).await;
    let text = whole.text.clone().or_else(|| reading.text(bytes)).unwrap_or_default();
    let output = held.most_output(0, count(attempt, text).await);
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
        let counted = count(attempt, String::from_utf8_lossy(read).into_owned()).await;
        held.most_output(0, counted)
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
