//! The way of a request: identify → route → estimate → reserve → upstream → stream back → settle. Here is what happens
//! before anything is held; the rest is [`Call`]'s.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, header};
use hyper::body::Incoming;
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::Instant,
};

use crate::{
    body::{self, ResponseBody},
    call::Call,
    core::Core,
    models,
    provider::{Endpoint, Facts},
    refusal::Refusal,
    route::{self, Target},
};

/// Larger bodies are parsed on a thread of their own.
const INLINE_BYTES_MAX: usize = 1 << 20;
/// How long the rest of a refused body is read and thrown away, so that the client hears why.
const DISCARD: Duration = Duration::from_secs(5);

/// Answers one request. Never fails: every error is an answer.
pub(crate) async fn handle(core: Arc<Core>, request: Request<Incoming>) -> Response<ResponseBody> {
    let (parts, mut body) = request.into_parts();
    let expects = parts.headers.contains_key(header::EXPECT);
    let target = route::target(&parts.method, parts.uri.path());
    let label = target.as_ref().map_or("other", Target::label);
    let permit = target.and_then(|target| Ok((target, admit(&core)?)));
    let answer = match permit {
        Err(refusal) => Err(refusal),
        Ok((Target::Models, _permit)) => models::list(&core, &parts.headers).await,
        Ok((Target::Model(id), _permit)) => models::one(&core, &id, &parts.headers).await,
        Ok((Target::Spend(endpoint), permit)) => spend(&core, endpoint, parts, &mut body, permit).await,
    };
    let response = answer.unwrap_or_else(|refusal| {
        // Reading on would invite a client that asks first.
        if !expects && !hyper::body::Body::is_end_stream(&body) {
            tokio::spawn(body::discard(body, DISCARD));
        }
        refusal.response()
    });
    core.metrics.request(label, response.status().as_u16());
    response
}

fn admit(core: &Core) -> Result<Permit, Refusal> {
    if core.cut.is_cancelled() {
        return Err(Refusal::Stopping);
    }
    let permit = Arc::clone(&core.in_flight).try_acquire_owned().map_err(|_| Refusal::Overloaded)?;
    core.metrics.in_flight.inc();
    Ok(Permit { metrics: Arc::clone(&core.metrics), _permit: permit })
}

/// One of the places at work; the gauge follows.
struct Permit {
    metrics: Arc<crate::metrics::Metrics>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.metrics.in_flight.dec();
    }
}

async fn spend(
    core: &Arc<Core>,
    endpoint: Endpoint,
    parts: http::request::Parts,
    body: &mut Incoming,
    permit: Permit,
) -> Result<Response<ResponseBody>, Refusal> {
    let within = Duration::from_millis(core.config.timeouts.body_ms);
    let mut share = core.memory.share();
    let body =
        body::read(&parts.headers, body, core.config.limits.body_bytes_max, within, &mut share).await?;
    let facts = decode(endpoint, &body).await?;
    let (model, backend) = route::route(&facts, &parts.headers, &core.backends)?;
    let model = model.into_owned();
    let mut headers = parts.headers;
    headers.remove(header::CONTENT_LENGTH);
    let call = Call {
        core: Arc::clone(core),
        facts,
        body,
        model,
        backend,
        headers,
        query: parts.uri.query().map(str::to_owned),
        deadline: Instant::now() + Duration::from_millis(core.config.timeouts.total_ms),
    };
    let (reply, answer) = oneshot::channel();
    core.tasks.spawn(async move {
        call.run(reply).await;
        drop((permit, share));
    });
    // An end without an answer is a defect in the task; what it held expires.
    answer.await.map_err(|_| Refusal::Internal)
}

async fn decode(endpoint: Endpoint, body: &Bytes) -> Result<Facts, Refusal> {
    if body.len() <= INLINE_BYTES_MAX {
        return Ok(Facts::decode(endpoint, body)?);
    }
    let body = body.clone();
    let decoded = tokio::task::spawn_blocking(move || Facts::decode(endpoint, &body)).await;
    Ok(decoded.map_err(|_| Refusal::Internal)??)
}
