//! One call: read, asked, answered. An error is for what the caller cannot mean and for a cluster that is away; a limit that
//! is reached is an answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_rpc::rls::rate_limit_service_server::RateLimitService;
use quorate_rpc::rls::{RateLimitRequest, RateLimitResponse};
use tokio::sync::{Semaphore, oneshot};
use tonic::{Request, Response, Status};

use super::answer::{Answer, Answering, name_reservation};
use super::config::RateLimitConfig;
use super::ending::{self, Place};
use super::question::{Mistake, Question};
use super::reservation::Reservation;
use super::spend::{Asking, Spent, Unspent, spend};
use crate::core::Core;
use crate::policy::ActivePolicy;

/// And what is held for the request that goes on.
type Answered = (RateLimitResponse, Option<Reservation>);

#[derive(Debug, Clone)]
pub(super) struct Service {
    pub core: Arc<Core>,
    pub config: Arc<RateLimitConfig>,
    /// Calls at work, and what goes on behind their answers.
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
        let answered = match Arc::clone(&self.places).try_acquire_owned() {
            Ok(place) => self.decide(request.into_inner(), Arc::new(place)).await,
            Err(_) => {
                metrics.turned_away.inc();
                Err(Status::resource_exhausted("too many calls at work; ask again in a moment"))
            }
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
    async fn decide(&self, request: RateLimitRequest, place: Place) -> Result<RateLimitResponse, Status> {
        let core = &self.core;
        if core.cut.is_cancelled() {
            return Err(Status::unavailable("this gateway stops"));
        }
        let Some(policy) = core.policy.borrow().clone() else {
            return Err(Status::unavailable("no policy has come from the budget nodes yet"));
        };
        let question = Question::read(&request, &self.config, &policy).map_err(wrong)?;
        for settle in &question.settles {
            ending::settle(core, &place, settle.clone());
        }
        if question.holds() {
            return self.to_the_end(request, question, place).await;
        }
        match self.once(&request, &question, &place).await {
            // The future of the common way stays small.
            Err(Unspent::Outdated(message)) => Box::pin(self.again(request, question, message, place)).await,
            answered => answered.map(|(response, _)| response).map_err(undecided),
        }
    }

    /// The policy has changed under the question.
    async fn again(
        &self,
        request: RateLimitRequest,
        question: Question,
        message: String,
        place: Place,
    ) -> Result<RateLimitResponse, Status> {
        let newer = self.newer(&request, &question, message).await?;
        if newer.holds() {
            return self.to_the_end(request, newer, place).await;
        }
        let answered = self.once(&request, &newer, &place).await;
        answered.map(|(response, _)| response).map_err(undecided)
    }

    /// Whether the proxy waits or not: what is held for a request that nobody hears of is given back.
    async fn to_the_end(
        &self,
        request: RateLimitRequest,
        question: Question,
        place: Place,
    ) -> Result<RateLimitResponse, Status> {
        let (reply, answer) = oneshot::channel();
        let service = self.clone();
        self.core.tasks.spawn(async move {
            let finished = service.finish(&request, question, &place).await;
            let held = finished.as_ref().ok().and_then(|(_, held)| held.clone());
            let unheard = reply.send(finished.map(|(response, _)| response)).is_err();
            if let Some(reservation) = held.filter(|_| unheard) {
                ending::give_back(&service.core, reservation);
            }
        });
        answer.await.unwrap_or_else(|_| Err(Status::internal("the call ended without an answer")))
    }

    /// Asks once more where the policy has changed under the question.
    async fn finish(
        &self,
        request: &RateLimitRequest,
        question: Question,
        place: &Place,
    ) -> Result<Answered, Status> {
        match self.once(request, &question, place).await {
            Err(Unspent::Outdated(message)) => {
                let newer = self.newer(request, &question, message).await?;
                self.once(request, &newer, place).await.map_err(undecided)
            }
            answered => answered.map_err(undecided),
        }
    }

    /// The same question under the policy that the nodes already have; `message`: what they said of the older one.
    async fn newer(
        &self,
        request: &RateLimitRequest,
        question: &Question,
        message: String,
    ) -> Result<Question, Status> {
        let mut policies = self.core.policy.clone();
        let is_newer = |policy: &Option<Arc<ActivePolicy>>| {
            policy.as_ref().is_some_and(|policy| policy.version != question.version)
        };
        let within = Duration::from_millis(self.config.decision_ms);
        let newer = tokio::time::timeout(within, policies.wait_for(is_newer)).await;
        let newer = newer.ok().and_then(Result::ok).and_then(|policy| policy.clone());
        let Some(newer) = newer else { return Err(Status::unavailable(message)) };
        Question::read(request, &self.config, &newer).map_err(wrong)
    }

    async fn once(
        &self,
        request: &RateLimitRequest,
        question: &Question,
        place: &Place,
    ) -> Result<Answered, Unspent> {
        let core = &self.core;
        let asking = Asking {
            core,
            place,
            tenant: &question.tenant,
            version: question.version,
            within: Duration::from_millis(self.config.decision_ms),
            reservation_ms: self.config.reservation_ms,
            hold_from_leases: self.config.hold_from_leases,
            shadow: self.config.shadow_mode,
            refused: question.refuses() && !self.config.quota_mode,
        };
        let Spent { standings, held } = match question.lines.as_slice() {
            [] => Spent { standings: Vec::new(), held: None },
            lines => spend(asking, lines).await?,
        };
        let answering =
            Answering { config: &self.config, metrics: &core.metrics.rate_limit, now: core.keeper.now() };
        let Answer { mut response, passes } = answering.answer(request, question, &standings);
        match held {
            Some(reservation) if passes => {
                name_reservation(&mut response, &reservation);
                Ok((response, Some(reservation)))
            }
            Some(reservation) => {
                ending::give_back(core, reservation);
                Ok((response, None))
            }
            None => Ok((response, None)),
        }
    }
}

fn wrong(mistake: Mistake) -> Status {
    Status::invalid_argument(mistake.0)
}

fn undecided(unspent: Unspent) -> Status {
    match unspent {
        Unspent::Wrong(mistake) => wrong(mistake),
        Unspent::Unavailable(message) | Unspent::Outdated(message) => Status::unavailable(message),
    }
}
