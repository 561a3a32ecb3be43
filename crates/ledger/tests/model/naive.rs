//! The ledger as one list of facts. Every answer is computed from scratch by walking the list: slow, and simple enough
//! to be believed. It never forgets; where the ledger may have, the caller says so.

use quorate_ledger::{
    Adjustment, Amount, Balance, BudgetRule, CHARGES_MAX, Charge, Command, Denial, FUTURE_SKEW_MAX_MS, Grant,
    Outcome, RETENTION_MS, Refusal, ReservationId, Settlement, TTL_MAX_MS, TimestampMs, Unit, WindowSpan,
};

type Account = (String, String, String);

#[derive(Debug, Clone)]
enum Fact {
    Held {
        id: ReservationId,
        account: Account,
        span: WindowSpan,
        amount: i128,
        limit: i128,
    },
    Charged {
        id: ReservationId,
        account: Account,
        amount: i128,
    },
    Reset {
        account: Account,
        span: WindowSpan,
    },
    ToppedUp {
        account: Account,
        span: WindowSpan,
        amount: i128,
    },
    Overridden {
        account: Account,
        limit: Option<i128>,
    },
    /// The limit as an adjustment left it.
    Seen {
        account: Account,
        span: WindowSpan,
        limit: i128,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub enum State {
    Open,
    Denied(Denial),
    Ended(&'static str),
}

#[derive(Debug, Clone)]
pub struct Record {
    pub tenant: String,
    pub id: ReservationId,
    asked: Command,
    pub state: State,
    first_deadline: u64,
    pub deadline: u64,
    resolved_at: u64,
    /// (account, window, held) of each charge.
    lines: Vec<(Account, WindowSpan, i128)>,
}

#[derive(Debug, Default)]
pub struct Naive {
    pub now: u64,
    version: u64,
    pub rules: Vec<BudgetRule>,
    document: String,
    facts: Vec<Fact>,
    pub records: Vec<Record>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Sums {
    pub spent: i128,
    pub reserved: i128,
    pub overdraft: i128,
    pub topped_up: i128,
    seen_limit: i128,
}

fn amount(value: i128) -> Amount {
    Amount::from_micros(u64::try_from(value).expect("never negative")).expect("never too large")
}

fn micros(amount: Amount) -> i128 {
    i128::from(amount.micros())
}

impl Naive {
    pub fn rule(&self, tenant: &str, budget: &str) -> Option<&BudgetRule> {
        let mine =
            |rule: &&BudgetRule| rule.name == budget && rule.tenant.as_deref().is_none_or(|t| t == tenant);
        self.rules.iter().find(mine)
    }

    pub fn record(&self, tenant: &str, id: ReservationId) -> Option<&Record> {
        self.records.iter().find(|record| record.tenant == tenant && record.id == id)
    }

    /// Resolved so long ago that the ledger may, but need not yet, have forgotten it.
    pub fn may_be_forgotten(&self, tenant: &str, id: ReservationId) -> bool {
        self.record(tenant, id).is_some_and(|record| {
            record.state != State::Open && record.resolved_at + RETENTION_MS + FUTURE_SKEW_MAX_MS < self.now
        })
    }

    pub fn sums(&self, account: &Account, span: WindowSpan) -> Sums {
        let mut sums = Sums::default();
        // (id, held, charged, still held, forgiven)
        let mut lines: Vec<(ReservationId, i128, i128, bool, bool)> = Vec::new();
        for fact in &self.facts {
            match fact {
                Fact::Held { id, account: of, span: at, amount, limit } if of == account && *at == span => {
                    sums.seen_limit = *limit;
                    lines.push((*id, *amount, 0, true, false));
                }
                Fact::Charged { id, account: of, amount } if of == account => {
                    let Some(line) = lines.iter_mut().find(|line| line.0 == *id) else { continue };
                    let change = amount - line.2;
                    let change = if line.4 { change.max(0) } else { change };
                    sums.spent += change;
                    sums.overdraft += (amount - line.1).max(0);
                    (line.2, line.3, line.4) = (*amount, false, false);
                }
                Fact::Reset { account: of, span: at } if of == account && *at == span => {
                    (sums.spent, sums.overdraft) = (0, 0);
                    lines.iter_mut().filter(|line| !line.3).for_each(|line| line.4 = true);
                }
                Fact::ToppedUp { account: of, span: at, amount } if of == account && *at == span => {
                    sums.topped_up += amount;
                }
                Fact::Seen { account: of, span: at, limit } if of == account && *at == span => {
                    sums.seen_limit = *limit;
                }
                _ => {}
            }
        }
        sums.reserved = lines.iter().filter(|line| line.3).map(|line| line.1).sum();
        sums
    }

    fn fresh_limit(&self, account: &Account) -> Option<i128> {
        let rule = self.rule(&account.0, &account.1)?;
        let last = self.facts.iter().rev().find_map(|fact| match fact {
            Fact::Overridden { account: of, limit } if of == account => Some(*limit),
            _ => None,
        });
        Some(last.flatten().unwrap_or(micros(rule.limit)))
    }

    /// As last seen, once the window is over or the budget gone.
    pub fn limit(&self, account: &Account, span: WindowSpan) -> i128 {
        let sums = self.sums(account, span);
        let rule = self.rule(&account.0, &account.1);
        match (rule, self.fresh_limit(account)) {
            (Some(rule), Some(limit)) if rule.window.span_at(TimestampMs(self.now)) == span => {
                limit + sums.topped_up
            }
            _ => sums.seen_limit,
        }
    }

    fn balance(&self, account: &Account, span: WindowSpan, of: i128) -> Balance {
        let sums = self.sums(account, span);
        Balance {
            budget: account.1.clone(),
            subject: account.2.clone(),
            unit: Unit::Tokens,
            limit: amount(self.limit(account, span)),
            spent: amount(sums.spent),
            reserved: amount(sums.reserved),
            resets_at: span.end,
            amount: amount(of),
        }
    }

    fn available(&self, account: &Account, span: WindowSpan) -> i128 {
        let sums = self.sums(account, span);
        (self.limit(account, span) - sums.spent - sums.reserved).max(0)
    }

    /// `forgotten`: the ledger no longer knows the id of this command.
    pub fn apply(&mut self, at: u64, command: &Command, forgotten: bool) -> Outcome {
        self.now = self.now.max(at);
        match self.outcome(command, forgotten) {
            Ok(outcome) => outcome,
            Err(refusal) => Outcome::Refused(refusal),
        }
    }

    fn outcome(&mut self, command: &Command, forgotten: bool) -> Result<Outcome, Refusal> {
        match command {
            Command::PutPolicy { expected_version, rules, document, .. } => {
                if expected_version.is_some_and(|expected| expected != self.version) {
                    let (expected, actual) = (expected_version.unwrap_or_default(), self.version);
                    return Err(Refusal::VersionConflict { expected, actual });
                }
                let changed = self.version == 0 || self.rules != *rules || self.document != *document;
                (self.rules, self.document) = (rules.clone(), document.clone());
                self.version += u64::from(changed);
                Ok(Outcome::PolicyPut { version: self.version, changed })
            }
            Command::Reserve { tenant, id, charges, ttl_ms, .. } => {
                self.reserve(command, tenant, *id, charges, *ttl_ms, forgotten)
            }
            Command::Extend { tenant, id, ttl_ms } => self.extend(tenant, *id, *ttl_ms, forgotten),
            Command::Settle { tenant, id, actual } => self.settle(tenant, *id, actual, forgotten),
            Command::Release { tenant, id } => self.release(tenant, *id, forgotten),
            Command::Expire { tenant, ids } => Ok(self.expire(tenant, ids)),
            Command::AdjustAccount { tenant, id, budget, subject, adjustment, .. } => {
                let account = (tenant.clone(), budget.clone(), subject.clone());
                self.adjust(command, *id, &account, adjustment, forgotten)
            }
            _ => panic!("not modelled"),
        }
    }

    fn fresh_id(&self, id: ReservationId) -> Result<(), Refusal> {
        let made = id.timestamp().0;
        if made + RETENTION_MS < self.now {
            return Err(Refusal::StaleId { id, age_ms: self.now - made });
        }
        if made > self.now + FUTURE_SKEW_MAX_MS {
            return Err(Refusal::FutureId { id, ahead_ms: made - self.now });
        }
        Ok(())
    }

    fn reserve(
        &mut self,
        command: &Command,
        tenant: &str,
        id: ReservationId,
        charges: &[Charge],
        ttl_ms: u64,
        forgotten: bool,
    ) -> Result<Outcome, Refusal> {
        assert!((1..=TTL_MAX_MS).contains(&ttl_ms) && charges.len() <= CHARGES_MAX, "the tables test these");
        if let Some(record) = self.record(tenant, id).filter(|_| !forgotten) {
            if record.asked != *command {
                return Err(Refusal::IdReused { id });
            }
            if let State::Denied(denial) = &record.state {
                return Ok(Outcome::Denied(denial.clone()));
            }
            let held = record.lines.iter().map(|(account, span, held)| self.balance(account, *span, *held));
            let deadline = TimestampMs(record.first_deadline);
            return Ok(Outcome::Granted(Grant { deadline, balances: held.collect() }));
        }
        self.fresh_id(id)?;
        let mut places = Vec::new();
        for charge in charges {
            let (tenant, budget) = (tenant.to_owned(), charge.budget.clone());
            let Some(rule) = self.rule(&tenant, &budget) else {
                return Err(Refusal::UnknownBudget { tenant, budget });
            };
            places
                .push(((tenant, budget, charge.subject.clone()), rule.window.span_at(TimestampMs(self.now))));
        }
        let mut record = Record {
            tenant: tenant.to_owned(),
            id,
            asked: command.clone(),
            state: State::Open,
            first_deadline: self.now + ttl_ms,
            deadline: self.now + ttl_ms,
            resolved_at: self.now,
            lines: Vec::new(),
        };
        for (charge, (account, span)) in charges.iter().zip(&places) {
            if self.available(account, *span) < micros(charge.at_least) {
                let denial = self.denial(charge, account, *span);
                record.state = State::Denied(denial.clone());
                self.records.push(record);
                return Ok(Outcome::Denied(denial));
            }
        }
        for ((charge, (account, span)), granted) in
            charges.iter().zip(&places).zip(self.shares(charges, &places))
        {
            assert!(granted <= micros(charge.amount) && granted >= micros(charge.at_least));
            let limit = self.limit(account, *span);
            self.facts.push(Fact::Held { id, account: account.clone(), span: *span, amount: granted, limit });
            record.lines.push((account.clone(), *span, granted));
        }
        let balances = record.lines.iter().map(|(account, span, held)| self.balance(account, *span, *held));
        let outcome = Grant { deadline: TimestampMs(record.deadline), balances: balances.collect() };
        self.records.push(record);
        Ok(Outcome::Granted(outcome))
    }

    /// The whole, or each charge's part of the tightest one's share.
    fn shares(&self, charges: &[Charge], places: &[(Account, WindowSpan)]) -> Vec<i128> {
        let room = |charge: &Charge| micros(charge.amount) - micros(charge.at_least);
        let short = charges.iter().zip(places).filter_map(|(charge, (account, span))| {
            let free = self.available(account, *span) - micros(charge.at_least);
            (free < room(charge)).then_some((free, room(charge)))
        });
        let tightest = short.reduce(|a, b| if b.0 * a.1 < a.0 * b.1 { b } else { a });
        let (part, whole) = tightest.unwrap_or((1, 1));
        charges.iter().map(|charge| micros(charge.at_least) + room(charge) * part / whole).collect()
    }

    fn denial(&self, charge: &Charge, account: &Account, span: WindowSpan) -> Denial {
        let asked = micros(charge.at_least);
        let held = self.sums(account, span).spent + asked <= self.limit(account, span);
        let mut waits = Vec::new();
        if asked <= self.fresh_limit(account).unwrap_or_default() {
            waits.extend(span.end.map(|end| end.0 - self.now));
        }
        if held {
            let open = self.records.iter().filter(|r| r.tenant == account.0 && r.state == State::Open);
            waits.extend(open.map(|record| record.deadline.saturating_sub(self.now).max(1)));
        }
        Denial {
            account: self.balance(account, span, 0),
            asked: charge.at_least,
            available: amount(self.available(account, span)),
            retry_after_ms: waits.into_iter().min(),
            held_by_reservations: held,
        }
    }

    fn index(&self, tenant: &str, id: ReservationId, forgotten: bool) -> Result<usize, Refusal> {
        let found = self.records.iter().position(|record| record.tenant == tenant && record.id == id);
        found.filter(|_| !forgotten).ok_or(Refusal::UnknownReservation { id })
    }

    fn how(state: &State) -> &'static str {
        match state {
            State::Open => "open",
            State::Denied(_) => "denied",
            State::Ended(how) => how,
        }
    }

    fn extend(
        &mut self,
        tenant: &str,
        id: ReservationId,
        ttl: u64,
        forgotten: bool,
    ) -> Result<Outcome, Refusal> {
        let (index, now) = (self.index(tenant, id, forgotten)?, self.now);
        let record = &mut self.records[index];
        if record.state != State::Open {
            return Err(Refusal::AlreadyResolved { id, how: Self::how(&record.state).into() });
        }
        record.deadline = record.deadline.max(now + ttl);
        Ok(Outcome::Extended { deadline: TimestampMs(record.deadline) })
    }

    fn settle(
        &mut self,
        tenant: &str,
        id: ReservationId,
        actual: &[Amount],
        forgotten: bool,
    ) -> Result<Outcome, Refusal> {
        let index = self.index(tenant, id, forgotten)?;
        let record = self.records[index].clone();
        let granted = matches!(record.state, State::Open | State::Ended("settled" | "released" | "expired"));
        if granted && actual.len() != record.lines.len() {
            let (charges, amounts) = (record.lines.len(), actual.len());
            let message = format!("the reservation has {charges} charges, the settlement {amounts} amounts");
            return Err(Refusal::Invalid(message));
        }
        match record.state {
            State::Open | State::Ended("expired") => self.end(index, "settled", |line| micros(actual[line])),
            State::Ended("settled") if self.charged(&record) == actual => {}
            state => return Err(Refusal::AlreadyResolved { id, how: Self::how(&state).into() }),
        }
        let lines = record.lines.iter().zip(actual);
        let over = |((_, _, held), actual): (&(Account, WindowSpan, i128), &Amount)| {
            amount((micros(*actual) - held).max(0))
        };
        let overdraft = lines.clone().map(over).collect();
        let balances =
            lines.map(|((account, span, _), actual)| self.balance(account, *span, micros(*actual)));
        Ok(Outcome::Settled(Settlement { balances: balances.collect(), overdraft }))
    }

    fn charged(&self, record: &Record) -> Vec<Amount> {
        let last = |account: &Account| {
            self.facts.iter().rev().find_map(|fact| match fact {
                Fact::Charged { id, account: of, amount } if *id == record.id && of == account => {
                    Some(*amount)
                }
                _ => None,
            })
        };
        record.lines.iter().map(|(account, _, _)| amount(last(account).unwrap_or_default())).collect()
    }

    fn end(&mut self, index: usize, how: &'static str, charge: impl Fn(usize) -> i128) {
        let record = &mut self.records[index];
        (record.state, record.resolved_at) = (State::Ended(how), self.now);
        let (id, lines) = (record.id, record.lines.clone());
        for (line, (account, _, _)) in lines.into_iter().enumerate() {
            self.facts.push(Fact::Charged { id, account, amount: charge(line) });
        }
    }

    fn release(&mut self, tenant: &str, id: ReservationId, forgotten: bool) -> Result<Outcome, Refusal> {
        let index = self.index(tenant, id, forgotten)?;
        match self.records[index].state.clone() {
            State::Ended("released") => {}
            State::Open | State::Ended("expired") => self.end(index, "released", |_| 0),
            state => return Err(Refusal::AlreadyResolved { id, how: Self::how(&state).into() }),
        }
        Ok(Outcome::Released)
    }

    fn expire(&mut self, tenant: &str, ids: &[ReservationId]) -> Outcome {
        let mut expired = Vec::new();
        for id in ids {
            let Ok(index) = self.index(tenant, *id, false) else { continue };
            let record = self.records[index].clone();
            if record.state == State::Open && record.deadline <= self.now {
                self.end(index, "expired", |line| record.lines[line].2);
                expired.push(*id);
            }
        }
        Outcome::Expired { ids: expired }
    }

    fn adjust(
        &mut self,
        command: &Command,
        id: ReservationId,
        account: &Account,
        adjustment: &Adjustment,
        forgotten: bool,
    ) -> Result<Outcome, Refusal> {
        if let Some(record) = self.record(&account.0, id).filter(|_| !forgotten) {
            if record.asked != *command {
                return Err(Refusal::IdReused { id });
            }
            let (account, span, _) = &record.lines[0];
            return Ok(Outcome::Adjusted(self.balance(account, *span, 0)));
        }
        self.fresh_id(id)?;
        let (tenant, budget) = (account.0.clone(), account.1.clone());
        let Some(rule) = self.rule(&tenant, &budget) else {
            return Err(Refusal::UnknownBudget { tenant, budget });
        };
        let (span, account) = (rule.window.span_at(TimestampMs(self.now)), account.clone());
        self.facts.push(match adjustment {
            Adjustment::TopUp(more) => {
                Fact::ToppedUp { account: account.clone(), span, amount: micros(*more) }
            }
            Adjustment::Reset => Fact::Reset { account: account.clone(), span },
            Adjustment::OverrideLimit(limit) => {
                Fact::Overridden { account: account.clone(), limit: Some(micros(*limit)) }
            }
            Adjustment::ClearOverride => Fact::Overridden { account: account.clone(), limit: None },
        });
        let limit = self.limit(&account, span);
        self.facts.push(Fact::Seen { account: account.clone(), span, limit });
        let balance = self.balance(&account, span, 0);
        self.records.push(Record {
            tenant: account.0.clone(),
            id,
            asked: command.clone(),
            state: State::Ended("used for an adjustment"),
            first_deadline: self.now,
            deadline: self.now,
            resolved_at: self.now,
            lines: vec![(account, span, 0)],
        });
        Ok(Outcome::Adjusted(balance))
    }
}
