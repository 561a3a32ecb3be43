//! One account as this process leases it: its pace, the slices that give, and those that only wait for their holds to end.

use std::collections::{BTreeMap, VecDeque};

use quorate_ledger::{
    Amount, Balance, BudgetRule, Grant, ReservationId, TimestampMs, Unit, Window, WindowSpan,
};

use super::pace::{Pace, Size, is_far};
use super::slice::{Life, Slice, spread};
use super::types::{LeaseSettings, Line, Now, Standing};

/// Slices that give at the same time: more are not looked through for one request.
const GIVING_MAX: usize = 8;
/// After a slice that was not granted.
const BACK_OFF_MS: u64 = 500;
const BACK_OFF_MAX_MS: u64 = 8_000;
/// Some accounts ask for the next slice so much earlier than others: those that began together.
const EARLIER_MS: u64 = 2_000;
/// An account that nobody asks for is forgotten.
const FORGET_MS: u64 = 10_000;

#[derive(Debug)]
pub(super) struct Account {
    pub tenant: String,
    pub budget: String,
    pub subject: String,
    pace: Pace,
    /// As the cluster last said.
    seen: Option<Standing>,
    /// Oldest first.
    giving: VecDeque<Slice>,
    /// Those that give no more and have holds, by number.
    ending: BTreeMap<u64, Slice>,
    asking: Option<Asking>,
    /// On their way back.
    pub returning: usize,
    next_number: u64,
    back_off_ms: u64,
    not_before_ms: u64,
    wanted_ms: u64,
    /// Over all slices that are not on their way back.
    leased: Amount,
    spent: Amount,
    held: Amount,
    pub counts: Counts,
}

/// Since the account was last looked at.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub local: u64,
    pub waited: u64,
    pub direct: u64,
    pub granted: u64,
    pub denied: u64,
}

/// A slice to ask the cluster for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub number: u64,
    pub size: Size,
    pub ttl_ms: u64,
}

/// A slice that was asked for.
#[derive(Debug, Clone, Copy)]
struct Asking {
    number: u64,
    version: u64,
    asked_ms: u64,
    ttl_ms: u64,
    life: Life,
    unit: Unit,
    /// The ledger counts it in this window, or the slice is of no use.
    window: WindowSpan,
}

impl Account {
    /// No two accounts of a book have the same slices: they are numbered from `first_number`.
    pub fn new(tenant: &str, budget: &str, subject: &str, first_number: u64, now: Now) -> Self {
        Self {
            tenant: tenant.to_owned(),
            budget: budget.to_owned(),
            subject: subject.to_owned(),
            pace: Pace::new(now.local_ms),
            seen: None,
            giving: VecDeque::new(),
            ending: BTreeMap::new(),
            asking: None,
            returning: 0,
            next_number: first_number,
            back_off_ms: BACK_OFF_MS,
            not_before_ms: 0,
            wanted_ms: now.local_ms,
            leased: Amount::ZERO,
            spent: Amount::ZERO,
            held: Amount::ZERO,
            counts: Counts::default(),
        }
    }

    pub fn wanted(&mut self, amount: Amount, now: Now) {
        self.pace.count(amount, now.local_ms);
        self.wanted_ms = now.local_ms;
    }

    /// From the oldest slice that has room.
    pub fn take(&mut self, index: usize, amount: Amount, version: u64, now: Now) -> Option<Line> {
        let mut giving = self.giving.iter_mut();
        let slice = giving.find(|slice| slice.is_young(version, now) && slice.free() >= amount)?;
        slice.take(amount, now);
        let slice = slice.number;
        self.held = plus(self.held, amount);
        Some(Line { account: index, slice, amount, standing: self.standing() })
    }

    /// What this process holds of slices and no request has taken counts as available: it is, here.
    pub fn standing(&self) -> Standing {
        let seen = self.seen.unwrap_or_default();
        let others = seen.reserved.saturating_sub(self.leased);
        Standing { spent: plus(seen.spent, self.spent), reserved: plus(others, self.held), ..seen }
    }

    pub fn saw(&mut self, balance: &Balance) {
        self.seen = Some(balance.into());
    }

    /// The next slice, ahead of need. `None`: not needed, not worth it, or not now.
    pub fn ask(
        &mut self,
        rule: &BudgetRule,
        version: u64,
        now: Now,
        settings: &LeaseSettings,
    ) -> Option<Asked> {
        if !self.may_ask(now, settings) {
            return None;
        }
        // Its balance may be of a window that is over; then the next answer tells of the new one.
        let seen = self.seen.filter(|seen| is_current(seen, rule, now))?;
        self.pace.advance(now.local_ms);
        let window = rule.span_at(now.ledger);
        let size = self.pace.slice(seen.available(), left_ms(window, now), settings)?;
        // One that is about to be too old is followed by the next in time.
        let fresh = self.giving.iter().filter(|slice| slice.is_fresh(version, now));
        let free = fresh.map(Slice::free).fold(Amount::ZERO, plus);
        let low = self.pace.low(size.amount, spread(self.next_number, EARLIER_MS));
        (free <= low).then(|| self.asks(size, window, rule, version, now, settings))
    }

    /// The slice that a request of this amount asks for itself, having found none. `None`: not worth it, or not now.
    pub fn first(
        &self,
        request: Amount,
        rule: &BudgetRule,
        now: Now,
        settings: &LeaseSettings,
    ) -> Option<Size> {
        if !self.may_ask(now, settings) {
            return None;
        }
        // Of an account, or a window, that is new here all of the limit may be left. The ledger knows.
        let available = match &self.seen {
            Some(seen) if is_current(seen, rule, now) => seen.available(),
            Some(seen) => seen.limit.min(rule.limit),
            None => rule.limit,
        };
        self.pace.first(request, available, left_ms(rule.span_at(now.ledger), now), settings)
    }

    /// One of this size is asked for now.
    pub fn ask_first(
        &mut self,
        size: Size,
        rule: &BudgetRule,
        version: u64,
        now: Now,
        settings: &LeaseSettings,
    ) -> Asked {
        self.asks(size, rule.span_at(now.ledger), rule, version, now, settings)
    }

    fn may_ask(&self, now: Now, settings: &LeaseSettings) -> bool {
        let full = self.giving.len() + self.ending.len() >= settings.slices_max;
        self.asking.is_none() && !full && now.local_ms >= self.not_before_ms
    }

    fn asks(
        &mut self,
        size: Size,
        window: WindowSpan,
        rule: &BudgetRule,
        version: u64,
        now: Now,
        settings: &LeaseSettings,
    ) -> Asked {
        let number = self.next_number;
        self.next_number += 1;
        let life = Life::new(size.far, number, settings);
        let ttl_ms = settings.ttl_ms(life.age_ms);
        let asked_ms = now.local_ms;
        self.asking = Some(Asking { number, version, asked_ms, ttl_ms, life, unit: rule.unit, window });
        Asked { number, size, ttl_ms }
    }

    /// A slice is here. One that can give nothing retires at the next look.
    pub fn granted(&mut self, id: ReservationId, grant: &Grant, now: Now, settings: &LeaseSettings) {
        let (Some(asking), Some(balance)) = (self.asking.take(), grant.balances.first()) else { return };
        self.seen = Some(balance.into());
        self.back_off_ms = BACK_OFF_MS;
        let granted_at = TimestampMs(grant.deadline.0.saturating_sub(asking.ttl_ms));
        let in_window = asking.window.start <= granted_at
            && asking.window.end.is_none_or(|end| granted_at < end)
            && balance.unit == asking.unit;
        // Less may be left than was thought.
        let available = plus(self.seen.unwrap_or_default().available(), balance.amount);
        let near = Life::new(false, asking.number, settings);
        let life = if is_far(balance.amount, available) { asking.life } else { near };
        self.leased = plus(self.leased, balance.amount);
        self.counts.granted += 1;
        self.giving.push_back(Slice {
            number: asking.number,
            id,
            amount: balance.amount,
            spent: Amount::ZERO,
            held: Amount::ZERO,
            holds: 0,
            estimated: false,
            version: asking.version,
            window_end: if in_window { asking.window.end } else { Some(TimestampMs(0)) },
            asked_ms: asking.asked_ms,
            used_ms: now.local_ms,
            deadline_ms: asking.asked_ms.saturating_add(asking.ttl_ms),
            life,
        });
    }

    pub fn is_asking(&self, number: u64) -> bool {
        self.asking.is_some_and(|asking| asking.number == number)
    }

    /// No slice came of it.
    pub fn not_granted(&mut self, now: Now) {
        self.asking = None;
        self.counts.denied += 1;
        self.back_off(now);
    }

    pub fn back_off(&mut self, now: Now) {
        self.not_before_ms = now.local_ms.saturating_add(self.back_off_ms);
        self.back_off_ms = (self.back_off_ms * 2).min(BACK_OFF_MAX_MS);
    }

    /// A hold ends. Slices that are thereby over come back, to be returned.
    pub fn end(&mut self, line: &Line, used: Amount, estimated: bool) -> Option<Slice> {
        let typical = self.pace.typical();
        let position = self.giving.iter().position(|slice| slice.number == line.slice);
        let slice = match position {
            Some(position) => self.giving.get_mut(position),
            None => self.ending.get_mut(&line.slice),
        };
        // Expired long ago, and charged whole.
        let slice = slice?;
        slice.end(line.amount, used, estimated);
        let (holds, left) = (slice.holds, slice.left());
        self.held = self.held.saturating_sub(line.amount);
        self.spent = plus(self.spent, used);
        if holds > 0 {
            return None;
        }
        let over = match position {
            Some(position) if left < typical => self.giving.remove(position),
            Some(_) => None,
            None => self.ending.remove(&line.slice),
        };
        over.map(|slice| self.leave(slice))
    }

    /// Those that have stopped giving. The ones without holds come back, to be returned.
    pub fn retire(&mut self, version: u64, now: Now, all: bool) -> Vec<Slice> {
        let mut over = Vec::new();
        let typical = self.pace.typical();
        let surplus = self.giving.len().saturating_sub(GIVING_MAX);
        for place in 0..self.giving.len() {
            let Some(slice) = self.giving.pop_front() else { break };
            let gives = !all
                && place >= surplus
                && slice.is_young(version, now)
                && !slice.is_idle(now)
                && slice.left() >= typical;
            if gives {
                self.giving.push_back(slice);
            } else if slice.holds == 0 {
                over.push(self.leave(slice));
            } else {
                self.ending.insert(slice.number, slice);
            }
        }
        over
    }

    /// Slices whose holds never ended, and that nobody can say anything of any more.
    pub fn forget_lost(&mut self, now: Now) -> usize {
        let lost = self.ending.extract_if(.., |_, slice| slice.until_ms() <= now.local_ms);
        let lost: Vec<Slice> = lost.map(|(_, slice)| slice).collect();
        for slice in &lost {
            self.leased = self.leased.saturating_sub(slice.amount);
            self.spent = self.spent.saturating_sub(slice.spent);
            self.held = self.held.saturating_sub(slice.held);
        }
        lost.len()
    }

    /// From now on the cluster's to count.
    fn leave(&mut self, slice: Slice) -> Slice {
        self.returning += 1;
        self.leased = self.leased.saturating_sub(slice.amount);
        self.spent = self.spent.saturating_sub(slice.spent);
        if let Some(seen) = &mut self.seen {
            seen.reserved = seen.reserved.saturating_sub(slice.amount);
            seen.spent = plus(seen.spent, slice.spent);
        }
        slice
    }

    /// The cluster has been told what became of a slice, or never will be.
    pub fn returned(&mut self, balance: Option<&Balance>) {
        self.returning = self.returning.saturating_sub(1);
        if let Some(balance) = balance {
            self.seen = Some(balance.into());
        }
    }

    /// Nothing of it is in the cluster or on the way.
    pub fn is_settled(&self) -> bool {
        self.giving.is_empty() && self.ending.is_empty() && self.asking.is_none() && self.returning == 0
    }

    pub fn can_go(&self, now: Now) -> bool {
        self.is_settled() && now.local_ms >= self.wanted_ms.saturating_add(FORGET_MS)
    }

    /// (slices, what of them is not spent)
    pub fn leased(&self) -> (usize, Amount) {
        (self.giving.len() + self.ending.len(), self.leased.saturating_sub(self.spent))
    }
}

/// A balance tells of the window that it was seen in; of a sliding one only more is left by now.
fn is_current(seen: &Standing, rule: &BudgetRule, now: Now) -> bool {
    matches!(rule.window, Window::Sliding { .. }) || seen.resets_at.is_none_or(|end| now.ledger < end)
}

fn left_ms(window: WindowSpan, now: Now) -> u64 {
    window.end.map_or(u64::MAX, |end| end.since(now.ledger))
}

pub(super) fn plus(one: Amount, other: Amount) -> Amount {
    one.checked_add(other).unwrap_or(Amount::MAX)
}
