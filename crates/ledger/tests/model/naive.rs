//! The ledger as one list of facts. Every answer is computed from scratch by walking the list: slow, and simple enough
//! to be believed. It never forgets; where the ledger may have, the caller says so.

use quorate_ledger::{
    Adjustment, Amount, BudgetRule, CHARGES_MAX, Charge, Command, Denial, Enforcement, FUTURE_SKEW_MAX_MS,
    Grant, Outcome, RETENTION_MS, Refusal, ReservationId, Settlement, TTL_MAX_MS, TimestampMs, WindowSpan,
};

use super::facts::{Account, Fact, Facts, Place, amount, micros};

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
    lines: Vec<Place>,
}

#[derive(Debug, Default)]
pub struct Naive {
    pub facts: Facts,
    version: u64,
    document: String,
    pub records: Vec<Record>,
}

/// Whether it waits is no part of a request.
fn asked(command: &Command) -> Command {
    let mut asked = command.clone();
    if let Command::Reserve { wait, .. } = &mut asked {
        *wait = false;
    }
    asked
}

impl Naive {
    pub fn record(&self, tenant: &str, id: ReservationId) -> Option<&Record> {
        self.records.iter().find(|record| record.tenant == tenant && record.id == id)
    }

    /// Resolved so long ago that the ledger may, but need not yet, have forgotten it.
    pub fn may_be_forgotten(&self, tenant: &str, id: ReservationId) -> bool {
        self.record(tenant, id).is_some_and(|record| {
            record.state != State::Open
                && record.resolved_at + RETENTION_MS + FUTURE_SKEW_MAX_MS < self.facts.now
        })
    }

    /// `forgotten`: the ledger no longer knows the id of this command.
    pub fn apply(&mut self, at: u64, command: &Command, forgotten: bool) -> Outcome {
        self.facts.now = self.facts.now.max(at);
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
                let changed = self.version == 0 || self.facts.rules != *rules || self.document != *document;
                (self.facts.rules, self.document) = (rules.clone(), document.clone());
                self.version += u64::from(changed);
                Ok(Outcome::PolicyPut { version: self.version, changed })
            }
            Command::Reserve { tenant, id, charges, ttl_ms, wait } => {
                let known = !forgotten && self.record(tenant, *id).is_some();
                let outcome = self.reserve(command, tenant, *id, charges, *ttl_ms, forgotten);
                if let Ok(Outcome::Denied(denial)) = &outcome
                    && *wait
                    && !known
                    && denial.held_by_reservations
                {
                    self.records.retain(|record| record.tenant != *tenant || record.id != *id);
                }
                outcome
            }
            Command::Extend { tenant, id, ttl_ms } => self.extend(tenant, *id, *ttl_ms, forgotten),
            Command::Settle { tenant, id, actual, estimated } => {
                self.settle(tenant, *id, actual, *estimated, forgotten)
            }
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
        if made + RETENTION_MS < self.facts.now {
            return Err(Refusal::StaleId { id, age_ms: self.facts.now - made });
        }
        if made > self.facts.now + FUTURE_SKEW_MAX_MS {
            return Err(Refusal::FutureId { id, ahead_ms: made - self.facts.now });
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
            if record.asked != asked(command) {
                return Err(Refusal::IdReused { id });
            }
            if let State::Denied(denial) = &record.state {
                return Ok(Outcome::Denied(denial.clone()));
            }
            let balances =
                record.lines.iter().map(|line| self.facts.balance(&line.account, line.span, line.held));
            let deadline = TimestampMs(record.first_deadline);
            return Ok(Outcome::Granted(Grant { deadline, balances: balances.collect() }));
        }
        self.fresh_id(id)?;
        let mut places = Vec::new();
        for charge in charges {
            let (rule, span) = self.place(tenant, &charge.budget)?;
            let enforcement = rule.enforcement;
            let account = (tenant.to_owned(), charge.budget.clone(), charge.subject.clone());
            places.push(Place { account, span, enforcement, held: 0 });
        }
        let accounts: Vec<&Account> = places.iter().map(|place| &place.account).collect();
        self.room(&accounts)?;
        let mut record = Record {
            tenant: tenant.to_owned(),
            id,
            asked: asked(command),
            state: State::Open,
            first_deadline: self.facts.now + ttl_ms,
            deadline: self.facts.now + ttl_ms,
            resolved_at: self.facts.now,
            lines: Vec::new(),
        };
        for (charge, place) in charges.iter().zip(&places) {
            if self.facts.is_short(charge, place) {
                let denial = self.facts.denial(charge, place, &self.deadlines(tenant));
                record.state = State::Denied(denial.clone());
                self.records.push(record);
                return Ok(Outcome::Denied(denial));
            }
        }
        let shares = self.shares(charges, &places);
        for ((charge, mut place), granted) in charges.iter().zip(places).zip(shares) {
            assert!(granted <= micros(charge.amount) && granted >= micros(charge.at_least));
            let (account, span, enforcement) = (place.account.clone(), place.span, place.enforcement);
            self.facts.open(&account, span);
            let limit = self.facts.limit(&account, span);
            let short = enforcement == Enforcement::Shadow
                && self.facts.available(&account, span) < micros(charge.at_least);
            self.facts.list.push(Fact::Held {
                id,
                account,
                span,
                amount: granted,
                limit,
                enforcement,
                short,
            });
            place.held = granted;
            record.lines.push(place);
        }
        let balances =
            record.lines.iter().map(|line| self.facts.balance(&line.account, line.span, line.held));
        let outcome = Grant { deadline: TimestampMs(record.deadline), balances: balances.collect() };
        self.records.push(record);
        Ok(Outcome::Granted(outcome))
    }

    fn place(&self, tenant: &str, budget: &str) -> Result<(&BudgetRule, WindowSpan), Refusal> {
        let (tenant, budget) = (tenant.to_owned(), budget.to_owned());
        match self.facts.rule(&tenant, &budget) {
            Some(rule) => Ok((rule, rule.span_at(TimestampMs(self.facts.now)))),
            None => Err(Refusal::UnknownBudget { tenant, budget }),
        }
    }

    /// The budget with a bound is a lifetime one, whose accounts never go.
    fn room(&self, wanted: &[&Account]) -> Result<(), Refusal> {
        let mut there: Vec<Account> = Vec::new();
        for (tenant, budget, subject) in wanted {
            let max = self.facts.rule(tenant, budget).map_or(0, |rule| rule.accounts_max);
            if max == 0 {
                continue;
            }
            there.extend(self.facts.accounts(tenant, budget));
            there.push((tenant.clone(), budget.clone(), subject.clone()));
            there.sort();
            there.dedup();
            if there.len() > max as usize {
                let (tenant, budget) = (tenant.clone(), budget.clone());
                return Err(Refusal::TooManyAccounts { tenant, budget, max: u64::from(max) });
            }
        }
        Ok(())
    }

    fn deadlines(&self, tenant: &str) -> Vec<u64> {
        let open = self.records.iter().filter(|r| r.tenant == tenant && r.state == State::Open);
        open.map(|record| record.deadline).collect()
    }

    /// The whole, or each charge's part of the tightest one's share.
    fn shares(&self, charges: &[Charge], places: &[Place]) -> Vec<i128> {
        let room = |charge: &Charge| micros(charge.amount) - micros(charge.at_least);
        let binding = charges.iter().zip(places).filter(|(_, at)| at.enforcement.binds());
        let short = binding.filter_map(|(charge, place)| {
            let free = self.facts.available(&place.account, place.span) - micros(charge.at_least);
            (free < room(charge)).then_some((free, room(charge)))
        });
        let tightest = short.reduce(|a, b| if b.0 * a.1 < a.0 * b.1 { b } else { a });
        let (part, whole) = tightest.unwrap_or((1, 1));
        charges.iter().map(|charge| micros(charge.at_least) + room(charge) * part / whole).collect()
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
        let (index, now) = (self.index(tenant, id, forgotten)?, self.facts.now);
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
        estimated: bool,
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
            State::Open | State::Ended("expired") => {
                self.end(index, "settled", estimated, |line| micros(actual[line]));
            }
            State::Ended("settled") if self.charged(&record) == actual => {}
            state => return Err(Refusal::AlreadyResolved { id, how: Self::how(&state).into() }),
        }
        let lines = record.lines.iter().zip(actual);
        let overdraft =
            lines.clone().map(|(line, actual)| amount((micros(*actual) - line.held).max(0))).collect();
        let balances = lines
            .map(|(line, actual)| self.facts.balance(&line.account, line.span, micros(*actual)))
            .collect();
        Ok(Outcome::Settled(Settlement { balances, overdraft }))
    }

    fn charged(&self, record: &Record) -> Vec<Amount> {
        let last = |account: &Account| {
            self.facts.list.iter().rev().find_map(|fact| match fact {
                Fact::Charged { id, account: of, amount, .. } if *id == record.id && of == account => {
                    Some(*amount)
                }
                _ => None,
            })
        };
        record.lines.iter().map(|line| amount(last(&line.account).unwrap_or_default())).collect()
    }

    fn end(&mut self, index: usize, how: &'static str, estimated: bool, charge: impl Fn(usize) -> i128) {
        let record = &mut self.records[index];
        (record.state, record.resolved_at) = (State::Ended(how), self.facts.now);
        let (id, lines) = (record.id, record.lines.clone());
        for (index, line) in lines.iter().enumerate() {
            self.facts.charge(id, line, charge(index), estimated);
        }
    }

    fn release(&mut self, tenant: &str, id: ReservationId, forgotten: bool) -> Result<Outcome, Refusal> {
        let index = self.index(tenant, id, forgotten)?;
        match self.records[index].state.clone() {
            State::Ended("released") => {}
            State::Open | State::Ended("expired") => self.end(index, "released", false, |_| 0),
            state => return Err(Refusal::AlreadyResolved { id, how: Self::how(&state).into() }),
        }
        Ok(Outcome::Released)
    }

    fn expire(&mut self, tenant: &str, ids: &[ReservationId]) -> Outcome {
        let mut expired = Vec::new();
        for id in ids {
            let Ok(index) = self.index(tenant, *id, false) else { continue };
            let record = self.records[index].clone();
            if record.state == State::Open && record.deadline <= self.facts.now {
                self.end(index, "expired", true, |line| record.lines[line].held);
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
            let line = &record.lines[0];
            return Ok(Outcome::Adjusted(self.facts.balance(&line.account, line.span, 0)));
        }
        self.fresh_id(id)?;
        let (rule, span) = self.place(&account.0, &account.1)?;
        let (enforcement, account) = (rule.enforcement, account.clone());
        self.room(&[&account])?;
        self.facts.open(&account, span);
        self.facts.adjust(&account, span, adjustment);
        let limit = self.facts.limit(&account, span);
        self.facts.list.push(Fact::Seen { account: account.clone(), span, limit });
        let balance = self.facts.balance(&account, span, 0);
        self.records.push(Record {
            tenant: account.0.clone(),
            id,
            asked: command.clone(),
            state: State::Ended("used for an adjustment"),
            first_deadline: self.facts.now,
            deadline: self.facts.now,
            resolved_at: self.facts.now,
            lines: vec![Place { account, span, enforcement, held: 0 }],
        });
        Ok(Outcome::Adjusted(balance))
    }
}
