//! Everything of one tenant: its accounts, its open reservations, and what is remembered of the resolved ones.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::account::{Account, AccountKey};
use crate::cow_map::CowMap;
use crate::{Amount, Charge, Denial, ReservationId, ReservationView, TenantView, TimestampMs, WindowSpan};

/// What a reservation holds, or has charged, on one account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Line {
    pub account: Arc<AccountKey>,
    /// The window in which the reservation was made.
    pub span: WindowSpan,
    pub held: Amount,
    pub charged: Amount,
    /// The account's reset count when `charged` was booked.
    pub resets: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Open {
    pub fingerprint: u64,
    /// As first decided: a replay of the Reserve shows it, whatever was extended since.
    pub first_deadline: TimestampMs,
    pub deadline: TimestampMs,
    pub made_at: TimestampMs,
    pub lines: Box<[Line]>,
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// Remembered for the retention, so that a replay is recognised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Resolved {
    pub fingerprint: u64,
    pub how: How,
    pub deadline: TimestampMs,
    pub lines: Box<[Line]>,
    pub forget_at: TimestampMs,
}

/// Counts since the tenant was first seen. granted = open + settled + released + expired - corrected.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Totals {
    pub granted: u64,
    pub denied: u64,
    pub settled: u64,
    pub released: u64,
    /// Every expiry, also those a late settlement corrected.
    pub expired: u64,
    /// Expiries that a late settlement or release corrected.
    pub corrected: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tenant {
    pub accounts: CowMap<AccountKey, Account>,
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

    pub fn open_reservation(&mut self, id: ReservationId, open: Open) {
        self.totals.granted += 1;
        self.deadlines.insert((open.deadline, id), ());
        self.open.insert(id, open);
    }

    pub fn close_reservation(&mut self, id: ReservationId) -> Option<Open> {
        let open = self.open.remove(&id)?;
        self.deadlines.remove(&(open.deadline, id));
        Some(open)
    }

    /// Drops what is remembered of `id`, and its hold on the windows it was charged to.
    pub fn forget(&mut self, id: ReservationId) {
        let Some(resolved) = self.resolved.remove(&id) else { return };
        for line in &resolved.lines {
            if let Some(account) = self.accounts.get_mut(&line.account) {
                if let Some(period) = account.period_mut(line.span) {
                    period.references = period.references.saturating_sub(1);
                }
                account.prune();
            }
        }
    }

    pub fn due(&self, at: TimestampMs, max: usize) -> Vec<ReservationId> {
        self.deadlines
            .iter()
            .map(|(key, ())| *key)
            .take_while(|(deadline, _)| *deadline <= at)
            .map(|(_, id)| id)
            .take(max)
            .collect()
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

impl Line {
    fn as_charge(&self) -> Charge {
        Charge {
            budget: self.account.budget.to_string(),
            subject: self.account.subject.to_string(),
            amount: self.held,
            at_least: self.held,
        }
    }
}

/// FNV-1a over the fields of a request: tells a replay from another request under the same id. Not a defence against
/// an attacker, who could simply send the same fields.
#[derive(Debug)]
pub(crate) struct Fingerprint(u64);

impl Fingerprint {
    pub fn of_reserve(charges: &[Charge], ttl_ms: u64) -> u64 {
        let mut hash = Self::new(b"reserve");
        hash.number(ttl_ms);
        for charge in charges {
            hash.text(&charge.budget);
            hash.text(&charge.subject);
            hash.number(charge.amount.micros());
            hash.number(charge.at_least.micros());
        }
        hash.0
    }

    pub fn new(kind: &[u8]) -> Self {
        let mut hash = Self(0xcbf2_9ce4_8422_2325);
        hash.bytes(kind);
        hash
    }

    pub fn finish(self) -> u64 {
        self.0
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub fn number(&mut self, number: u64) {
        self.bytes(&number.to_le_bytes());
    }

    /// With its length, so that no two lists of texts run into each other.
    pub fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.bytes(text.as_bytes());
    }
}
