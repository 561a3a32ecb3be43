//! The words between whoever spends, the book that decides, and the driver that carries out.

use quorate_ledger::{Amount, Balance, BudgetRule, Command, ReservationId, TimestampMs};

/// An amount that a request may need at most, on one account of a tenant.
#[derive(Debug, Clone, Copy)]
pub struct Want<'a> {
    pub rule: &'a BudgetRule,
    pub subject: &'a str,
    pub amount: Amount,
}

/// What one request holds of slices: one line for each [`Want`], in their order. Ended with [`super::Leases::settle`] or
/// [`super::Leases::give_back`]; one that is dropped instead counts as held until its slices expire as charged.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "what is neither settled nor given back is charged when the slice expires"]
pub struct Hold {
    pub(super) shard: usize,
    pub(super) lines: Vec<Line>,
}

impl Hold {
    /// One for each want. Spent and reserved are as the cluster last said, with what this process has spent and holds since:
    /// near the truth, not it.
    pub fn balances(&self, wants: &[Want<'_>]) -> Vec<Balance> {
        let balance = |(line, want): (&Line, &Want<'_>)| line.standing.balance(want, line.amount);
        self.lines.iter().zip(wants).map(balance).collect()
    }

    /// The same after it is settled with `used`, one amount for each want: what an answer can say of its accounts.
    pub fn balances_after(&self, wants: &[Want<'_>], used: &[Amount]) -> Vec<Balance> {
        let ended = self.lines.iter().zip(wants).zip(used);
        ended.map(|((line, want), used)| line.standing_after(*used).balance(want, *used)).collect()
    }
}

/// What is left of an account, as far as it is known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    pub limit: Amount,
    pub left: Amount,
    pub resets_at: Option<TimestampMs>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line {
    /// Number of the account in its book. It stays as long as something is held of it.
    pub account: usize,
    /// Number of the slice in its account.
    pub slice: u64,
    pub amount: Amount,
    pub standing: Standing,
}

impl Line {
    /// When it has ended with `used`.
    pub fn left_after(&self, used: Amount) -> Left {
        let after = self.standing_after(used);
        Left { limit: after.limit, left: after.available(), resets_at: after.resets_at }
    }

    fn standing_after(&self, used: Amount) -> Standing {
        let Standing { spent, reserved, .. } = self.standing;
        let spent = spent.checked_add(used).unwrap_or(Amount::MAX);
        Standing { spent, reserved: reserved.saturating_sub(self.amount), ..self.standing }
    }
}

/// An account as it looks from here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Standing {
    pub limit: Amount,
    pub spent: Amount,
    pub reserved: Amount,
    pub resets_at: Option<TimestampMs>,
}

impl Standing {
    pub fn available(&self) -> Amount {
        self.limit.saturating_sub(self.spent).saturating_sub(self.reserved)
    }

    fn balance(&self, want: &Want<'_>, amount: Amount) -> Balance {
        Balance {
            budget: want.rule.name.clone(),
            subject: want.subject.to_owned(),
            unit: want.rule.unit,
            limit: self.limit,
            spent: self.spent,
            reserved: self.reserved,
            resets_at: self.resets_at,
            amount,
        }
    }
}

impl From<&Balance> for Standing {
    fn from(balance: &Balance) -> Self {
        let Balance { limit, spent, reserved, resets_at, .. } = *balance;
        Self { limit, spent, reserved, resets_at }
    }
}

/// When something happens, on two clocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Now {
    /// This process's own, which never jumps: for ages and deadlines. Milliseconds since any beginning.
    pub local_ms: u64,
    /// The ledger's, as far as it is known here: for the ends of windows.
    pub ledger: TimestampMs,
}

/// How leases behave. The defaults are meant; tests and benchmarks differ.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LeaseSettings {
    /// The longest that a hold lasts, from its taking to its end: of a gateway, that of its reservations.
    pub hold_ms: u64,
    /// A slice gives for so long, then it is settled: so reads are fresh, and a crash costs little.
    pub age_max_ms: u64,
    /// A slice that nobody took from for so long goes back.
    pub idle_ms: u64,
    /// The same two of a slice that is a small part of what is left: reads and others hardly miss it.
    pub far_age_max_ms: u64,
    pub far_idle_ms: u64,
    /// Requests a second on one account from which a slice is worth its price.
    pub rate_min: f64,
    /// Accounts that a process keeps a look at, of one tenant (and those that share its book); the others go the exact way.
    pub accounts_max: usize,
    /// Slices of one account, those that wait for their last hold to end included.
    pub slices_max: usize,
    /// Slices that are being asked for at the same time.
    pub asking_max: usize,
}

impl LeaseSettings {
    /// For holds that end within `hold_ms`.
    pub fn new(hold_ms: u64) -> Self {
        Self {
            hold_ms,
            age_max_ms: 5_000,
            idle_ms: 3_000,
            far_age_max_ms: 60_000,
            far_idle_ms: 30_000,
            // A slice costs as much as one request, and serves what comes until it is too old.
            rate_min: 0.5,
            accounts_max: 32_768,
            slices_max: 1_024,
            asking_max: 2_048,
        }
    }

    /// No hold outlives its slice, which gives for `age_ms`.
    pub fn ttl_ms(&self, age_ms: u64) -> u64 {
        self.hold_ms.saturating_add(age_ms).clamp(1, quorate_ledger::TTL_MAX_MS)
    }
}

/// What came of the question whether slices have room for a request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Taken {
    Held(Vec<Line>),
    /// Not yet: these slices are for this request, and somewhat more. It asks again when they are answered.
    Wait(Vec<Ask>),
    /// The exact way is better.
    #[default]
    Direct,
}

/// What the driver is to do for the book.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Reserve a slice; the book hears of it under the ticket.
    Ask(Ask),
    /// End a slice.
    Return(Return),
}

/// Finds the account and the request for a slice of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    pub account: usize,
    pub slice: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ask {
    pub ticket: Ticket,
    pub tenant: String,
    pub budget: String,
    pub subject: String,
    pub amount: Amount,
    pub at_least: Amount,
    pub ttl_ms: u64,
}

impl Ask {
    pub fn command(&self, id: ReservationId) -> Command {
        let charge = quorate_ledger::Charge {
            budget: self.budget.clone(),
            subject: self.subject.clone(),
            amount: self.amount,
            at_least: self.at_least,
        };
        let tenant = self.tenant.clone();
        Command::Reserve { tenant, id, charges: vec![charge], ttl_ms: self.ttl_ms, wait: false }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Return {
    pub account: usize,
    pub tenant: String,
    pub id: ReservationId,
    /// How much of the ledger the slice was.
    pub amount: Amount,
    pub spent: Amount,
    pub estimated: bool,
    /// After this it is no use any more.
    pub until_ms: u64,
}

impl Return {
    pub fn command(&self) -> Command {
        let (tenant, id) = (self.tenant.clone(), self.id);
        if self.spent.is_zero() {
            return Command::Release { tenant, id };
        }
        Command::Settle { tenant, id, actual: vec![self.spent], estimated: self.estimated }
    }
}
