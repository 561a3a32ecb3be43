//! A tenant's accounts by the rules of `jepsen/SEMANTICS.md`, and nothing of how Quorate does it: what an answer must be
//! that is given in this state, and the state after it.
//!
//! Of the ledger's time the history shows only points: what an answer says of it bounds it from below, and it never goes
//! back. An expiry is a step of its own, not before the deadline; so is nothing else. Windows do not end here: budgets of
//! these workloads are for life.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::rc::Rc;

use super::words::{Account as Seen, Answer, Call, Charge, Decision, Denied, Limit, Line, Reason, Snapshot};

/// A replay inside this time gets the first decision.
const RETENTION_MS: u64 = 60_000;
const AHEAD_MAX_MS: u64 = 10_000;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Ask {
    Reserve { charges: Vec<Charge>, ttl_ms: u64 },
    Extend { ttl_ms: u64 },
    Settle { actual: Vec<u64> },
    Release,
    Read,
}

impl Ask {
    pub fn of(f: &str, call: &Call) -> Option<Self> {
        use super::words::{EXTEND, FINAL_READ, READ, RELEASE, RESERVE, SETTLE, STALE_READ};
        Some(match f {
            RESERVE => Self::Reserve { charges: call.charges.clone(), ttl_ms: call.ttl_ms },
            EXTEND => Self::Extend { ttl_ms: call.ttl_ms },
            SETTLE => Self::Settle { actual: call.actual.clone() },
            RELEASE => Self::Release,
            READ | STALE_READ | FINAL_READ => Self::Read,
            _ => return None,
        })
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Account {
    limit: u64,
    spent: u64,
    reserved: u64,
    overdraft: u64,
    estimated: u64,
}

impl Account {
    fn available(self) -> u64 {
        self.limit.saturating_sub(self.spent).saturating_sub(self.reserved)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Status {
    Open,
    Settled,
    Released,
    Expired,
    Denied(DeniedAs),
}

/// [`Denied`], to be hashed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct DeniedAs {
    account: String,
    at: Account,
    asked: u64,
}

/// Not before `from`; at it, if `exact`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Deadline {
    from: u64,
    exact: bool,
}

impl Deadline {
    /// Takes up what an answer says.
    fn is(&mut self, told: u64) -> bool {
        let fits = if self.exact { told == self.from } else { told >= self.from };
        *self = Self { from: told, exact: true };
        fits
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Reservation {
    charges: Vec<Charge>,
    ttl_ms: u64,
    held: Vec<u64>,
    charged: Vec<u64>,
    first: Deadline,
    deadline: Deadline,
    extended: bool,
    status: Status,
    /// It was resolved at this ledger time or later.
    resolved_from: u64,
}

/// Without what its id stands for.
impl Hash for Reservation {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.held, &self.charged, self.first, self.deadline, self.extended).hash(state);
        (&self.status, self.resolved_from).hash(state);
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Tenant {
    /// The ledger's time is this or later.
    time: u64,
    accounts: BTreeMap<Rc<str>, Account>,
    reservations: BTreeMap<Rc<str>, Rc<Reservation>>,
}

impl Tenant {
    pub fn new(limits: &[Limit]) -> Self {
        let account = |limit: &Limit| {
            (limit.account.as_str().into(), Account { limit: limit.limit, ..Account::default() })
        };
        Self { accounts: limits.iter().map(account).collect(), ..Self::default() }
    }

    /// The state after an operation that was answered so; `None`: it cannot be answered so here.
    pub fn answered(&self, id: &str, ask: &Ask, answer: &Answer) -> Option<Self> {
        let mut next = self.clone();
        let fits = match &answer.decision {
            Decision::Refused { reason, how, number } => next.refused(id, ask, *reason, how, *number),
            Decision::Denied(denied) => next.denied(id, ask, denied, answer.index > 0),
            Decision::Extended { deadline_ms } => next.extended(id, ask, *deadline_ms),
            decision => next.take(id, ask) && next.shows(id, ask, decision),
        };
        fits.then_some(next)
    }

    /// Less than [`Tenant::answered`], and quickly: false only if it would be `None`.
    pub fn may_be_answered(&self, id: &str, answer: &Answer) -> bool {
        let known = self.reservations.get(id);
        let at = |line: &Line| self.accounts.get(&*line.account).copied().unwrap_or_default();
        match &answer.decision {
            // Holding something spends nothing.
            Decision::Granted { balances, .. } => balances.iter().all(|line| line.spent == at(line).spent),
            Decision::Settled { balances, .. } => known.is_some_and(|one| {
                let frees = |held: &u64| if one.status == Status::Open { *held } else { 0 };
                balances.len() == one.held.len()
                    && balances
                        .iter()
                        .zip(&one.held)
                        .all(|(line, held)| line.reserved.saturating_add(frees(held)) == at(line).reserved)
            }),
            Decision::Denied(denied) => known.is_some() || stands(&denied.short, at(&denied.short)),
            Decision::Released | Decision::Extended { .. } => known.is_some(),
            Decision::Refused { .. } => true,
        }
    }

    /// The state after an operation of which no answer is known; `None`: it would change nothing. It may have come to pass
    /// before what nobody could tell from it, but not before `since_ms`.
    pub fn unanswered(&self, id: &str, ask: &Ask, since_ms: u64) -> Option<Self> {
        let mut next = self.clone();
        next.time = since_ms.min(self.time);
        let takes_effect = next.take(id, ask) || matches!(ask, Ask::Reserve { .. });
        next.time = self.time;
        (takes_effect && next != *self).then_some(next)
    }

    /// Does a read see this state?
    pub fn read(&self, seen: &Snapshot) -> Option<Self> {
        let mut next = self.clone();
        let fits = |account: &Seen| {
            self.accounts.get(&*account.account).is_some_and(|known| {
                account.limit == known.limit
                    && account.spent == known.spent
                    && account.reserved == known.reserved
                    && account.available == known.available()
                    && account.overdraft == known.overdraft
                    && account.estimated == known.estimated
            })
        };
        // An account appears with its first grant.
        let used = |known: &Account| known.spent > 0 || known.reserved > 0;
        let is_seen = |name: &str| seen.accounts.iter().any(|account| account.account == name);
        let complete = self.accounts.iter().all(|(name, known)| !used(known) || is_seen(name));
        (complete && seen.accounts.iter().all(fits) && next.time_is(seen.time_ms)).then_some(next)
    }

    /// Open reservations, each with the earliest time at which it may expire.
    pub fn open(&self) -> impl Iterator<Item = (&str, u64)> {
        let open = self.reservations.iter().filter(|(_, one)| one.status == Status::Open);
        open.map(|(id, one)| (&**id, one.deadline.from))
    }

    /// What is spent and what is reserved of an account.
    pub fn sums(&self, account: &str) -> (u64, u64) {
        self.accounts.get(account).map_or((0, 0), |account| (account.spent, account.reserved))
    }

    /// What is spent of an account, less what a late word may take back: the charges of those that have expired and that
    /// `may_be_corrected`.
    pub fn surely_spent(&self, account: &str, may_be_corrected: impl Fn(&str) -> bool) -> u64 {
        let spent = self.accounts.get(account).map_or(0, |account| account.spent);
        let expired = self.reservations.iter().filter(|(_, one)| one.status == Status::Expired);
        let back = expired.filter(|(id, _)| may_be_corrected(id)).map(|(_, one)| {
            let charged = one.charges.iter().zip(&one.charged);
            charged.filter(|(charge, _)| charge.account == account).map(|(_, charged)| charged).sum::<u64>()
        });
        spent.saturating_sub(back.sum())
    }

    /// In a word, for a report.
    pub fn status(&self, id: &str) -> &'static str {
        match self.reservations.get(id).map(|one| &one.status) {
            None => "unknown",
            Some(Status::Open) => "open",
            Some(Status::Settled) => "settled",
            Some(Status::Released) => "released",
            Some(Status::Expired) => "expired",
            Some(Status::Denied(_)) => "denied",
        }
    }

    /// The reserved amounts are charged.
    pub fn expired(&self, id: &str) -> Option<Self> {
        let mut next = self.clone();
        let deadline = next.reservations.get(id)?.deadline.from;
        next.time = next.time.max(deadline);
        let held = next.reservations.get(id)?.held.clone();
        next.resolve(id, Status::Expired, &held).then_some(next)
    }

    fn time_is(&mut self, time: u64) -> bool {
        let fits = time >= self.time;
        self.time = time;
        fits
    }

    fn reservation_mut(&mut self, id: &str) -> Option<&mut Reservation> {
        self.reservations.get_mut(id).map(Rc::make_mut)
    }

    /// Carries it out. False: it would be denied or refused here. A denial is remembered all the same.
    fn take(&mut self, id: &str, ask: &Ask) -> bool {
        match ask {
            Ask::Reserve { charges, ttl_ms } => self.reserve(id, charges, *ttl_ms),
            Ask::Extend { ttl_ms } => {
                let from = self.time.saturating_add(*ttl_ms);
                let Some(one) = self.reservation_mut(id).filter(|one| one.status == Status::Open) else {
                    return false;
                };
                one.deadline = Deadline { from: one.deadline.from.max(from), exact: false };
                one.extended = true;
                true
            }
            Ask::Settle { actual } => self.settle(id, actual),
            Ask::Release => match self.reservations.get(id).map(|one| one.status.clone()) {
                Some(Status::Released) => true,
                Some(Status::Open | Status::Expired) => {
                    let nothing = vec![0; self.reservations.get(id).map_or(0, |one| one.held.len())];
                    self.resolve(id, Status::Released, &nothing)
                }
                _ => false,
            },
            Ask::Read => true,
        }
    }

    fn reserve(&mut self, id: &str, charges: &[Charge], ttl_ms: u64) -> bool {
        if let Some(one) = self.reservations.get(id) {
            return one.charges == charges
                && one.ttl_ms == ttl_ms
                && !matches!(one.status, Status::Denied(_));
        }
        let short = self.short(charges);
        let held: Vec<u64> = match short {
            Some(_) => Vec::new(),
            None => self.shares(charges),
        };
        for (charge, amount) in charges.iter().zip(&held) {
            if let Some(account) = self.accounts.get_mut(&*charge.account) {
                account.reserved = account.reserved.saturating_add(*amount);
            }
        }
        let from = Deadline { from: self.time.saturating_add(ttl_ms), exact: false };
        let granted = short.is_none();
        let reservation = Reservation {
            charges: charges.to_vec(),
            ttl_ms,
            charged: vec![0; held.len()],
            held,
            first: from,
            deadline: from,
            extended: false,
            status: short.map_or(Status::Open, Status::Denied),
            resolved_from: self.time,
        };
        self.reservations.insert(id.into(), Rc::new(reservation));
        granted
    }

    /// The first account that has no room for its charge.
    fn short(&self, charges: &[Charge]) -> Option<DeniedAs> {
        charges.iter().find_map(|charge| {
            let at = self.accounts.get(&*charge.account).copied().unwrap_or_default();
            let short = at.available() < charge.at_least;
            short.then(|| DeniedAs { account: charge.account.clone(), at, asked: charge.at_least })
        })
    }

    /// What may shrink shrinks by one share for all, the tightest.
    fn shares(&self, charges: &[Charge]) -> Vec<u64> {
        let (mut part, mut whole) = (1, 1);
        for charge in charges {
            let free = self.accounts.get(&*charge.account).map_or(0, |account| account.available());
            let room = u128::from(charge.amount.saturating_sub(charge.at_least));
            let free = u128::from(free.saturating_sub(charge.at_least));
            if free < room && free * whole < part * room {
                (part, whole) = (free, room);
            }
        }
        let share = |charge: &Charge| {
            let more = u128::from(charge.amount.saturating_sub(charge.at_least)) * part / whole;
            charge.at_least.saturating_add(u64::try_from(more).unwrap_or(u64::MAX))
        };
        charges.iter().map(share).collect()
    }

    fn settle(&mut self, id: &str, actual: &[u64]) -> bool {
        let Some(one) = self.reservations.get(id) else { return false };
        match one.status {
            Status::Settled => one.charged == actual,
            Status::Open | Status::Expired if one.held.len() == actual.len() => {
                self.resolve(id, Status::Settled, actual)
            }
            _ => false,
        }
    }

    /// Ends an open reservation, or corrects an expiry.
    fn resolve(&mut self, id: &str, status: Status, amounts: &[u64]) -> bool {
        let time = self.time;
        let Some(one) = self.reservations.get_mut(id).map(Rc::make_mut) else { return false };
        let was_open = one.status == Status::Open;
        let estimate = status == Status::Expired;
        for (((charge, held), charged), amount) in
            one.charges.iter().zip(&one.held).zip(&mut one.charged).zip(amounts)
        {
            let Some(account) = self.accounts.get_mut(&*charge.account) else { return false };
            if was_open {
                account.reserved = account.reserved.saturating_sub(*held);
            }
            // Only an expiry is ever taken back, and all of it was an estimate.
            account.spent = account.spent.saturating_sub(*charged).saturating_add(*amount);
            let estimated = if estimate { *amount } else { 0 };
            account.estimated = account.estimated.saturating_sub(*charged).saturating_add(estimated);
            account.overdraft = account.overdraft.saturating_add(amount.saturating_sub(*held));
            *charged = *amount;
        }
        (one.status, one.resolved_from) = (status, time);
        true
    }

    /// After [`Tenant::take`]: is this the answer?
    fn shows(&mut self, id: &str, ask: &Ask, decision: &Decision) -> bool {
        let time = self.time;
        let accounts = &self.accounts;
        let Some(one) = self.reservations.get_mut(id).map(Rc::make_mut) else { return false };
        let balances = |amounts: &[u64], lines: &[Line]| {
            lines.len() == one.charges.len()
                && amounts.len() == lines.len()
                && lines.iter().zip(&one.charges).zip(amounts).all(|((line, charge), amount)| {
                    line.account == charge.account
                        && line.amount == *amount
                        && accounts.get(&*line.account).is_some_and(|account| stands(line, *account))
                })
        };
        match (ask, decision) {
            (Ask::Reserve { ttl_ms, .. }, Decision::Granted { deadline_ms, balances: lines }) => {
                let fits = balances(&one.held, lines);
                if !one.extended {
                    one.deadline = Deadline { from: *deadline_ms, exact: true };
                }
                // The first answer tells when it was made; a replay, only that it was made before.
                let fits = fits && one.first.is(*deadline_ms);
                let made = deadline_ms.saturating_sub(*ttl_ms);
                self.time = time.max(made);
                fits
            }
            (Ask::Settle { .. }, Decision::Settled { balances: lines, overdraft }) => {
                let over =
                    one.charged.iter().zip(&one.held).map(|(charged, held)| charged.saturating_sub(*held));
                balances(&one.charged, lines) && over.eq(overdraft.iter().copied())
            }
            (Ask::Release, Decision::Released) => one.status == Status::Released,
            _ => false,
        }
    }

    fn extended(&mut self, id: &str, ask: &Ask, told: u64) -> bool {
        let Ask::Extend { ttl_ms } = ask else { return false };
        let time = self.time;
        let Some(one) = self.reservation_mut(id).filter(|one| one.status == Status::Open) else {
            return false;
        };
        let before = std::mem::replace(&mut one.deadline, Deadline { from: told, exact: true });
        one.extended = true;
        if before.exact && told > before.from {
            // It moved, and so tells the time.
            self.time = time.max(told.saturating_sub(*ttl_ms));
        }
        told >= before.from && told >= time.saturating_add(*ttl_ms)
    }

    fn denied(&mut self, id: &str, ask: &Ask, told: &Denied, in_log: bool) -> bool {
        let Ask::Reserve { charges, ttl_ms } = ask else { return false };
        let expected = match self.reservations.get(id).map(|one| (&one.status, one)) {
            Some((Status::Denied(denied), one)) if one.charges == *charges && one.ttl_ms == *ttl_ms => {
                Some(denied.clone())
            }
            Some(_) => None,
            None => self.short(charges),
        };
        let fits = expected.is_some_and(|denied| {
            denied.account == told.short.account
                && stands(&told.short, denied.at)
                && told.asked == denied.asked
                && told.available == denied.at.available()
                && told.held_by_reservations
                    == (denied.at.spent.saturating_add(denied.asked) <= denied.at.limit)
        });
        if fits && in_log {
            self.reserve(id, charges, *ttl_ms);
        }
        fits
    }

    fn refused(&mut self, id: &str, ask: &Ask, reason: Reason, how: &str, number: u64) -> bool {
        let known = self.reservations.get(id).cloned();
        match (reason, known) {
            (Reason::IdReused, Some(one)) => {
                matches!(ask, Ask::Reserve { charges, ttl_ms } if *charges != one.charges || *ttl_ms != one.ttl_ms)
            }
            (Reason::AlreadyResolved, Some(one)) => {
                let was = match one.status {
                    Status::Open => return false,
                    Status::Settled => "settled",
                    Status::Released => "released",
                    Status::Expired => "expired",
                    Status::Denied(_) => "denied",
                };
                !matches!(ask, Ask::Reserve { .. }) && how == was && !self.clone().take(id, ask)
            }
            (Reason::UnknownReservation, known) => {
                !matches!(ask, Ask::Reserve { .. }) && known.is_none_or(|one| self.forgets(id, &one))
            }
            (Reason::StaleId, known) => {
                let made = id_time_ms(id);
                number > RETENTION_MS
                    && known.is_none_or(|one| self.forgets(id, &one))
                    && made.is_some_and(|made| self.time_is(made.saturating_add(number)))
            }
            (Reason::FutureId, None) => {
                let made = id_time_ms(id);
                number > AHEAD_MAX_MS && made.is_some_and(|made| self.time_is(made.saturating_sub(number)))
            }
            _ => false,
        }
    }

    /// So it is later than the retention after its end.
    fn forgets(&mut self, id: &str, one: &Reservation) -> bool {
        if one.status == Status::Open {
            return false;
        }
        self.time = self.time.max(one.resolved_from.saturating_add(RETENTION_MS));
        self.reservations.remove(id);
        true
    }
}

fn stands(line: &Line, account: Account) -> bool {
    line.limit == account.limit && line.spent == account.spent && line.reserved == account.reserved
}

/// The time inside a UUIDv7.
fn id_time_ms(id: &str) -> Option<u64> {
    let digits: String = id.chars().filter(|digit| *digit != '-').take(12).collect();
    u64::from_str_radix(&digits, 16).ok()
}
