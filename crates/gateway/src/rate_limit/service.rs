//! One call: read, asked, answered. An error is for what the caller cannot mean and for a cluster that is away; a limit that
//! is reached is an answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_ledger::{Command, Outcome};
use quorate_policy::runtime::Spending;
use quorate_rpc::rls::rate_limit_service_server::RateLimitService;
use quorate_rpc::rls::{RateLimitRequest, RateLimitResponse};
use tokio::sync::{Semaphore, oneshot};
use tonic::{Request, Response, Status};

use super::answer::{Answer, Answering, hand_over};
use super::config::RateLimitConfig;
use super::question::{Mistake, Question, Settle};
use super::reservation::Reservation;
use super::spend::{Asking, Spent, Unspent, spend};
use crate::core::Core;
use crate::policy::ActivePolicy;
use crate::settle;

/// Settlements are tried longer than a proxy waits for an answer: what was used is known nowhere else.
const SETTLE_WITHIN: Duration = Duration::from_secs(20);

#[derive(Debug, Clone)]
pub(super) struct Service {
    pub core: Arc<Core>,
    pub config: Arc<RateLimitConfig>,
    /// Calls at work.
    pub places: Arc<Semaphore>,
}

#[tonic::async_trait]
impl RateLimitService for Service {
    async fn should_rate_limit(
        &self,
        request: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        let metrics = &self.core.metrics.rate_limit;
        let started = Instant::now();
        let answered = match self.places.try_acquire() {
            Ok(_place) => self.decide(request.into_inner()).await,
            Err(_) => Err(Status::resource_exhausted("too many calls at work; ask again in a moment")),
        };
        metrics.seconds.observe(started.elapsed().as_secs_f64());
        match &answered {
            Ok(response) if response.overall_code == CODE_OVER => metrics.over.inc(),
            Ok(_) => metrics.ok.inc(),
            Err(_) => metrics.errors.inc(),
        };
        answered.map(Response::new)
    }
}

const CODE_OVER: i32 = quorate_rpc::rls::rate_limit_response::Code::OverLimit as i32;

impl Service {
    async fn decide(&self, request: RateLimitRequest) -> Result<RateLimitResponse, Status> {
        let core = &self.core;
        if core.cut.is_cancelled() {
            return Err(Status::unavailable("this gateway stops"));
        }
        let Some(policy) = core.policy.borrow().clone() else {
            return Err(Status::unavailable("no policy has come from the budget nodes yet"));
        };
        let question = Question::read(&request, &self.config, &policy).map_err(wrong)?;
        for settle in &question.settles {
            self.settle(settle.clone());
        }
        if !question.lines.iter().any(|line| line.spending == Spending::Held) {
            return self.finish(&request, question).await.map(|(response, _)| response);
        }
        // To its end whether the proxy waits or not: what is held for a request that nobody hears of is given back.
        let (reply, answer) = oneshot::channel();
        let service = self.clone();
        core.tasks.spawn(async move {
            let finished = service.finish(&request, question).await;
            let held = finished.as_ref().ok().and_then(|(_, held)| held.clone());
            let unheard = reply.send(finished.map(|(response, _)| response)).is_err();
            if let Some(Reservation { id, tenant, .. }) = held.filter(|_| unheard) {
                settle::abandon(&service.core, tenant, id);
            }
        });
        answer.await.unwrap_or_else(|_| Err(Status::internal("the call ended without an answer")))
    }

    /// Asks once more where the policy has changed under the question.
    async fn spend(&self, request: &RateLimitRequest, question: &mut Question) -> Result<Spent, Status> {
        let mut asked = 0;
        loop {
            if question.lines.is_empty() {
                return Ok(Spent { standings: Vec::new(), held: None });
            }
            let asking = Asking {
                core: &self.core,
                tenant: &question.tenant,
                version: question.version,
                within: Duration::from_millis(self.config.decision_ms),
                reservation_ms: self.config.reservation_ms,
            };
            match spend(asking, &question.lines).await {
                Ok(spent) => return Ok(spent),
                Err(Unspent::Wrong(mistake)) => return Err(wrong(mistake)),
                Err(Unspent::Outdated(message)) if asked == 0 => {
                    let Some(newer) = self.newer_than(question.version).await else {
                        return Err(Status::unavailable(message));
                    };
                    *question = Question::read(request, &self.config, &newer).map_err(wrong)?;
                    asked += 1;
                }
                Err(Unspent::Unavailable(message) | Unspent::Outdated(message)) => {
                    return Err(Status::unavailable(message));
                }
            }
        }
    }

    /// The policy that the nodes already have.
    async fn newer_than(&self, version: u64) -> Option<Arc<ActivePolicy>> {
        let mut policies = self.core.policy.clone();
        let is_newer = |policy: &Option<Arc<ActivePolicy>>| {
            policy.as_ref().is_some_and(|policy| policy.version != version)
        };
        let within = Duration::from_millis(self.config.decision_ms);
        let newer = tokio::time::timeout(within, policies.wait_for(is_newer)).await.ok()?.ok()?;
        newer.clone()
    }

    /// Besides the answer: what is held for the request that goes on.
    async fn finish(
        &self,
        request: &RateLimitRequest,
        mut question: Question,
    ) -> Result<(RateLimitResponse, Option<Reservation>), Status> {
        let core = &self.core;
        let Spent { standings, held } = self.spend(request, &mut question).await?;
        let answering =
            Answering { config: &self.config, metrics: &core.metrics.rate_limit, now: core.keeper.now() };
        let Answer { mut response, passes } = answering.answer(request, &question, &standings);
        match held {
            Some(reservation) if passes => {
                hand_over(&mut response, &reservation);
                Ok((response, Some(reservation)))
            }
            Some(Reservation { id, tenant, .. }) => {
                settle::abandon(core, tenant, id);
                Ok((response, None))
            }
            None => Ok((response, None)),
        }
    }

    /// Goes on whether the proxy waits or not: Envoy does not look at the answer of a call at the end of a stream.
    fn settle(&self, settle: Settle) {
        let core = Arc::clone(&self.core);
        self.core.tasks.spawn(async move {
            let Settle { reservation: Reservation { id, tenant, .. }, amounts } = settle;
            let command = Command::Settle { tenant: tenant.clone(), id, actual: amounts, estimated: false };
            match core.keeper.execute_waiting(command, settle::IN_NO_HURRY, SETTLE_WITHIN).await {
                Ok(Outcome::Settled(_)) => drop(core.metrics.rate_limit.settled.inc()),
                Ok(other) => {
                    core.metrics.rate_limit.unsettled.inc();
                    tracing::warn!(reservation = %id, tenant, ?other, "a reservation was not settled");
                }
                Err(error) => {
                    core.metrics.rate_limit.unsettled.inc();
                    tracing::warn!(reservation = %id, tenant, %error, "a reservation was not settled: it expires as reserved");
                }
            }
        });
    }
}

fn wrong(mistake: Mistake) -> Status {
    Status::invalid_argument(mistake.0)
}
