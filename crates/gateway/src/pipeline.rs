//! The way of a request: identify → route → estimate → reserve → upstream → stream back → settle. Here is what happens
//! before anything is held; the rest is [`Call`]'s.

use std::{net::IpAddr, sync::Arc, time::Duration};

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
    choosing::Choosing,
    core::Core,
    models,
    plan::Plan,
    provider::{Endpoint, Facts, form},
    refusal::Refusal,
    request::Asked,
    route::{self, Target},
};

/// Larger bodies are parsed on a thread of their own.
const INLINE_BYTES_MAX: usize = 1 << 20;
/// How long the rest of a refused body is read and thrown away, so that the client hears why.
const DISCARD: Duration = Duration::from_secs(5);

/// Answers one request. Never fails: every error is an answer.
pub(crate) async fn handle(
    core: Arc<Core>,
    source: IpAddr,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    let (parts, mut body) = request.into_parts();
    let expects = parts.headers.contains_key(header::EXPECT);
    let dialect = route::dialect(parts.uri.path());
    let target = route::target(&parts.method, parts.uri.path());
    let label = target.as_ref().map_or("other", Target::label);
    let permit = target.and_then(|target| Ok((target, admit(&core)?)));
    let answer = match permit {
        Err(refusal) => Err(refusal),
        Ok((Target::Models, _permit)) => models::list(&core, &Asked::new(parts, source)).await,
        Ok((Target::Model(id), _permit)) => models::one(&core, &id, &Asked::new(parts, source)).await,
        Ok((Target::Spend(endpoint), permit)) => {
            spend(&core, endpoint, Asked::new(parts, source), &mut body, permit).await
        }
    };
    let response = answer.unwrap_or_else(|refusal| {
        // Reading on would invite a client that asks first.
        if !expects && !hyper::body::Body::is_end_stream(&body) {
            tokio::spawn(body::discard(body, DISCARD));
        }
        refusal.response(dialect)
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
    asked: Asked,
    body: &mut Incoming,
    permit: Permit,
) -> Result<Response<ResponseBody>, Refusal> {
    let began = Instant::now();
    let timeouts = &core.config.timeouts;
    // Who may not ask at all hears so before sending a body.
    let at_first = core.policy.borrow().clone();
    let known = at_first.as_ref().map(|policy| Plan::who(core, policy, &asked)).transpose()?;
    let within = Duration::from_millis(timeouts.body_ms);
    let mut share = core.memory.share();
    let body =
        body::read(&asked.headers, body, core.config.limits.body_bytes_max, within, &mut share).await?;
    let facts = decode(endpoint, &asked, &body).await?;
    let model = route::model(&facts, &asked.headers)?;
    // One policy from here to the end; a newer one only where the ledger asks for it.
    let policy = core.policy.borrow().clone().ok_or(Refusal::NoPolicy)?;
    let who = match known {
        Some(who) if at_first.is_some_and(|before| Arc::ptr_eq(&before, &policy)) => who,
        _ => Plan::who(core, &policy, &asked)?,
    };
    let choosing = Choosing::new(core, &facts, &model);
    let mut plan = Plan::make(&policy, &asked, who, &model, &choosing)?;
    if endpoint.is_free() {
        plan.matches.clear();
    }
    let deadline = Instant::now() + Duration::from_millis(timeouts.total_ms);
    // Boxed, and the plan shared: what a future is given has a place in it, and another one in each that it is given to.
    let call = Call { core: Arc::clone(core), asked, facts, body, model, choosing, began, deadline };
    let (call, plan) = (Box::new(call), Arc::new(plan));
    let (reply, answer) = oneshot::channel();
    // Boxed too: it is large, and a task is moved several times before it runs.
    core.tasks.spawn(Box::pin(async move {
        call.run(plan, reply).await;
        drop((permit, share));
    }));
    // An end without an answer is a defect in the task; what it held expires.
    answer.await.map_err(|_| Refusal::Internal)
}

async fn decode(endpoint: Endpoint, asked: &Asked, body: &Bytes) -> Result<Facts, Refusal> {
    let kind = asked.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.unwrap_or_default().to_owned();
    let read = move |body: &Bytes| {
        if endpoint.takes_form() {
            form::decode(endpoint, &kind, body)
        } else {
            Facts::decode(endpoint, body)
        }
    };
    if body.len() <= INLINE_BYTES_MAX {
        return Ok(read(body)?);
    }
    let body = body.clone();
    let decoded = tokio::task::spawn_blocking(move || read(&body)).await;
    Ok(decoded.map_err(|_| Refusal::Internal)??)
}
