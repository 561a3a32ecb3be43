//! The fourth stage: holds the worst case of a request in the ledger, or says why not.

use std::{sync::Arc, time::Duration};

use quorate_ledger::{Amount, Balance, Charge, Enforcement, Grant, Outcome, ReservationId};
use quorate_policy::runtime::OutputBounds;
use tokio::time::Instant;

use crate::{
    ask::{Answer, Decided},
    call::{Call, Reply},
    cost::Bounds,
    counts::Counts,
    estimate,
    leased::Leased,
    passing::Passing,
    plan::Plan,
    policy::ActivePolicy,
    refusal::Refusal,
    settle::{self, Ending},
    spare::Taken,
    tier::{self, Tiers, Verdict},
    tokenizer::Tokenizer,
};

/// How often a decision is asked for anew: with an exact count, for fewer candidates, for another model, under a newer
/// policy, with another id.
const ASKED_MAX: usize = 12;
/// How long to wait for the policy that the nodes already have.
const POLICY_WAIT: Duration = Duration::from_secs(1);

/// What is held for one request.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) tenant: String,
    pub(crate) id: ReservationId,
    pub(crate) plan: Arc<Plan>,
    /// After the reservation, one for each match.
    pub(crate) balances: Vec<Balance>,
    /// Tokens that are held for the input, and for the output of all answers.
    pub(crate) input: u64,
    pub(crate) output: u64,
    /// The backend keeps to that output: it is told, or the request says so.
    pub(crate) bounded: bool,
    /// To be sent upstream: tokens of one answer. `None` if the request names its own, or has no output.
    pub(crate) output_limit: Option<u64>,
    /// The candidates whose price is inside, by their number in the plan.
    pub(crate) covered: Vec<usize>,
    /// Until then it can be settled; after that it expires.
    pub(crate) expires: Instant,
    /// Not in the ledger, but in this gateway's own allowance.
    pub(crate) spare: Option<Taken>,
    /// What of it is in slices that this gateway holds, and not under `id`.
    pub(crate) leased: Option<Leased>,
}

/// What a request may go on with.
#[derive(Debug)]
pub(crate) struct Reserved {
    pub(crate) plan: Arc<Plan>,
    /// `None`: no budget applies.
    pub(crate) held: Option<Held>,
    /// The candidates to try: the first is the one that is reserved for; those that were short are not among them.
    pub(crate) left: Vec<usize>,
    /// Those that were short.
    pub(crate) passed: Vec<usize>,
}

/// Asks until there is a decision. The plan may become another one: by a tier, or by a newer policy.
pub(crate) struct Reserving<'c> {
    pub(crate) call: &'c Call,
    /// Closed when the client is gone: then nobody waits.
    reply: &'c mut Reply,
    pub(crate) plan: Arc<Plan>,
    /// Which candidates the reservation must have room for, the one that is tried first before the others.
    pub(crate) covered: Vec<usize>,
    pub(crate) passing: Passing,
    pub(crate) counts: Counts,
    pub(crate) tiers: Tiers,
    pub(crate) waited: Duration,
}

impl<'c> Reserving<'c> {
    /// `candidates`: those that may be tried, in this order.
    pub(crate) fn new(call: &'c Call, reply: &'c mut Reply, plan: Arc<Plan>, candidates: Vec<usize>) -> Self {
        let (counts, tiers, waited) = (Counts::default(), Tiers::new(&call.model), Duration::ZERO);
        let passing = passing(call, &plan, candidates);
        Self { call, reply, plan, covered: passing.left(), passing, counts, tiers, waited }
    }

    /// The budgets of the backend that is tried first.
    fn match_first(&mut self) -> Result<(), Refusal> {
        if self.call.facts.endpoint.is_free() {
            return Ok(());
        }
        let first = self.covered.first().copied().filter(|first| !self.plan.is_matched_to(*first));
        if let Some(first) = first {
            self.plan = Arc::new(self.plan.matching(&self.call.asked, first)?);
        }
        Ok(())
    }

    pub(crate) async fn run(mut self) -> Result<Reserved, Refusal> {
        if let Some(model) = self.call.core.tier_hints.guess(&self.plan, self.call.core.keeper.now()) {
            self.plan_for(&model)?;
        }
        let mut asked = 0;
        while asked < ASKED_MAX {
            self.match_first()?;
            if self.plan.matches.is_empty() {
                return Ok(self.reserved(None));
            }
            if self.call.facts.input.unbounded > 0
                && self.plan.matches.iter().any(|found| found.budget.bounds_input())
            {
                return Err(Refusal::Unbounded);
            }
            let (candidate, waited) = (self.passing.left().first().copied(), self.waited);
            if let Some(held) = self.once().await? {
                return Ok(self.reserved(Some(held)));
            }
            // Another candidate is another question, and so is a look after a wait: there are only so many.
            let same = self.passing.left().first().copied() == candidate && self.waited == waited;
            asked += usize::from(same);
        }
        Err(Refusal::ClusterUnavailable { retry_after_ms: 1000 })
    }

    fn reserved(self, held: Option<Held>) -> Reserved {
        Reserved { plan: self.plan, held, left: self.passing.left(), passed: self.passing.passed() }
    }

    /// One question. `None`: ask again, something has changed.
    async fn once(&mut self) -> Result<Option<Held>, Refusal> {
        let plan = Arc::clone(&self.plan);
        let output = estimate::output(&self.call.facts, &plan.matches, plan.models())?;
        let metrics = Arc::clone(&self.call.core.metrics);
        let mut bounds = Bounds { plan: &plan, inputs: self.inputs(&plan), metrics: &metrics };
        let mut charges = bounds.charges(&output)?;
        let short = self.call.facts.input.text_bytes <= estimate::EXACT_BYTES;
        if !self.counts.is_exact() && self.is_countable() && (short || !bounds.are_rich(&charges)) {
            self.count_exactly().await;
            bounds.inputs = self.inputs(&plan);
            charges = bounds.charges(&output)?;
        }
        if !self.passing.may_shorten() {
            whole_of_own(&plan, &mut charges);
        }
        match self.ask(&charges, Duration::ZERO).await? {
            Answer::Decided(decided) => self.decided(decided, &bounds, &output, charges).await,
            Answer::Spare(id, taken) => Ok(Some(self.spare(id, taken, &bounds, &output))),
        }
    }

    async fn decided(
        &mut self,
        decided: Decided,
        bounds: &Bounds<'_>,
        output: &OutputBounds,
        charges: Vec<Charge>,
    ) -> Result<Option<Held>, Refusal> {
        let Decided { id, outcome, leased } = decided;
        match *outcome {
            Outcome::Granted(grant) if grant.balances.iter().any(|balance| self.is_otherwise(balance)) => {
                let held = Held { leased, ..self.held(id, grant, bounds, output) };
                settle::end(&self.call.core, held, Ending::Release).await;
                self.counted_otherwise().await.map(|()| None)
            }
            Outcome::Denied(denial) if self.is_otherwise(&denial.account) => {
                self.counted_otherwise().await.map(|()| None)
            }
            Outcome::Granted(grant) => {
                let balances = grant.balances.clone();
                let held = Held { leased, ..self.held(id, grant, bounds, output) };
                self.granted(held, balances).await
            }
            Outcome::Denied(denial) => {
                if self.changes(&denial).await? {
                    return Ok(None);
                }
                let may_wait = self.passing.may_wait() || !self.is_own(&denial.account.budget);
                let wait = self.wait_for(&denial).filter(|_| may_wait);
                let Some(wait) = wait else { return self.short(denial, bounds, output).map(|()| None) };
                let began = Instant::now();
                let answer = self.ask(&charges, wait).await?;
                self.waited += began.elapsed();
                match answer {
                    Answer::Decided(decided) => match *decided.outcome {
                        Outcome::Denied(denial) => self.short(denial, bounds, output).map(|()| None),
                        // No denial again: this goes no deeper.
                        other => {
                            let decided = Decided { outcome: Box::new(other), ..decided };
                            Box::pin(self.decided(decided, bounds, output, charges)).await
                        }
                    },
                    Answer::Spare(id, taken) => Ok(Some(self.spare(id, taken, bounds, output))),
                }
            }
            Outcome::Refused(refusal) => {
                tracing::debug!(%refusal, "reservation refused");
                self.refused(&refusal).await.map(|()| None)
            }
            other => {
                tracing::error!(?other, "unexpected answer to a reservation");
                Err(Refusal::Internal)
            }
        }
    }

    async fn granted(&mut self, held: Held, balances: Vec<Balance>) -> Result<Option<Held>, Refusal> {
        let core = &self.call.core;
        core.tier_hints.saw(&self.plan.who.identity.tenant, &self.plan, &balances);
        let left = |number: usize, _: &_| balances.get(number).map(tier::left_before);
        let verdict = self.tiers.judge(&self.plan, left);
        if verdict == Verdict::Stay {
            return Ok(Some(held));
        }
        settle::end(core, held, Ending::Release).await;
        // What was held for this request is given back by now.
        let balance = |number| {
            let balance: Balance = balances.get(number).cloned()?;
            let reserved = balance.reserved.saturating_sub(balance.amount);
            Some(Balance { reserved, amount: Amount::ZERO, ..balance })
        };
        self.follow(verdict, balance).await.map(|()| None)
    }

    /// The policy changed under the request, or an id came from a clock that was off: both pass by asking anew.
    async fn refused(&mut self, refusal: &quorate_ledger::Refusal) -> Result<(), Refusal> {
        use quorate_ledger::Refusal as Said;
        if let Said::TooManyAccounts { budget, .. } = refusal {
            self.call.core.metrics.accounts_capped(budget);
            if self.goes_uncounted(budget) {
                return Ok(());
            }
            self.call.core.metrics.denied(budget);
            return Err(Refusal::TooManyAccounts(refusal.to_string()));
        }
        let of_clock = matches!(refusal, Said::StaleId { .. } | Said::FutureId { .. });
        self.plan_anew(of_clock, &refusal.to_string()).await
    }

    /// A budget that only watches never stops a request: where it has no room for the subject, it does not see it.
    fn goes_uncounted(&mut self, budget: &str) -> bool {
        let watches = |found: &quorate_policy::runtime::BudgetMatch| {
            found.budget.rule.name == budget && found.budget.rule.enforcement == Enforcement::Shadow
        };
        let before = self.plan.matches.len();
        let mut plan = Plan::clone(&self.plan);
        plan.matches.retain(|found| !watches(found));
        self.plan = Arc::new(plan);
        self.plan.matches.len() < before
    }

    /// The nodes have a policy in which the budget of this name counts something else: what was asked for is no amount
    /// of it.
    fn is_otherwise(&self, balance: &Balance) -> bool {
        let rules = self.plan.matches.iter().map(|found| &found.budget.rule);
        rules.into_iter().any(|rule| rule.name == balance.budget && rule.unit != balance.unit)
    }

    async fn counted_otherwise(&mut self) -> Result<(), Refusal> {
        self.plan_anew(false, "a budget counts in another unit than this gateway knows; upgrade it").await
    }

    /// Under the policy that the nodes have. `anyway`: also where that is not newer.
    async fn plan_anew(&mut self, anyway: bool, why: &str) -> Result<(), Refusal> {
        let newer = newer(self.call, &self.plan.policy).await;
        if newer.version == self.plan.policy.version && !anyway {
            return Err(Refusal::ClusterRefused(why.to_owned()));
        }
        let who = Plan::who(&self.call.core, &newer, &self.call.asked)?;
        let plan = Plan::make(&newer, &self.call.asked, who, &self.call.model, &self.call.choosing)?;
        self.tiers = Tiers::new(&self.call.model);
        self.take_up(plan);
        Ok(())
    }

    pub(crate) fn plan_for(&mut self, model: &str) -> Result<(), Refusal> {
        let plan = self.plan.for_model(&self.call.asked, model, &self.call.choosing)?;
        self.take_up(plan);
        Ok(())
    }

    fn take_up(&mut self, plan: Plan) {
        self.passing = passing(self.call, &plan, self.call.usable(&plan));
        self.covered = self.passing.left();
        self.plan = Arc::new(plan);
    }

    pub(crate) fn window(&self, budget: &str) -> Option<quorate_ledger::Window> {
        window(&self.plan, budget)
    }

    fn inputs<'p>(&self, plan: &'p Plan) -> Vec<(&'p crate::plan::Candidate, u64)> {
        let covered = self.covered.iter().filter_map(|index| plan.candidates.get(*index));
        covered.map(|candidate| (candidate, self.counts.input(self.call, candidate))).collect()
    }

    /// Some candidate counts in a way that is known here.
    pub(crate) fn is_countable(&self) -> bool {
        let covered = self.covered.iter().filter_map(|index| self.plan.candidates.get(*index));
        covered.into_iter().any(|candidate| candidate.tokenizer() != Tokenizer::Bytes)
    }

    pub(crate) async fn count_exactly(&mut self) {
        let covered = self.covered.iter().filter_map(|index| self.plan.candidates.get(*index));
        let tokenizers: Vec<Tokenizer> = covered.map(crate::plan::Candidate::tokenizer).collect();
        self.counts.count(self.call, &tokenizers).await;
    }

    fn held(&self, id: ReservationId, grant: Grant, bounds: &Bounds<'_>, output: &OutputBounds) -> Held {
        let granted = bounds.granted_output(output, &grant.balances).unwrap_or_else(|refusal| {
            // Every cost was told a moment ago.
            tracing::error!(%refusal, "a grant could not be turned into an output limit");
            0
        });
        Held {
            tenant: self.plan.who.identity.tenant.clone(),
            id,
            plan: Arc::clone(&self.plan),
            balances: grant.balances,
            input: bounds.input(),
            output: granted,
            bounded: output.is_bounded(),
            output_limit: output.limit(granted),
            covered: self.covered.clone(),
            expires: Instant::now() + Duration::from_millis(self.call.core.config.timeouts.reservation_ms()),
            spare: None,
            leased: None,
        }
    }

    fn spare(&self, id: ReservationId, taken: Taken, bounds: &Bounds<'_>, output: &OutputBounds) -> Held {
        let held = self.held(id, taken.as_granted(), bounds, output);
        Held { spare: Some(taken), ..held }
    }

    /// Waits as long as somebody wants the answer: the client is there, and the gateway goes on.
    pub(crate) async fn while_wanted<T>(&mut self, waiting: impl Future<Output = T>) -> Result<T, Refusal> {
        let core = &self.call.core;
        tokio::select! {
            // First, as what is cut off gives back room to those that wait: nothing is to begin now.
            biased;
            () = core.cut.cancelled() => Err(Refusal::Stopping),
            () = self.reply.closed() => {
                core.metrics.hang_ups.inc();
                Err(Refusal::ClientGone)
            }
            done = waiting => Ok(done),
        }
    }
}

/// Which of the candidates to ask for: not those that rest while others do not.
fn passing(call: &Call, plan: &Plan, candidates: Vec<usize>) -> Passing {
    let rests = |index: &usize| call.rests(plan, *index);
    let (resting, ready) = candidates.into_iter().partition(rests);
    Passing::new(ready, resting)
}

/// A backend's own budget does not shorten answers that another backend may give whole, if it ever could itself.
fn whole_of_own(plan: &Plan, charges: &mut [Charge]) {
    for (found, charge) in plan.matches.iter().zip(charges) {
        if found.budget.is_of_backend() && charge.amount <= found.budget.rule.limit {
            charge.at_least = charge.amount;
        }
    }
}

/// Waits a moment for a policy other than `seen`.
async fn newer(call: &Call, seen: &Arc<ActivePolicy>) -> Arc<ActivePolicy> {
    let mut policies = call.core.policy.clone();
    let changed =
        policies.wait_for(|policy| policy.as_ref().is_some_and(|policy| policy.version != seen.version));
    match tokio::time::timeout(POLICY_WAIT, changed).await {
        Ok(Ok(policy)) => policy.clone().unwrap_or_else(|| Arc::clone(seen)),
        _ => Arc::clone(seen),
    }
}

/// The window of a budget, for the headers.
pub(crate) fn window(plan: &Plan, budget: &str) -> Option<quorate_ledger::Window> {
    let found = plan.matches.iter().find(|found| found.budget.rule.name == budget);
    found.map(|found| found.budget.rule.window)
}

impl Held {
    /// Output as it is charged where the provider said `said` of it and `counted` tokens came besides: never more than what
    /// was held, unless the provider says so.
    pub(crate) fn most_output(&self, said: u64, counted: u64) -> u64 {
        let output = said.saturating_add(counted);
        if self.bounded { output.min(self.output.max(said)) } else { output }
    }

    /// Of one budget, by its number.
    pub(crate) fn amount(&self, number: usize) -> Amount {
        self.balances.get(number).map_or(Amount::ZERO, |balance| balance.amount)
    }
}
