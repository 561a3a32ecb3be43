//! Charges lines to their accounts: all spending of the service is here.
//!
//! A check that charges at once is a Reserve with its Settle right behind it, under one id and in one commit. Where hits
//! count whether there is room or not, the Reserve takes what there is (`at_least` zero) and the Settle charges the rest as
//! overdraft; what the Reserve saw says who was within the limit, so of parallel calls no two take the same room. Leased
//! accounts are spent from slices that are here already, where these suffice.
//!
//! What is all or nothing is so together: what is held first, then what is charged at once; once a call is refused, the
//! rest is only looked at. A quota that is short does not refuse, unless all are: it is left out and the others asked again.

use std::sync::Arc;
use std::time::Duration;

use quorate_ledger::{
    Amount, Balance, CHARGES_MAX, Charge, Command, Denial, Outcome, Refusal, ReservationId,
};
use quorate_policy::runtime::Spending;
use quorate_rpc::lease::{Left, Want};

use super::ending::{self, Place};
use super::group::{Group, How, LEAST, Standing};
use super::question::{Line, Mistake};
use super::reservation::{HeldLine, Reservation, mark};
use crate::budget::KeeperError;
use crate::core::Core;
use crate::settle;

/// Between a Reserve and the Settle behind it nothing takes as long.
const CHARGE_TTL_MS: u64 = 10_000;

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
    /// What outlives the call keeps it.
    pub place: &'a Place,
    pub tenant: &'a str,
    /// Of the policy that the lines are from.
    pub version: u64,
    pub within: Duration,
    pub reservation_ms: u64,
    /// What is held may be held from slices of this process.
    pub hold_from_leases: bool,
    /// Nothing is refused: `shadow_mode` of the gateway.
    pub shadow: bool,
    /// It is already, by a descriptor that has no line.
    pub refused: bool,
}

/// Lines of one operation, by their numbers.
type Numbered<'a> = Vec<(usize, &'a Line)>;

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
    for (number, line) in lines.iter().enumerate() {
        match line.spending {
            _ if standings[number].is_some() => {}
            Spending::Held => held.push((number, line)),
            _ if line.amount.is_zero() => counted.push((number, line)),
            Spending::Count => counted.push((number, line)),
            Spending::Whole | Spending::Lease => whole.push((number, line)),
        }
    }
    let reservation = if held.is_empty() { None } else { hold(asking, lines, held, standings).await? };
    let charged = charge(asking, lines, counted, whole, standings).await;
    if let Err(unspent) = charged {
        if let Some(made) = reservation {
            ending::give_back(asking.core, made);
        }
        return Err(unspent);
    }
    let standings = standings.iter().zip(lines);
    let standings = standings.map(|(known, line)| known.unwrap_or_else(|| Standing::without_account(line)));
    Ok(Spent { standings: standings.collect(), held: reservation })
}

/// What slices of leased accounts can bear, all of it or nothing: of those that this process holds without a round trip,
/// else of those that this call takes. What is held for later is not among it (see [`hold_locally`]); nor is what is all or
/// nothing together with lines that no slice can bear.
async fn local(
    asking: Asking<'_>,
    lines: &[Line],
    standings: &mut [Option<Standing>],
) -> Result<(), Unspent> {
    let no_slice = |line: &Line| match line.spending {
        Spending::Held | Spending::Whole => true,
        Spending::Lease => !line.is_leased(),
        Spending::Count => false,
    };
    let with_others = asking.refused || lines.iter().any(no_slice);
    let is_leased = |line: &&Line| {
        let may = match line.spending {
            Spending::Count => true,
            Spending::Lease | Spending::Whole => !with_others || line.amount.is_zero(),
            Spending::Held => false,
        };
        may && line.is_leased()
    };
    let leased = || lines.iter().filter(is_leased);
    let twin = |(at, line): (usize, &Line)| leased().take(at).any(|other| other.is_twin_of(line));
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
        *standing = Some(Standing { over: false, limit, left, within: Amount::ZERO, resets_at });
    }
    Ok(())
}

/// By what is known so far: what is all or nothing in this call is not charged.
fn is_refused(asking: Asking<'_>, lines: &[Line], standings: &[Option<Standing>]) -> bool {
    let is_over = |(line, standing): (&Line, &Option<Standing>)| {
        line.binds() && standing.is_some_and(|standing| standing.over)
    };
    let known = || lines.iter().zip(standings);
    let refuses = |line: &Line| line.spending != Spending::Count && !line.quota;
    let mut quotas = known().filter(|(line, _)| line.quota).peekable();
    let no_quota_left = quotas.peek().is_some() && quotas.all(is_over);
    !asking.shadow
        && (asking.refused || no_quota_left || known().filter(|(line, _)| refuses(line)).any(is_over))
}

async fn charge(
    asking: Asking<'_>,
    all: &[Line],
    counted: Numbered<'_>,
    whole: Numbered<'_>,
    standings: &mut [Option<Standing>],
) -> Result<(), Unspent> {
    for lines in counted.chunks(CHARGES_MAX) {
        at_once(asking, all, lines.to_vec(), How::Count, standings).await?;
    }
    if whole.is_empty() {
        return Ok(());
    }
    let how = if is_refused(asking, all, standings) { How::Look } else { How::Whole };
    at_once(asking, all, whole, how, standings).await
}

/// Charges lines and waits for nothing more to be said of them.
async fn at_once(
    asking: Asking<'_>,
    all: &[Line],
    mut lines: Numbered<'_>,
    mut how: How,
    standings: &mut [Option<Standing>],
) -> Result<(), Unspent> {
    let mut made_room = false;
    while !lines.is_empty() {
        let group = Group::new(&lines, how);
        let id = asking.core.keeper.new_id();
        let actual = group.charges.iter().map(|charge| charge.amount).collect();
        let settling = Command::Settle { tenant: asking.tenant.to_owned(), id, actual, estimated: false };
        let reserving = asking.reserve(id, group.charges.clone(), CHARGE_TTL_MS);
        let settled = asking.core.keeper.execute(settling.clone(), asking.within);
        let (reserved, mut settled) = tokio::join!(reserving, settled);
        match reserved? {
            Outcome::Granted(grant) => {
                asking.core.leases.saw(asking.tenant, &grant.balances);
                group.standings(&grant.balances, standings);
                // It came before what it settles.
                if let Ok(Outcome::Refused(Refusal::UnknownReservation { .. })) = settled {
                    settled = asking.core.keeper.execute(settling.clone(), asking.within).await;
                }
                if !matches!(settled, Ok(Outcome::Settled(_))) {
                    ending::settle_again(asking.core, asking.place, id, settling);
                }
                return Ok(());
            }
            Outcome::Denied(denial) if !made_room && asking.makes_room(&denial).await => {
                made_room = true;
                continue;
            }
            Outcome::Denied(denial) => group.denied(&denial.account, standings),
            Outcome::Refused(refusal) => {
                let others = asking.without_account(&lines, refusal)?;
                // One of several accounts cannot be made; those that are there count.
                if how != How::Whole && others.iter().any(|line| line.1.subject != others[0].1.subject) {
                    for line in others {
                        Box::pin(at_once(asking, all, vec![line], how, standings)).await?;
                    }
                } else {
                    none_left(&others, standings);
                }
            }
            other => return Err(unexpected(&other)),
        }
        made_room = false;
        keep_unknown(&mut lines, standings)?;
        if how == How::Whole && is_refused(asking, all, standings) {
            how = How::Look;
        }
    }
    Ok(())
}

/// Holds all lines, or none. A quota that is short is left out.
async fn hold(
    asking: Asking<'_>,
    all: &[Line],
    mut lines: Numbered<'_>,
    standings: &mut [Option<Standing>],
) -> Result<Option<Reservation>, Unspent> {
    let how = if asking.shadow { How::HoldSome } else { How::Hold };
    if let Some(reservation) = hold_locally(asking, &lines, how, standings).await? {
        return Ok(Some(reservation));
    }
    let mut made_room = false;
    while !lines.is_empty() {
        let group = Group::new(&lines, how);
        let id = asking.core.keeper.new_id();
        let reserved = asking.reserve(id, group.charges.clone(), asking.reservation_ms).await;
        if let Err(KeeperError::Unknown { .. }) = reserved {
            // It may have been made all the same.
            settle::abandon(asking.core, asking.tenant.to_owned(), id);
        }
        match reserved? {
            Outcome::Granted(grant) => {
                asking.core.leases.saw(asking.tenant, &grant.balances);
                group.standings(&grant.balances, standings);
                return Ok(Some(asking.reservation(id, &grant.balances, false)));
            }
            Outcome::Denied(denial) if !made_room && asking.makes_room(&denial).await => {
                made_room = true;
                continue;
            }
            Outcome::Denied(denial) => group.denied(&denial.account, standings),
            Outcome::Refused(refusal) => {
                none_left(&asking.without_account(&lines, refusal)?, standings);
            }
            other => return Err(unexpected(&other)),
        }
        made_room = false;
        keep_unknown(&mut lines, standings)?;
        if is_refused(asking, all, standings) {
            at_once(asking, all, lines, How::Look, standings).await?;
            return Ok(None);
        }
    }
    Ok(None)
}

/// Holds all of it from slices of this process, or nothing.
async fn hold_locally(
    asking: Asking<'_>,
    lines: &Numbered<'_>,
    how: How,
    standings: &mut [Option<Standing>],
) -> Result<Option<Reservation>, Unspent> {
    let Asking { core, version, tenant, within, .. } = asking;
    let is_off = !asking.hold_from_leases || core.local_holds.is_full();
    if is_off || !lines.iter().all(|(_, line)| line.is_leased()) {
        return Ok(None);
    }
    let group = Group::new(lines, how);
    let wants = group.wants();
    let taken = core.leases.take_or_wait(version, tenant, &wants, within).await;
    let taken = taken.map_err(|error| Unspent::Unavailable(error.to_string()))?;
    let Some(hold) = taken else { return Ok(None) };
    let balances = hold.balances(&wants);
    group.held(&balances, standings);
    let reservation = asking.reservation(core.keeper.new_id(), &balances, true);
    let whole = |charge: Charge| Charge { at_least: charge.amount, ..charge };
    core.local_holds.keep(reservation.clone(), group.charges.into_iter().map(whole).collect(), hold);
    Ok(Some(reservation))
}

/// Lines that cannot have an account are known by that.
fn none_left(lines: &[(usize, &Line)], standings: &mut [Option<Standing>]) {
    for (number, line) in lines {
        standings[*number] = Some(Standing::without_account(line));
    }
}

/// The lines that are to be asked for once more: fewer than before.
fn keep_unknown(lines: &mut Numbered<'_>, standings: &[Option<Standing>]) -> Result<(), Unspent> {
    let before = lines.len();
    lines.retain(|(number, _)| standings[*number].is_none());
    if lines.len() == before {
        return Err(Unspent::Unavailable(
            "the budget nodes spoke of an account that was not asked for; upgrade this gateway".to_owned(),
        ));
    }
    Ok(())
}

fn unexpected(outcome: &Outcome) -> Unspent {
    tracing::error!(?outcome, "unexpected answer to a reservation");
    Unspent::Unavailable(
        "the budget nodes gave an answer that this gateway does not know; upgrade it".to_owned(),
    )
}

impl Asking<'_> {
    async fn reserve(
        self,
        id: ReservationId,
        charges: Vec<Charge>,
        ttl_ms: u64,
    ) -> Result<Outcome, KeeperError> {
        let tenant = self.tenant.to_owned();
        let command = Command::Reserve { tenant, id, charges, ttl_ms, wait: false };
        self.core.keeper.execute(command, self.within).await
    }

    /// One of what is held now, as `balances` say it.
    fn reservation(self, id: ReservationId, balances: &[Balance], leased: bool) -> Reservation {
        let line = |balance: &Balance| HeldLine {
            mark: mark(&balance.budget, &balance.subject),
            held: balance.amount,
        };
        let lines = balances.iter().map(line).collect();
        Reservation { id, tenant: self.tenant.to_owned(), lines, leased }
    }

    /// What stands in the way of a leased account may be a slice of this process.
    async fn makes_room(self, denial: &Denial) -> bool {
        let (leases, account) = (&self.core.leases, &denial.account);
        leases.saw(self.tenant, std::slice::from_ref(account));
        denial.held_by_reservations && leases.make_room(self.tenant, &account.budget, &account.subject).await
    }

    /// Those of the budget of which there is no account left; every other refusal is an error.
    fn without_account<'a>(self, lines: &Numbered<'a>, refusal: Refusal) -> Result<Numbered<'a>, Unspent> {
        match &refusal {
            Refusal::TooManyAccounts { budget, .. } => {
                self.core.metrics.accounts_capped(budget);
                Ok(lines.iter().filter(|(_, line)| line.is_of(budget)).copied().collect())
            }
            Refusal::Invalid(message) => Err(Unspent::Wrong(Mistake(message.clone()))),
            Refusal::UnknownBudget { .. } => Err(Unspent::Outdated(refusal.to_string())),
            other => Err(Unspent::Unavailable(other.to_string())),
        }
    }
}

impl From<KeeperError> for Unspent {
    fn from(error: KeeperError) -> Self {
        match error {
            KeeperError::Unavailable { message, .. } | KeeperError::Unknown { message } => {
                Self::Unavailable(message)
            }
        }
    }
}
