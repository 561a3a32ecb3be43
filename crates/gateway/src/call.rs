//! One request on its way: reserve, try one backend after the other, relay, settle. It runs in a task of its own, so that
//! neither a client that leaves nor a connection that breaks can stop it between the reservation and the settlement.
//!
//! A backend that limits, fails or stays silent is followed by the next candidate as long as nothing has been sent to
//! the client. An attempt that may have cost something is charged on its own reservation, and the next one gets a new
//! one: so the price of every attempt is inside what was held for it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Response, StatusCode, header};
use hyper::body::Incoming;
use tokio::{sync::oneshot, time::Instant};

use crate::{
    answered,
    attempt::Attempt,
    body::ResponseBody,
    choosing::Choosing,
    core::Core,
    plan::Plan,
    provider::{Facts, Usage},
    refusal::Refusal,
    request::Asked,
    reserve::{Held, Reserved, Reserving},
    settle::{self, Ending},
    streamed,
    upstream::SendError,
};

/// Where no route says how many priorities there are.
const ATTEMPTS_DEFAULT: usize = 3;

/// A request that was understood.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) core: Arc<Core>,
    pub(crate) asked: Asked,
    pub(crate) facts: Facts,
    /// As the client sent it.
    pub(crate) body: Bytes,
    /// What was asked for.
    pub(crate) model: String,
    pub(crate) choosing: Choosing,
    pub(crate) began: Instant,
    /// The end of everything for this request but its settlement.
    pub(crate) deadline: Instant,
}

/// Where the head of the answer goes. Closed when the client is gone.
pub(crate) type Reply = oneshot::Sender<Response<ResponseBody>>;

/// What has become of the candidates so far.
struct Trail {
    plan: Arc<Plan>,
    held: Option<Held>,
    /// Not tried yet.
    left: Vec<usize>,
    number: usize,
    wasted: u64,
}

/// How an attempt ended that brought no answer for the client.
struct Failed {
    refusal: Refusal,
    /// What it may have cost is charged, and the reservation with it gone.
    charged: bool,
}

impl Call {
    /// The client reads trailers.
    pub(crate) fn takes_trailers(&self) -> bool {
        let te = self.asked.headers.get_all(header::TE);
        te.iter().any(|value| value.to_str().is_ok_and(|te| te.to_ascii_lowercase().contains("trailers")))
    }

    /// The candidates that can be used at all, those that rest at the end.
    pub(crate) fn usable(&self, plan: &Plan) -> Vec<usize> {
        let usable = plan.candidates.iter().enumerate().filter(|(_, candidate)| candidate.backend.is_ok());
        let rests = |index: &usize| plan.candidates.get(*index).is_some_and(|one| self.rests(&one.name));
        let (resting, ready): (Vec<usize>, Vec<usize>) = usable.map(|(index, _)| index).partition(rests);
        ready.into_iter().chain(resting).collect()
    }

    /// The fleet has been told to leave this backend alone.
    pub(crate) fn rests(&self, backend: &str) -> bool {
        let providers = self.core.providers.borrow();
        let until = providers.get(backend).and_then(|view| view.until);
        until.is_some_and(|until| until > self.core.keeper.now())
    }

    pub(crate) fn deadline_of(&self, plan: &Plan) -> Instant {
        match plan.total_ms {
            Some(ms) => self.deadline.min(self.began + Duration::from_millis(ms)),
            None => self.deadline,
        }
    }

    pub(crate) async fn run(self, plan: Plan, mut reply: Reply) {
        let covered = self.usable(&plan);
        if let (true, Some(Err(unusable))) =
            (covered.is_empty(), plan.candidates.first().map(|one| one.backend.as_ref()))
        {
            // The client may be gone, here and below: then nobody reads the answer.
            return drop(reply.send(Refusal::Unusable(unusable.clone()).response()));
        }
        let reserving = Reserving::new(&self, &mut reply, Arc::new(plan), covered);
        let Reserved { plan, held, left } = match reserving.run().await {
            Ok(reserved) => reserved,
            Err(refusal) => return drop(reply.send(refusal.response())),
        };
        if reply.is_closed() {
            self.core.metrics.hang_ups.inc();
            return self.release(held).await;
        }
        let trail = Trail { plan, held, left, number: 0, wasted: 0 };
        self.try_all(trail, reply).await;
    }

    async fn try_all(&self, mut trail: Trail, mut reply: Reply) {
        loop {
            if let Err(refusal) = self.hold_for_upcoming(&mut trail, &mut reply).await {
                return drop(reply.send(refusal.response()));
            }
            let Some(attempt) = self.next(&mut trail) else {
                // A plan without a usable backend, after a change of model or policy.
                self.release(trail.held).await;
                return drop(reply.send(unusable(&trail.plan).response()));
            };
            let sent = match attempt.send(trail.held.as_ref(), &mut reply).await {
                Some(sent) => sent,
                None => {
                    self.core.metrics.hang_ups.inc();
                    let used = attempt.charge_input(trail.held.as_ref(), "hang_up").await;
                    attempt.settle(trail.held, Usage::of(used, 0)).await;
                    return;
                }
            };
            let more = self.has_more(&trail, &attempt);
            let failed = match sent {
                Ok(response) if more && is_worth_another(response.status()) => {
                    attempt.sighted(response.status(), response.headers());
                    let refusal = Refusal::BackendStatus {
                        backend: attempt.name().to_owned(),
                        status: response.status().as_u16(),
                    };
                    Failed { refusal, charged: false }
                }
                Ok(response) => return self.relay(attempt, trail.held, response, reply).await,
                Err(error) => self.not_answered(&attempt, &mut trail, error, more).await,
            };
            if !more || matches!(failed.refusal, Refusal::Stopping) {
                self.release(trail.held).await;
                return drop(reply.send(failed.refusal.response()));
            }
            tracing::info!(backend = attempt.name(), reason = %failed.refusal, "moving on to the next backend");
            self.core.metrics.fallback(attempt.name());
            drop(attempt);
            if let Err(refusal) = self.hold_for_next(&mut trail, failed, &mut reply).await {
                return drop(reply.send(refusal.response()));
            }
        }
    }

    /// Where the next candidate stands in what is left. One that rests is only tried where no other was there from the
    /// start.
    fn upcoming(&self, trail: &Trail) -> Option<usize> {
        let rests = |index: usize| trail.plan.candidates.get(index).is_some_and(|one| self.rests(&one.name));
        let ready = trail.left.iter().position(|index| !rests(*index));
        ready.or((trail.number == 0 && !trail.left.is_empty()).then_some(0))
    }

    /// The next candidate.
    fn next(&self, trail: &mut Trail) -> Option<Attempt<'_>> {
        let at = self.upcoming(trail)?;
        let candidate = trail.plan.candidates.get(trail.left.remove(at))?.clone();
        let backend = candidate.backend.clone().ok()?;
        trail.number += 1;
        Some(Attempt {
            call: self,
            plan: Arc::clone(&trail.plan),
            candidate,
            backend,
            number: trail.number,
            wasted: trail.wasted,
        })
    }

    /// Whether there may be an attempt after this one.
    fn has_more(&self, trail: &Trail, attempt: &Attempt<'_>) -> bool {
        let most = self.core.config.limits.attempts_max;
        let most = most.unwrap_or_else(|| trail.plan.priorities.max(ATTEMPTS_DEFAULT));
        let rests = |index: &usize| trail.plan.candidates.get(*index).is_none_or(|one| self.rests(&one.name));
        trail.number < most
            && Instant::now() < attempt.deadline()
            && !self.core.cut.is_cancelled()
            && trail.left.iter().any(|index| !rests(index))
    }

    async fn not_answered(
        &self,
        attempt: &Attempt<'_>,
        trail: &mut Trail,
        error: SendError,
        more: bool,
    ) -> Failed {
        let backend = attempt.name().to_owned();
        tracing::warn!(backend, %error, "backend did not answer");
        let (refusal, kind) = match error {
            SendError::NotSent(_) => {
                attempt.failed("unreachable");
                return Failed { refusal: Refusal::BackendUnreachable { backend }, charged: false };
            }
            SendError::Unanswered(_) => (Refusal::BackendDied { backend }, Some("died")),
            SendError::TimedOut => (Refusal::BackendTimeout { backend }, Some("timeout")),
            SendError::CutOff => (Refusal::Stopping, None),
        };
        if let Some(kind) = kind {
            attempt.failed(kind);
        }
        let used = attempt.charge_input(trail.held.as_ref(), "unanswered").await;
        let held = trail.held.take();
        trail.wasted = trail.wasted.saturating_add(used);
        if more && kind.is_some() {
            attempt.settle_wasted(held, Usage::of(used, 0)).await;
        } else {
            attempt.settle(held, Usage::of(used, 0)).await;
        }
        Failed { refusal, charged: true }
    }

    /// A reservation that has room for the next attempt: the one that is there, or a new one. Where that is denied, the
    /// request ends as its last attempt did.
    async fn hold_for_next(
        &self,
        trail: &mut Trail,
        failed: Failed,
        reply: &mut Reply,
    ) -> Result<(), Refusal> {
        let rests = |index: &usize| trail.plan.candidates.get(*index).is_none_or(|one| self.rests(&one.name));
        let (resting, ready): (Vec<usize>, Vec<usize>) = trail.left.iter().copied().partition(rests);
        let fits = |next: &usize| {
            let covered = trail.held.as_ref().is_none_or(|held| held.covered.contains(next));
            covered && trail.plan.is_matched_to(*next)
        };
        if !failed.charged && ready.first().is_some_and(fits) {
            return Ok(());
        }
        let candidates = ready.into_iter().chain(resting).collect();
        self.hold_anew(trail, candidates, reply).await.map_err(|refusal| {
            tracing::info!(%refusal, "there is no room for another attempt");
            failed.refusal
        })
    }

    /// What is held is for the backend that comes next, also where health has changed since it was reserved: its own
    /// budgets are charged, and no other's.
    async fn hold_for_upcoming(&self, trail: &mut Trail, reply: &mut Reply) -> Result<(), Refusal> {
        let Some(at) = self.upcoming(trail) else { return Ok(()) };
        if trail.left.get(at).is_some_and(|next| trail.plan.is_matched_to(*next)) {
            return Ok(());
        }
        let candidates = trail.left.clone();
        self.hold_anew(trail, candidates, reply).await
    }

    async fn hold_anew(
        &self,
        trail: &mut Trail,
        candidates: Vec<usize>,
        reply: &mut Reply,
    ) -> Result<(), Refusal> {
        self.release(trail.held.take()).await;
        let reserving = Reserving::new(self, reply, Arc::clone(&trail.plan), candidates);
        Reserved { plan: trail.plan, held: trail.held, left: trail.left } = reserving.run().await?;
        Ok(())
    }

    async fn relay(
        &self,
        attempt: Attempt<'_>,
        held: Option<Held>,
        response: Response<Incoming>,
        reply: Reply,
    ) {
        attempt.sighted(response.status(), response.headers());
        if response.status().is_redirection() {
            attempt.release(held).await;
            let refusal = Refusal::BackendRedirect { backend: attempt.name().to_owned() };
            return drop(reply.send(refusal.response()));
        }
        let kind = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let is_stream = kind.is_some_and(|kind| kind.trim_start().starts_with("text/event-stream"));
        if response.status().is_success() && is_stream {
            streamed::relay(&attempt, held, response, reply).await;
        } else {
            let answer = answered::relay(&attempt, held, response).await;
            drop(reply.send(answer));
        }
    }

    async fn release(&self, held: Option<Held>) {
        if let Some(held) = held {
            settle::end(&self.core, held, Ending::Release).await;
        }
    }
}

/// An answer that another backend may do better than.
fn is_worth_another(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS
        || status == StatusCode::REQUEST_TIMEOUT
        || status.is_server_error()
}

fn unusable(plan: &Plan) -> Refusal {
    let first = plan.candidates.iter().find_map(|candidate| candidate.backend.as_ref().err());
    first.map_or(Refusal::Internal, |unusable| Refusal::Unusable(unusable.clone()))
}
