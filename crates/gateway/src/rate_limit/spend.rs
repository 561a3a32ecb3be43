//! Charges lines to their accounts: all spending of the service is here.
//!
//! A check that charges at once is a Reserve with its Settle right behind it, under one id and in one commit. Where hits
//! count whether there is room or not, the Reserve takes what there is (`at_least` zero) and the Settle charges the rest as
//! overdraft; what the Reserve saw says who was within the limit, so of parallel calls no two take the same room. Leased
//! accounts are spent from slices that are here already, where these suffice.

use std::sync::Arc;
use std::time::Duration;

use quorate_ledger::{
    Amount, CHARGES_MAX, Charge, Command, Denial, Enforcement, Outcome, Refusal, ReservationId,
};
use quorate_policy::runtime::Spending;
use quorate_rpc::lease::{Left, Want};

use super::group::{Group, Standing};
use super::question::{Line, Mistake};
use super::reservation::{Reservation, mark};
use crate::budget::KeeperError;
use crate::core::Core;
use crate::settle;

/// Between a Reserve and the Settle behind it nothing takes as long.
const CHARGE_TTL_MS: u64 = 10_000;
/// How often it is asked anew without an account that cannot be made.
const WITHOUT_MAX: usize = 8;
const LEAST: Amount = match Amount::from_micros(1) {
    Ok(amount) => amount,
    Err(_) => Amount::ZERO,
};

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unspent {
    /// The proxy's own rule for a service that is away decides.
    Unavailable(String),
    /// The cluster has another policy by now, and nothing was charged.
    Outdated(String),
    Wrong(Mistake),
}

/// Who asks, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asking<'a> {
    pub core: &'a Arc<Core>,
    pub tenant: &'a str,
    /// Of the policy that the lines are from.
    pub version: u64,
    pub within: Duration,
    pub reservation_ms: u64,
}

/// What came of all lines.
#[derive(Debug)]
pub(super) struct Spent {
    /// One for each line.
    pub standings: Vec<Standing>,
    /// Made, and waiting for the word of what was used.
    pub held: Option<Reservation>,
}

/// Asks for all lines. One that is over its limit does not keep the others from being counted.
pub(super) async fn spend(asking: Asking<'_>, lines: &[Line]) -> Result<Spent, Unspent> {
    let mut standings = vec![None; lines.len()];
    match spend_into(asking, lines, &mut standings).await {
        // What was charged must not be charged again.
        Err(Unspent::Outdated(message)) if standings.iter().any(Option::is_some) => {
            Err(Unspent::Unavailable(message))
        }
        spent => spent,
    }
}

async fn spend_into(
    asking: Asking<'_>,
    lines: &[Line],
    standings: &mut [Option<Standing>],
) -> Result<Spent, Unspent> {
    local(asking, lines, standings).await?;
    if standings.iter().all(Option::is_some) {
        return Ok(Spent { standings: standings.iter().copied().flatten().collect(), held: None });
    }
    // The future of the common way stays small.
    Box::pin(spend_rest(asking, lines, standings)).await
}

/// What no slice has room for.
async fn spend_rest(
    asking: Asking<'_>,
    lines: &[Line],
    standings: &mut [Option<Standing>],
) -> Result<Spent, Unspent> {
    let (mut counted, mut whole, mut held) = (Vec::new(), Vec::new(), Vec::new());
    // A budget that denies by itself would take the others with it.
    let mut alone = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        match line.spending {
            _ if standings[number].is_some() => {}
            Spending::Count if line.budget.rule.enforcement == Enforcement::Count => {
                alone.push((number, line))
            }
            _ if line.amount.is_zero() => counted.push((number, line)),
            Spending::Count => counted.push((number, line)),
            Spending::Whole | Spending::Lease => whole.push((number, line)),
            Spending::Held => held.push((number, line)),
        }
    }
    let mut reservation = None;
    if !held.is_empty() {
        reservation = hold(asking, held, standings).await?;
    }
    let charged = charge(asking, counted, whole, alone, standings).await;
    if let (Err(_), Some(made)) = (&charged, &reservation) {
        let Reservation { id, tenant, .. } = made.clone();
        settle::abandon(asking.core, tenant, id);
    }
    charged?;
    // A line that nothing is known of was not counted for want of an account.
    let unknown = |line: &Line| Standing {
        over: line.budget.rule.enforcement != Enforcement::Shadow,
        limit: line.limit.unwrap_or(line.budget.rule.limit),
        left: Amount::ZERO,
        resets_at: None,
    };
    let standings = standings.iter().zip(lines).map(|(known, line)| known.unwrap_or_else(|| unknown(line)));
    Ok(Spent { standings: standings.collect(), held: reservation })
}

/// What slices of leased accounts can bear, all of it or nothing: of those that this process holds without a round trip,
/// else of those that this call takes. What is held for later is not among it, since any process may have to settle that.
async fn local(
    asking: Asking<'_>,
    lines: &[Line],
    standings: &mut [Option<Standing>],
) -> Result<(), Unspent> {
    let is_leased =
        |line: &&Line| line.budget.rule.enforcement == Enforcement::Lease && line.spending != Spending::Held;
    let leased = || lines.iter().filter(is_leased);
    let twin = |(at, line): (usize, &Line)| {
        let mut before = leased().take(at);
        before.any(|other| other.subject == line.subject && Arc::ptr_eq(&other.budget, &line.budget))
    };
    if leased().enumerate().any(twin) {
        return Ok(());
    }
    // Who only looks asks whether there is anything.
    let least = |line: &Line| if line.amount.is_zero() { LEAST } else { line.amount };
    let wants: Vec<Want<'_>> = leased()
        .map(|line| Want { rule: &line.budget.rule, subject: &line.subject, amount: least(line) })
        .collect();
    let used: Vec<Amount> = leased().map(|line| line.amount).collect();
    let Asking { version, tenant, within, .. } = asking;
    let spent = asking.core.leases.spend(version, tenant, &wants, &used, within).await;
    let spent = spent.map_err(|error| Unspent::Unavailable(error.to_string()))?;
    let places = standings.iter_mut().zip(lines).filter(|(_, line)| is_leased(line));
    for ((standing, _), Left { limit, left, resets_at }) in places.zip(spent.into_iter().flatten()) {
        *standing = Some(Standing { over: false, limit, left, resets_at });
    }
    Ok(())
}

async fn charge(
    asking: Asking<'_>,
    counted: Vec<(usize, &Line)>,
    whole: Vec<(usize, &Line)>,
    alone: Vec<(usize, &Line)>,
    standings: &mut [Option<Standing>],
) -> Result<(), Unspent> {
    for lines in counted.chunks(CHARGES_MAX) {
        at_once(asking, lines.to_vec(), false, standings).await?;
    }
    for line in alone {
        at_once(asking, vec![line], false, standings).await?;
    }
    if !whole.is_empty() {
        at_once(asking, whole, true, standings).await?;
    }
    Ok(())
}

/// Charges lines and waits for nothing more to be said of them.
async fn at_once(
    asking: Asking<'_>,
    mut lines: Vec<(usize, &Line)>,
    whole: bool,
    standings: &mut [Option<Standing>],
) -> Result<(), Unspent> {
    let mut made_room = false;
    for _ in 0..WITHOUT_MAX {
        if lines.is_empty() {
            return Ok(());
        }
        let group = Group::new(lines.clone(), whole);
        let id = asking.core.keeper.new_id();
        let actual = group.charges.iter().map(|charge| charge.amount).collect();
        let settling = Command::Settle { tenant: asking.tenant.to_owned(), id, actual, estimated: false };
        let reserving = asking.reserve(id, group.charges.clone(), CHARGE_TTL_MS);
        let settled = asking.core.keeper.execute(settling.clone(), asking.within);
        let (reserved, settled) = tokio::join!(reserving, settled);
        match reserved? {
            Outcome::Granted(grant) => {
                asking.core.leases.saw(asking.tenant, &grant.balances);
                group.standings(&grant.balances, standings);
                // It came before what it settles.
                if let Ok(Outcome::Refused(Refusal::UnknownReservation { .. })) = settled {
                    asking.execute(settling).await?;
                }
                return Ok(());
            }
            Outcome::Denied(denial) if !made_room && asking.makes_room(&denial).await => made_room = true,
            Outcome::Denied(denial) => {
                group.denied(&denial.account, standings);
                let left = |(number, line): &(usize, &Line)| {
                    standings[*number]
                        .is_none()
                        .then(|| (*number, Line { amount: Amount::ZERO, ..(*line).clone() }))
                };
                let rest: Vec<(usize, Line)> = lines.iter().filter_map(left).collect();
                return Box::pin(look(asking, &rest, &lines, standings)).await;
            }
            Outcome::Refused(refusal) => lines = without(asking, lines, refusal)?,
            other => return Err(unexpected(&other)),
        }
    }
    Ok(())
}

/// Where lines stand that were not charged because another one was short.
async fn look(
    asking: Asking<'_>,
    rest: &[(usize, Line)],
    asked: &[(usize, &Line)],
    standings: &mut [Option<Standing>],
) -> Result<(), Unspent> {
    let lines = rest.iter().map(|(number, line)| (*number, line)).collect();
    at_once(asking, lines, false, standings).await?;
    for (number, line) in asked.iter().filter(|(number, _)| rest.iter().any(|(other, _)| other == number)) {
        if let Some(standing) = &mut standings[*number] {
            standing.over = line.amount > standing.left;
        }
    }
    Ok(())
}

/// Holds all lines, or none.
async fn hold(
    asking: Asking<'_>,
    mut lines: Vec<(usize, &Line)>,
    standings: &mut [Option<Standing>],
) -> Result<Option<Reservation>, Unspent> {
    let mut made_room = false;
    for _ in 0..WITHOUT_MAX {
        if lines.is_empty() {
            return Ok(None);
        }
        let group = Group::new(lines.clone(), true);
        let id = asking.core.keeper.new_id();
        let reserved = asking.reserve(id, group.charges.clone(), asking.reservation_ms).await;
        if reserved.is_err() {
            // It may have been made all the same.
            settle::abandon(asking.core, asking.tenant.to_owned(), id);
        }
        match reserved? {
            Outcome::Granted(grant) => {
                group.standings(&grant.balances, standings);
                let marks = group.charges.iter().map(|charge| mark(&charge.budget)).collect();
                return Ok(Some(Reservation { id, tenant: asking.tenant.to_owned(), marks }));
            }
            Outcome::Denied(denial) if !made_room && asking.makes_room(&denial).await => made_room = true,
            Outcome::Denied(denial) => {
                group.denied(&denial.account, standings);
                let left = |(number, line): &(usize, &Line)| {
                    standings[*number]
                        .is_none()
                        .then(|| (*number, Line { amount: Amount::ZERO, ..(*line).clone() }))
                };
                let rest: Vec<(usize, Line)> = lines.iter().filter_map(left).collect();
                look(asking, &rest, &lines, standings).await?;
                return Ok(None);
            }
            Outcome::Refused(refusal) => lines = without(asking, lines, refusal)?,
            other => return Err(unexpected(&other)),
        }
    }
    Ok(None)
}

/// The lines that are left where one cannot have an account.
fn without<'a>(
    asking: Asking<'_>,
    mut lines: Vec<(usize, &'a Line)>,
    refusal: Refusal,
) -> Result<Vec<(usize, &'a Line)>, Unspent> {
    match &refusal {
        Refusal::TooManyAccounts { budget, .. } => {
            asking.core.metrics.accounts_capped(budget);
            lines.retain(|(_, line)| line.budget.rule.name != *budget);
            Ok(lines)
        }
        Refusal::Invalid(message) => Err(Unspent::Wrong(Mistake(message.clone()))),
        Refusal::UnknownBudget { .. } => Err(Unspent::Outdated(refusal.to_string())),
        other => Err(Unspent::Unavailable(other.to_string())),
    }
}

fn unexpected(outcome: &Outcome) -> Unspent {
    tracing::error!(?outcome, "unexpected answer to a reservation");
    Unspent::Unavailable(
        "the budget nodes gave an answer that this gateway does not know; upgrade it".to_owned(),
    )
}

impl Asking<'_> {
    async fn reserve(self, id: ReservationId, charges: Vec<Charge>, ttl_ms: u64) -> Result<Outcome, Unspent> {
        let tenant = self.tenant.to_owned();
        self.execute(Command::Reserve { tenant, id, charges, ttl_ms, wait: false }).await
    }

    /// What stands in the way of a leased account may be a slice of this process.
    async fn makes_room(self, denial: &Denial) -> bool {
        let (leases, account) = (&self.core.leases, &denial.account);
        leases.saw(self.tenant, std::slice::from_ref(account));
        denial.held_by_reservations && leases.make_room(self.tenant, &account.budget, &account.subject).await
    }

    async fn execute(self, command: Command) -> Result<Outcome, Unspent> {
        let decided = self.core.keeper.execute(command, self.within).await;
        decided.map_err(|error| match error {
            KeeperError::Unavailable { message, .. } | KeeperError::Unknown { message } => {
                Unspent::Unavailable(message)
            }
        })
    }
}
