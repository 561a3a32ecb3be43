//! One request on its way: reserve, try one backend after the other, relay, settle. It runs in a task of its own, so that
//! neither a client that leaves nor a connection that breaks can stop it between the reservation and the settlement.
//!
//! A backend that limits, fails or stays silent is followed by the next candidate as long as nothing has been sent to
//! the client. An attempt that may have cost something is charged on its own reservation, and the next one gets a new
//! one: so the price of every attempt is inside what was held for it.

use std::{
    sync::{Arc, OnceLock, atomic::AtomicBool},
    time::Duration,
};

use bytes::Bytes;
use http::{Response, StatusCode, header};
use tokio::{sync::oneshot, time::Instant};

use crate::{
    answered,
    attempt::Attempt,
    backend::Backend,
    backends::Unusable,
    body::ResponseBody,
    choosing::Choosing,
    core::Core,
    health::{Lease, NoneReady, Resting, Standing},
    plan::{Candidate, Plan},
    provider::{Endpoint, Facts, Usage, Way, exchange::NotSendable},
    refusal::Refusal,
    request::Asked,
    reserve::{Held, Reserved, Reserving},
    settle::{self, Ending},
    streamed,
    upstream::{SendError, UpstreamBody},
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
#[derive(Debug)]
pub(crate) struct Trail {
    plan: Arc<Plan>,
    pub(crate) held: Option<Held>,
    /// Not tried yet.
    left: Vec<usize>,
    number: usize,
    wasted: u64,
    /// How the last attempt ended, if there was one: what the client hears if there is no other.
    failed: Option<Refusal>,
}

impl Trail {
    /// Charges the attempt that ends here. `more`: another one follows, and its cost comes on top.
    pub(crate) async fn charge(&mut self, attempt: &Attempt<'_>, usage: Usage, more: bool) {
        let held = self.held.take();
        self.wasted = self.wasted.saturating_add(usage.total);
        if more {
            attempt.settle_wasted(held, usage).await;
        } else {
            attempt.settle(held, usage).await;
        }
    }
}

impl Call {
    /// The client reads trailers.
    pub(crate) fn takes_trailers(&self) -> bool {
        let te = self.asked.headers.get_all(header::TE);
        te.iter().any(|value| value.to_str().is_ok_and(|te| te.to_ascii_lowercase().contains("trailers")))
    }

    /// The candidates that may be tried now, in their order.
    pub(crate) fn usable(&self, plan: &Plan) -> Vec<usize> {
        let usable = plan.candidates.iter().enumerate().filter(|(_, candidate)| self.serves(candidate));
        usable.map(|(index, _)| index).filter(|index| !self.rests(plan, *index)).collect()
    }

    /// It can be used, and speaks something that the endpoint's requests can be said in.
    fn serves(&self, candidate: &Candidate) -> bool {
        candidate.backend.as_ref().is_ok_and(|backend| self.facts.endpoint.way(backend.api()).is_some())
    }

    /// The fleet leaves it alone, or an operator has drained it.
    pub(crate) fn rests(&self, plan: &Plan, index: usize) -> bool {
        plan.candidates
            .get(index)
            .is_none_or(|one| matches!(self.core.health.standing(&one.name, &one.model), Standing::Rests(_)))
    }

    pub(crate) fn deadline_of(&self, plan: &Plan) -> Instant {
        match plan.total_ms {
            Some(ms) => self.deadline.min(self.began + Duration::from_millis(ms)),
            None => self.deadline,
        }
    }

    pub(crate) async fn run(&self, plan: Arc<Plan>, mut reply: Reply) {
        let covered = self.usable(&plan);
        if covered.is_empty() {
            return self.refuse(reply, &self.none_left(&plan));
        }
        let reserving = Reserving::new(self, &mut reply, plan, covered);
        let Reserved { plan, held, left, passed } = match reserving.run().await {
            Ok(reserved) => reserved,
            Err(refusal) => return self.refuse(reply, &refusal),
        };
        if reply.is_closed() {
            return self.left(held).await;
        }
        // And those that came back meanwhile: nothing is held for them yet.
        let back = self.usable(&plan).into_iter().filter(|one| !left.contains(one) && !passed.contains(one));
        let left = left.iter().copied().chain(back).collect();
        let trail = Trail { plan, held, left, number: 0, wasted: 0, failed: None };
        self.try_all(trail, reply).await;
    }

    fn refuse(&self, reply: Reply, refusal: &Refusal) {
        if matches!(refusal, Refusal::NoneReady(_)) {
            self.core.metrics.resting.inc();
        }
        // The client may be gone: then nobody reads it.
        let _ = reply.send(refusal.response(self.facts.endpoint.dialect()));
    }

    /// The client hung up before anything was sent.
    async fn left(&self, held: Option<Held>) {
        self.core.metrics.hang_ups.inc();
        self.release(held).await;
    }

    async fn try_all(&self, mut trail: Trail, mut reply: Reply) {
        loop {
            let (index, leases) = match self.next(&mut trail, &mut reply).await {
                Ok(next) => next,
                Err(refusal) => {
                    self.release(trail.held).await;
                    return self.refuse(reply, &told(trail.failed, refusal));
                }
            };
            let Some(mut attempt) = self.attempt(&mut trail, index, leases) else { continue };
            if self.is_answered_here(&attempt.candidate) {
                // The client may be gone: then nobody reads it.
                let _ = reply.send(answered::here(&attempt).await);
                return;
            }
            // Until here it took decisions of the cluster: much may have happened meanwhile.
            if self.core.cut.is_cancelled() {
                self.release(trail.held).await;
                return self.refuse(reply, &Refusal::Stopping);
            }
            if reply.is_closed() {
                return self.left(trail.held).await;
            }
            let sent = match attempt.encode(trail.held.as_ref()) {
                Ok(sent) => sent,
                Err(why) => {
                    tracing::debug!(backend = attempt.name(), %why, "this backend cannot serve the request");
                    trail.number -= 1;
                    let backend = attempt.name().to_owned();
                    trail.failed.get_or_insert(Refusal::NotSendable { backend, why });
                    continue;
                }
            };
            let answered = match attempt.send(sent, &mut reply).await {
                Some(answered) => answered,
                None => {
                    self.core.metrics.hang_ups.inc();
                    let used = attempt.charge_input(trail.held.as_ref(), "hang_up").await;
                    attempt.settle(trail.held, Usage::of(used, 0)).await;
                    return;
                }
            };
            // Nothing was sent.
            if let Err(SendError::Busy | SendError::NoCredentials(_)) = &answered {
                trail.number -= 1;
            }
            let more = self.has_more(&trail, &attempt);
            let refusal = match answered {
                Ok(response) if more && is_worth_another(response.status(), &attempt.backend) => {
                    attempt.sighted(response.status(), response.headers());
                    Refusal::BackendStatus {
                        backend: attempt.name().to_owned(),
                        status: response.status().as_u16(),
                    }
                }
                Ok(response) => match self.relay(&attempt, &mut trail, response, reply, more).await {
                    None => return,
                    Some((refusal, unanswered)) => {
                        reply = unanswered;
                        refusal
                    }
                },
                Err(error) => self.not_answered(&attempt, &mut trail, error, more).await,
            };
            // The answer may have taken until the deadline to turn out to be none.
            if !more || matches!(refusal, Refusal::Stopping) || Instant::now() >= attempt.deadline() {
                self.release(trail.held).await;
                return self.refuse(reply, &refusal);
            }
            tracing::info!(backend = attempt.name(), reason = %refusal, "moving on to the next backend");
            self.core.metrics.fallback(attempt.name());
            trail.failed = Some(refusal);
        }
    }

    /// The next candidate that may be used and for which there is room. One whose rest is over is claimed: while the cluster
    /// decides on that, other requests pass it over, and if another one probes it, so does this.
    async fn next(&self, trail: &mut Trail, reply: &mut Reply) -> Result<(usize, Vec<Lease>), Refusal> {
        loop {
            let at = trail.left.iter().position(|index| !self.rests(&trail.plan, *index));
            let Some(index) = at.map(|at| trail.left.remove(at)) else {
                return Err(self.none_left(&trail.plan));
            };
            if !self.hold_for(trail, index, reply).await? {
                continue;
            }
            // Last, because holding may have taken a while: it looks again whether the candidate rests by now.
            let Some(candidate) = trail.plan.candidates.get(index) else { continue };
            if self.is_answered_here(candidate) {
                return Ok((index, Vec::new()));
            }
            let alone = self.core.spare.is_lost();
            if let Some(leases) = self.core.health.claim(&candidate.name, &candidate.model, alone).await {
                return Ok((index, leases));
            }
        }
    }

    /// Nothing is sent for it.
    fn is_answered_here(&self, candidate: &Candidate) -> bool {
        let way = |backend: &Arc<Backend>| self.facts.endpoint.way(backend.api());
        candidate.backend.as_ref().is_ok_and(|backend| way(backend) == Some(Way::Here))
    }

    fn attempt(&self, trail: &mut Trail, index: usize, leases: Vec<Lease>) -> Option<Attempt<'_>> {
        let candidate = trail.plan.candidates.get(index)?.clone();
        let backend = candidate.backend.clone().ok()?;
        trail.number += 1;
        Some(Attempt {
            call: self,
            plan: Arc::clone(&trail.plan),
            candidate,
            backend,
            number: trail.number,
            wasted: trail.wasted,
            dropped: Vec::new(),
            renamed: Vec::new(),
            leases,
            sent: self.core.keeper.now(),
            began: Instant::now(),
            first_byte: OnceLock::new(),
            judged: AtomicBool::new(false),
            estimated: AtomicBool::new(false),
        })
    }

    /// Whether there may be an attempt after this one.
    fn has_more(&self, trail: &Trail, attempt: &Attempt<'_>) -> bool {
        let most = self.core.config.limits.attempts_max;
        let most = most.unwrap_or_else(|| trail.plan.priorities.max(ATTEMPTS_DEFAULT));
        trail.number < most
            && Instant::now() < attempt.deadline()
            && !self.core.cut.is_cancelled()
            && trail.left.iter().any(|index| !self.rests(&trail.plan, *index))
    }

    async fn not_answered(
        &self,
        attempt: &Attempt<'_>,
        trail: &mut Trail,
        error: SendError,
        more: bool,
    ) -> Refusal {
        let backend = attempt.name().to_owned();
        tracing::warn!(backend, %error, "backend did not answer");
        let (refusal, kind) = match error {
            SendError::NotSent(_) => {
                attempt.failed("unreachable");
                return Refusal::BackendUnreachable { backend };
            }
            // Nobody else needs to know: it is well, only not for this gateway at this moment.
            SendError::Busy => {
                self.core.metrics.upstream_error(attempt.name(), "busy");
                return Refusal::BackendBusy { backend };
            }
            SendError::NoCredentials(_) => {
                self.core.metrics.upstream_error(attempt.name(), "no_credentials");
                return Refusal::Unusable(Unusable::no_credentials(backend));
            }
            SendError::Unanswered(_) => (Refusal::BackendDied { backend }, Some("died")),
            // Others have used up the request's time: that says nothing of this one.
            SendError::TimedOut if attempt.had_no_time() => (Refusal::BackendTimeout { backend }, None),
            SendError::TimedOut => (Refusal::BackendTimeout { backend }, Some("timeout")),
            SendError::CutOff => (Refusal::Stopping, None),
        };
        if let Some(kind) = kind {
            attempt.failed(kind);
        }
        let used = attempt.charge_input(trail.held.as_ref(), "unanswered").await;
        trail.charge(attempt, Usage::of(used, 0), more && kind.is_some()).await;
        refusal
    }

    /// Sees to a reservation that has room for this candidate: the one that is there, or a new one. False: the plan has
    /// become another one, and the candidate with it.
    async fn hold_for(&self, trail: &mut Trail, index: usize, reply: &mut Reply) -> Result<bool, Refusal> {
        let has_room = match &trail.held {
            Some(held) => held.covered.contains(&index),
            None => trail.plan.matches.is_empty(),
        };
        if has_room && trail.plan.is_matched_to(index) {
            return Ok(true);
        }
        self.release(trail.held.take()).await;
        let others = trail.left.iter().copied().filter(|other| !self.rests(&trail.plan, *other));
        let candidates = std::iter::once(index).chain(others).collect();
        let reserving = Reserving::new(self, reply, Arc::clone(&trail.plan), candidates);
        let reserved = reserving.run().await.inspect_err(|refusal| {
            tracing::info!(%refusal, "there is no room for another attempt");
        })?;
        let same = reserved.plan.has_candidates_of(&trail.plan) && reserved.left.first() == Some(&index);
        trail.left = reserved.left;
        if same {
            trail.left.remove(0);
        }
        trail.plan = reserved.plan;
        trail.held = reserved.held;
        Ok(same)
    }

    /// Why nothing can be tried.
    fn none_left(&self, plan: &Plan) -> Refusal {
        let usable = plan.candidates.iter().filter(|one| self.serves(one));
        let backends: Vec<_> = usable
            .map(|one| {
                let resting = match self.core.health.standing(&one.name, &one.model) {
                    Standing::Rests(resting) => resting,
                    Standing::Ready | Standing::MayProbe => Resting::being_tried(),
                };
                (one.name.clone(), one.model.clone(), resting)
            })
            .collect();
        if backends.is_empty() {
            return self.nobody(plan);
        }
        Refusal::NoneReady(Box::new(NoneReady { backends, now: self.core.keeper.now() }))
    }

    /// Why no candidate can serve the request at all.
    fn nobody(&self, plan: &Plan) -> Refusal {
        let endpoint = self.facts.endpoint;
        let cannot = |candidate: &Candidate| match &candidate.backend {
            Err(unusable) => Refusal::Unusable(unusable.clone()),
            Ok(backend) => {
                let why = NotSendable::Endpoint { endpoint, api: backend.api() };
                Refusal::NotSendable { backend: candidate.name.clone(), why }
            }
        };
        plan.candidates.first().map_or(Refusal::Internal, cannot)
    }

    /// Hands the answer on. What failed before anything of it went to the client comes back, for another attempt.
    async fn relay(
        &self,
        attempt: &Attempt<'_>,
        trail: &mut Trail,
        response: Response<UpstreamBody>,
        reply: Reply,
        more: bool,
    ) -> Option<(Refusal, Reply)> {
        attempt.sighted(response.status(), response.headers());
        if response.status().is_redirection() {
            return Some((Refusal::BackendRedirect { backend: attempt.name().to_owned() }, reply));
        }
        if response.status().is_success() && is_stream(self.facts.endpoint, &response) {
            return streamed::relay(attempt, trail, response, reply, more).await;
        }
        match answered::relay(attempt, trail, response, more).await {
            Ok(answer) => {
                // The client may be gone: then nobody reads it.
                let _ = reply.send(answer);
                None
            }
            Err(refusal) => Some((refusal, reply)),
        }
    }

    async fn release(&self, held: Option<Held>) {
        if let Some(held) = held {
            settle::end(&self.core, held, Ending::Release).await;
        }
    }
}

/// Speech is passed on as it comes, unless it is no audio.
fn is_stream(endpoint: Endpoint, response: &Response<UpstreamBody>) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let streams = ["text/event-stream", "application/vnd.amazon.eventstream"];
    let is = |kinds: &[&str]| {
        kind.is_some_and(|kind| kinds.iter().any(|known| kind.trim_start().starts_with(known)))
    };
    is(&streams) || (endpoint == Endpoint::Speech && !is(&["application/json"]))
}

/// An answer that another backend may do better than: it is not about what the client asked, but about this backend, the
/// gateway's key or account there, or the models that it has.
fn is_worth_another(status: StatusCode, backend: &Backend) -> bool {
    match status.as_u16() {
        401..=403 => !backend.pass_client_key,
        // 424: Bedrock's, of a model that broke.
        404 | 408 | 424 | 429 => true,
        _ => status.is_server_error(),
    }
}

/// What the client hears where no other attempt came about: how the last one failed. One that was limited is told when to
/// try again, and whoever says why there is no other knows that.
fn told(failed: Option<Refusal>, none_left: Refusal) -> Refusal {
    match failed {
        None | Some(Refusal::BackendStatus { status: 429, .. }) => none_left,
        Some(failed) => failed,
    }
}
