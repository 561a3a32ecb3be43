//! The fourth stage: holds the worst case of a request in the ledger, or says why not.

use std::{sync::Arc, time::Duration};

use quorate_ledger::{Amount, Balance, Command, Grant, Outcome, ReservationId};
use quorate_policy::BudgetMatch;
use tokio::time::Instant;

use crate::{
    budget::KeeperError,
    call::Call,
    estimate::{self, Output},
    identify::{Identity, identify},
    policy::ActivePolicy,
    provider::facts,
    refusal::Refusal,
    settle,
    tokenizer::Tokenizer,
};

/// Larger texts are counted on a thread of their own.
const INLINE_BYTES_MAX: u64 = 32 << 10;
/// How often a decision is asked for anew: with an exact count, under a newer policy, with another id.
const ATTEMPTS_MAX: usize = 4;
/// How long to wait for the policy that the nodes already have.
const POLICY_WAIT: Duration = Duration::from_secs(1);

/// What is held for one request.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) tenant: String,
    pub(crate) id: ReservationId,
    pub(crate) matches: Vec<BudgetMatch>,
    /// After the reservation, one for each match.
    pub(crate) balances: Vec<Balance>,
    /// Tokens held in each budget.
    pub(crate) tokens: u64,
    /// Of these, for the input.
    pub(crate) input: u64,
    /// To be sent upstream: tokens of one answer. `None` if the request names its own, or has no output.
    pub(crate) output_limit: Option<u64>,
    /// Until then it can be settled; after that it expires.
    pub(crate) expires: Instant,
}

/// `None`: no budget applies.
pub(crate) async fn reserve(call: &Call) -> Result<Option<Held>, Refusal> {
    let mut policy = current(call)?;
    let mut identity = identify(&policy, &call.headers, &call.model)?;
    let mut exact = None;
    for _ in 0..ATTEMPTS_MAX {
        if identity.matches.is_empty() {
            return Ok(None);
        }
        if call.facts.input.files > 0 {
            return Err(Refusal::Unbounded);
        }
        let bound = estimate::input_bound(&call.facts, &call.model);
        let countable = call.tokenizer() != Tokenizer::Bytes;
        if exact.is_none() && countable && estimate::count_at_once(&call.facts, bound, &identity.matches) {
            exact = Some(count_exactly(call).await);
        }
        let asked = Asked {
            id: call.core.keeper.new_id(),
            input: exact.unwrap_or(bound),
            output: Output::of(&call.facts, &identity.matches),
        };
        match ask(call, &identity, &asked).await? {
            Outcome::Granted(grant) => return held(call, identity, &asked, grant).map(Some),
            Outcome::Denied(_) if exact.is_none() && countable => exact = Some(count_exactly(call).await),
            Outcome::Denied(denial) => {
                call.core.metrics.denied(&denial.account.budget);
                let window = window(&identity.matches, &denial.account.budget);
                return Err(Refusal::Denied { tenant: identity.tenant, denial: Box::new(denial), window });
            }
            Outcome::Refused(refusal) => {
                tracing::debug!(%refusal, "reservation refused");
                if !may_ask_again(&refusal) {
                    return Err(Refusal::ClusterRefused(refusal.to_string()));
                }
                policy = newer(call, policy).await;
                identity = identify(&policy, &call.headers, &call.model)?;
            }
            other => {
                tracing::error!(?other, "unexpected answer to a reservation");
                return Err(Refusal::Internal);
            }
        }
    }
    Err(Refusal::ClusterUnavailable { retry_after_ms: 1000 })
}

/// One try to reserve.
struct Asked {
    id: ReservationId,
    input: u64,
    output: Output,
}

fn current(call: &Call) -> Result<Arc<ActivePolicy>, Refusal> {
    call.core.policy.borrow().clone().ok_or(Refusal::NoPolicy)
}

/// The policy changed under the request, or an id came from a clock that was off: both pass by asking anew.
fn may_ask_again(refusal: &quorate_ledger::Refusal) -> bool {
    use quorate_ledger::Refusal as Said;
    matches!(refusal, Said::UnknownBudget { .. } | Said::StaleId { .. } | Said::FutureId { .. })
}

/// Waits a moment for a policy other than `seen`.
async fn newer(call: &Call, seen: Arc<ActivePolicy>) -> Arc<ActivePolicy> {
    let mut policies = call.core.policy.clone();
    let changed =
        policies.wait_for(|policy| policy.as_ref().is_some_and(|policy| policy.version != seen.version));
    match tokio::time::timeout(POLICY_WAIT, changed).await {
        Ok(Ok(policy)) => policy.clone().unwrap_or(seen),
        _ => seen,
    }
}

async fn ask(call: &Call, identity: &Identity, asked: &Asked) -> Result<Outcome, Refusal> {
    let timeouts = &call.core.config.timeouts;
    let command = Command::Reserve {
        tenant: identity.tenant.clone(),
        id: asked.id,
        charges: estimate::charges(&identity.matches, asked.input, asked.output),
        ttl_ms: timeouts.reservation_ms(),
        wait: false,
    };
    let started = Instant::now();
    let decided = call.core.keeper.execute(command, Duration::from_millis(timeouts.reserve_ms)).await;
    call.core.metrics.reserve_seconds.observe(started.elapsed().as_secs_f64());
    decided.map_err(|error| {
        tracing::warn!(%error, "no decision on a reservation");
        match error {
            KeeperError::Unavailable { retry_after_ms, .. } => Refusal::ClusterUnavailable { retry_after_ms },
            KeeperError::Unknown { .. } => {
                // It may have been made all the same: nothing may stay held for a request that is not served.
                settle::abandon(&call.core, identity.tenant.clone(), asked.id);
                Refusal::ClusterUnavailable { retry_after_ms: 1000 }
            }
        }
    })
}

fn held(call: &Call, identity: Identity, asked: &Asked, grant: Grant) -> Result<Held, Refusal> {
    let least = grant.balances.iter().map(|balance| balance.amount).min().unwrap_or(Amount::ZERO);
    let tokens = least.units_floor();
    let output_limit = match asked.output {
        Output::Granted { .. } => Some(tokens.saturating_sub(asked.input) / call.facts.answers.max(1)),
        Output::Named(_) | Output::None => None,
    };
    let ttl = Duration::from_millis(call.core.config.timeouts.reservation_ms());
    Ok(Held {
        tenant: identity.tenant,
        id: asked.id,
        matches: identity.matches,
        balances: grant.balances,
        tokens,
        input: asked.input,
        output_limit,
        expires: Instant::now() + ttl,
    })
}

/// The window of a budget, for the headers.
pub(crate) fn window(matches: &[BudgetMatch], budget: &str) -> Option<quorate_ledger::Window> {
    matches.iter().find(|found| found.budget.name == budget).map(|found| found.budget.window)
}

/// The upper bound of the input by the model's own tokenizer.
async fn count_exactly(call: &Call) -> u64 {
    call.core.metrics.exact_counts.inc();
    count_with(call, call.tokenizer()).await
}

/// The input by `tokenizer`; by its bytes if that fails. Long texts do not hold up other requests.
pub(crate) async fn count_with(call: &Call, tokenizer: Tokenizer) -> u64 {
    let endpoint = call.facts.endpoint;
    let measured = if call.facts.input.text_bytes <= INLINE_BYTES_MAX {
        facts::measure_input(endpoint, &call.body, |text| tokenizer.count(text)).ok()
    } else {
        let body = call.body.clone();
        let _turn = call.core.counting.acquire().await;
        let count = move || facts::measure_input(endpoint, &body, |text| tokenizer.count(text)).ok();
        tokio::task::spawn_blocking(count).await.ok().flatten()
    };
    match measured {
        Some(measured) => estimate::input_exact(&call.facts, &call.model, &measured),
        None => estimate::input_bound(&call.facts, &call.model),
    }
}
