//! Everything of one tenant: its accounts, its open reservations, and what is remembered of the resolved ones.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::account::Account;
use crate::account_key::AccountKey;
use crate::cow_map::CowMap;
use crate::{Amount, Charge, Denial, Enforcement, ReservationId, ReservationView, TenantView, TimestampMs};

/// What a reservation holds, or has charged, on one account.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Line {
    pub account: AccountKey,
    /// The number of the window in which the reservation was made.
    pub window: u32,
    /// The window's reset count when `charged` was booked.
    pub resets: u16,
    /// The budget's when the reservation was made.
    pub enforcement: Enforcement,
    /// What an expiry charges.
    pub held: Amount,
    pub charged: Amount,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Open {
    pub fingerprint: u128,
    /// As first decided: a replay of the Reserve shows it, whatever was extended since.
    pub first_deadline: TimestampMs,
    pub deadline: TimestampMs,
    pub made_at: TimestampMs,
    pub lines: Box<[Line]>,
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum How {
    Denied(Box<Denial>),
    Settled,
    Released,
    Expired,
    /// Not a reservation: an adjustment, remembered under its id.
    Adjusted,
}

impl How {
    pub fn word(&self) -> &'static str {
        match self {
            Self::Denied(_) => "denied",
            Self::Settled => "settled",
            Self::Released => "released",
            Self::Expired => "expired",
            Self::Adjusted => "used for an adjustment",
        }
    }

    /// Its lines are those of a reservation.
    pub fn was_granted(&self) -> bool {
        matches!(self, Self::Settled | Self::Released | Self::Expired)
    }
}

/// Remembered for the retention, so that a replay is recognised.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Resolved {
    pub fingerprint: u128,
    pub how: How,
    /// The first deadline of a reservation.
    pub deadline: TimestampMs,
    pub lines: Box<[Line]>,
    pub forget_at: TimestampMs,
}

/// Counts since the tenant was first seen, and its books in micros.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Totals {
    /// granted = open + settled + released + expired - corrected
    pub granted: u64,
    pub denied: u64,
    pub settled: u64,
    pub released: u64,
    /// Every expiry, also those a late settlement or release corrected.
    pub expired: u64,
    pub corrected: u64,
    /// Held by grants, and no longer held because the reservation was resolved: the difference is what is reserved.
    pub held_micros: u128,
    pub freed_micros: u128,
    /// charged - taken_back - forgiven (by resets) - dropped (with windows out of the history): what is spent.
    pub charged_micros: u128,
    pub taken_back_micros: u128,
    pub forgiven_micros: u128,
    pub dropped_micros: u128,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Tenant {
    pub accounts: CowMap<AccountKey, Account>,
    /// How many of them each budget has.
    pub accounts_by_budget: CowMap<Arc<str>, u32>,
    pub open: CowMap<ReservationId, Open>,
    /// Index of `open` by deadline.
    pub deadlines: CowMap<(TimestampMs, ReservationId), ()>,
    pub resolved: CowMap<ReservationId, Resolved>,
    pub totals: Totals,
}

impl Tenant {
    pub fn is_blank(&self) -> bool {
        self.accounts.is_empty() && self.open.is_empty() && self.resolved.is_empty()
    }

    pub fn accounts_of(&self, budget: &str) -> u32 {
        self.accounts_by_budget.get(budget).copied().unwrap_or(0)
    }

    pub fn add_account(&mut self, key: AccountKey, account: Account) {
        match self.accounts_by_budget.get_mut(key.budget()) {
            Some(count) => *count += 1,
            None => {
                self.accounts_by_budget.insert(key.budget().into(), 1);
            }
        }
        self.accounts.insert(key, account);
    }

    pub fn drop_account(&mut self, key: &AccountKey) {
        let Some(account) = self.accounts.remove(key) else { return };
        self.totals.dropped_micros += account.spent_micros();
        match self.accounts_by_budget.get_mut(key.budget()) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                self.accounts_by_budget.remove(key.budget());
            }
        }
    }

    pub fn open_reservation(&mut self, id: ReservationId, open: Open) {
        self.totals.granted += 1;
        self.totals.held_micros += open.held_micros();
        self.deadlines.insert((open.deadline, id), ());
        self.open.insert(id, open);
    }

    pub fn close_reservation(&mut self, id: ReservationId) -> Option<Open> {
        let open = self.open.remove(&id)?;
        self.totals.freed_micros += open.held_micros();
        self.deadlines.remove(&(open.deadline, id));
        Some(open)
    }

    /// Drops what is remembered of `id`, and its hold on the windows it was charged to.
    pub fn forget(&mut self, id: ReservationId, now: TimestampMs) {
        let Some(resolved) = self.resolved.remove(&id) else { return };
        for line in &resolved.lines {
            let Some(account) = self.accounts.get_mut(&line.account) else { continue };
            if let Some(period) = account.period_mut(line.window) {
                period.references = period.references.saturating_sub(1);
            }
            self.totals.dropped_micros += account.prune(now);
        }
    }

    pub fn due(&self, at: TimestampMs, max: usize) -> Vec<ReservationId> {
        let due = self.deadlines.iter().map(|(key, ())| *key).take_while(|(deadline, _)| *deadline <= at);
        due.map(|(_, id)| id).take(max).collect()
    }

    pub fn next_deadline(&self) -> Option<TimestampMs> {
        self.deadlines.first_key_value().map(|((deadline, _), ())| *deadline)
    }

    pub fn view(&self, name: &str) -> TenantView {
        TenantView {
            name: name.to_owned(),
            accounts: self.accounts.len() as u64,
            open_reservations: self.open.len() as u64,
            granted_total: self.totals.granted,
            denied_total: self.totals.denied,
            expired_total: self.totals.expired,
        }
    }

    pub fn reservation_views<'a>(&'a self, name: &'a str) -> impl Iterator<Item = ReservationView> + 'a {
        self.open.iter().map(move |(id, open)| ReservationView {
            tenant: name.to_owned(),
            id: *id,
            charges: open.lines.iter().map(Line::as_charge).collect(),
            made_at: open.made_at,
            deadline: open.deadline,
        })
    }
}

impl Open {
    fn held_micros(&self) -> u128 {
        self.lines.iter().map(|line| u128::from(line.reserved().micros())).sum()
    }
}

impl Line {
    /// What it holds of the account while it is open: nothing where the budget only counts.
    pub fn reserved(&self) -> Amount {
        if self.enforcement == Enforcement::Count { Amount::ZERO } else { self.held }
    }

    fn as_charge(&self) -> Charge {
        Charge {
            budget: self.account.budget().to_owned(),
            subject: self.account.subject().to_owned(),
            amount: self.held,
            at_least: self.held,
        }
    }
}
