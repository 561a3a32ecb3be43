//! What a process holds of many accounts, and every decision about it: a pure state machine. Time comes as an argument,
//! what is to be done goes out as [`Action`]s, and what came of it comes back in.

use std::collections::{BTreeMap, HashMap};

use quorate_ledger::{Amount, Balance, Denial, Grant, ReservationId};

use super::account::{Account, Counts};
use super::slice::Slice;
use super::stats::BudgetLeases;
use super::types::{Action, Ask, LeaseSettings, Line, Now, Return, Ticket, Want};

#[derive(Debug)]
pub(super) struct Book {
    settings: LeaseSettings,
    /// By tenant, budget and subject: looked up without making a text of them.
    numbers: HashMap<String, HashMap<String, HashMap<String, usize>>>,
    /// By number. Numbers are used again.
    accounts: Vec<Option<Account>>,
    unused: Vec<usize>,
    /// The newest policy that anybody asked under.
    version: u64,
    stopping: bool,
    /// Accounts that were ever here.
    known: u64,
    actions: Vec<Action>,
    /// Of accounts, by budget.
    counts: BTreeMap<String, BudgetLeases>,
}

impl Book {
    pub fn new(settings: LeaseSettings) -> Self {
        Self {
            settings,
            numbers: HashMap::new(),
            accounts: Vec::new(),
            unused: Vec::new(),
            version: 0,
            stopping: false,
            known: 0,
            actions: Vec::new(),
            counts: BTreeMap::new(),
        }
    }

    /// What there is to do since this was last asked.
    pub fn actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// Takes all amounts or none, under the policy of this version. `None`: the exact way.
    pub fn take(&mut self, version: u64, tenant: &str, wants: &[Want<'_>], now: Now) -> Option<Vec<Line>> {
        if self.stopping || version < self.version {
            return None;
        }
        self.version = version;
        let mut lines = Vec::with_capacity(wants.len());
        let mut all = true;
        for want in wants {
            let Some(index) = self.number(tenant, want, now) else {
                all = false;
                continue;
            };
            let Some(Some(account)) = self.accounts.get_mut(index) else { return None };
            account.wanted(want.amount, now);
            let line = account.take(index, want.amount, version, now, &self.settings);
            if let Some((slice, amount, at_least)) = account.ask(want.rule, version, now, &self.settings) {
                self.actions.push(Action::Ask(Ask {
                    ticket: Ticket { account: index, slice },
                    tenant: account.tenant.clone(),
                    budget: account.budget.clone(),
                    subject: account.subject.clone(),
                    amount,
                    at_least,
                    ttl_ms: self.settings.ttl_ms(),
                }));
            }
            all &= line.is_some();
            lines.extend(line);
        }
        for line in &lines {
            if let Some(Some(account)) = self.accounts.get_mut(line.account) {
                account.counts.local += u64::from(all);
            }
        }
        if all {
            return Some(lines);
        }
        self.end(&lines, &[], false);
        for want in wants {
            if let Some(account) = self.account(tenant, &want.rule.name, want.subject) {
                account.counts.direct += 1;
            }
        }
        None
    }

    /// Ends what was taken together: one amount for each line; none: nothing was used.
    pub fn end(&mut self, lines: &[Line], used: &[Amount], estimated: bool) {
        for (number, line) in lines.iter().enumerate() {
            let Some(Some(account)) = self.accounts.get_mut(line.account) else { continue };
            let used = used.get(number).copied().unwrap_or_default();
            let mut over: Vec<Slice> = account.end(line, used, estimated).into_iter().collect();
            if self.stopping {
                over.extend(account.retire(self.version, Now::default(), &self.settings, true));
            }
            self.give_back(line.account, over);
        }
    }

    /// What an operation on accounts has shown of them.
    pub fn saw(&mut self, tenant: &str, balances: &[Balance]) {
        for balance in balances {
            if let Some(account) = self.account(tenant, &balance.budget, &balance.subject) {
                account.saw(balance);
            }
        }
    }

    pub fn granted(&mut self, ticket: Ticket, id: ReservationId, grant: &Grant, now: Now) {
        let Some(account) = self.asking(ticket) else { return };
        account.granted(id, grant, now);
        self.retire(ticket.account, now, self.stopping);
    }

    pub fn denied(&mut self, ticket: Ticket, denial: &Denial, now: Now) {
        let Some(account) = self.asking(ticket) else { return };
        account.saw(&denial.account);
        account.not_granted(now);
    }

    pub fn failed(&mut self, ticket: Ticket, now: Now) {
        if let Some(account) = self.asking(ticket) {
            account.not_granted(now);
        }
    }

    /// The cluster has settled a slice, or there is nothing more to be said of it.
    pub fn returned(&mut self, account: usize, balance: Option<&Balance>) {
        if let Some(Some(account)) = self.accounts.get_mut(account) {
            account.returned(balance);
        }
    }

    /// Somebody is denied for what is held of an account: what is free here goes back, and nothing is taken for a while.
    /// What to return now, and the account's number if something is on its way back.
    pub fn make_room(
        &mut self,
        tenant: &str,
        budget: &str,
        subject: &str,
        now: Now,
    ) -> Option<(usize, Vec<Return>)> {
        let index = self.find(tenant, budget, subject)?;
        let account = self.accounts.get_mut(index)?.as_mut()?;
        let over = account.retire(self.version, now, &self.settings, true);
        account.back_off(now);
        let is_returning = account.returning > 0;
        let account = &*account;
        let returns = over.into_iter().map(|slice| returning(index, account, slice)).collect();
        is_returning.then_some((index, returns))
    }

    pub fn is_returning(&self, account: usize) -> bool {
        matches!(self.accounts.get(account), Some(Some(account)) if account.returning > 0)
    }

    /// Looks at everything: what is too old, idle, used up or of a window that is over stops giving. The number of slices
    /// that were given up: they expire as charged.
    pub fn tick(&mut self, now: Now) -> usize {
        let mut lost = 0;
        for index in 0..self.accounts.len() {
            self.retire(index, now, self.stopping);
            let Some(Some(account)) = self.accounts.get_mut(index) else { continue };
            lost += account.forget_lost(now);
            if account.can_go(now) {
                self.forget(index);
            }
        }
        lost
    }

    /// Gives nothing any more, and everything back.
    pub fn stop(&mut self, now: Now) {
        self.stopping = true;
        for index in 0..self.accounts.len() {
            self.retire(index, now, true);
        }
    }

    /// Nothing of it is in the cluster or on the way.
    pub fn is_settled(&self) -> bool {
        self.accounts.iter().flatten().all(Account::is_settled)
    }

    /// By budget, since the book began.
    pub fn counts(&mut self) -> BTreeMap<String, BudgetLeases> {
        let Self { accounts, counts, .. } = self;
        for account in accounts.iter_mut().flatten() {
            settle_counts(counts, account);
        }
        let mut counts = counts.clone();
        for account in accounts.iter().flatten() {
            let (slices, amount) = account.leased();
            let entry = counts.entry(account.budget.clone()).or_default();
            entry.slices += slices as u64;
            entry.leased_micros = entry.leased_micros.saturating_add(amount.micros());
        }
        counts
    }

    fn retire(&mut self, index: usize, now: Now, all: bool) {
        let Some(Some(account)) = self.accounts.get_mut(index) else { return };
        let over = account.retire(self.version, now, &self.settings, all);
        self.give_back(index, over);
    }

    fn give_back(&mut self, index: usize, over: Vec<Slice>) {
        let Some(Some(account)) = self.accounts.get(index) else { return };
        let returns = over.into_iter().map(|slice| Action::Return(returning(index, account, slice)));
        self.actions.extend(returns);
    }

    fn asking(&mut self, ticket: Ticket) -> Option<&mut Account> {
        let account = self.accounts.get_mut(ticket.account)?.as_mut()?;
        account.is_asking(ticket.slice).then_some(account)
    }

    fn find(&self, tenant: &str, budget: &str, subject: &str) -> Option<usize> {
        self.numbers.get(tenant)?.get(budget)?.get(subject).copied()
    }

    fn account(&mut self, tenant: &str, budget: &str, subject: &str) -> Option<&mut Account> {
        let index = self.find(tenant, budget, subject)?;
        self.accounts.get_mut(index)?.as_mut()
    }

    /// `None`: there are too many already.
    fn number(&mut self, tenant: &str, want: &Want<'_>, now: Now) -> Option<usize> {
        let (budget, subject) = (want.rule.name.as_str(), want.subject);
        if let Some(index) = self.find(tenant, budget, subject) {
            return Some(index);
        }
        if self.accounts.len() - self.unused.len() >= self.settings.accounts_max {
            return None;
        }
        // A hold that ends when its account is long forgotten finds no slice of the next one under this number.
        self.known += 1;
        let account = Some(Account::new(tenant, budget, subject, self.known << 32, now));
        let index = match self.unused.pop() {
            Some(index) => {
                *self.accounts.get_mut(index)? = account;
                index
            }
            None => {
                self.accounts.push(account);
                self.accounts.len() - 1
            }
        };
        let budgets = self.numbers.entry(tenant.to_owned()).or_default();
        budgets.entry(budget.to_owned()).or_default().insert(subject.to_owned(), index);
        Some(index)
    }

    fn forget(&mut self, index: usize) {
        let Some(account) = self.accounts.get_mut(index).and_then(Option::take) else { return };
        self.unused.push(index);
        let Account { tenant, budget, subject, .. } = &account;
        if let Some(budgets) = self.numbers.get_mut(tenant) {
            if let Some(subjects) = budgets.get_mut(budget) {
                subjects.remove(subject);
                if subjects.is_empty() {
                    budgets.remove(budget);
                }
            }
            if budgets.is_empty() {
                self.numbers.remove(tenant);
            }
        }
        let mut account = account;
        settle_counts(&mut self.counts, &mut account);
    }
}

fn settle_counts(counts: &mut BTreeMap<String, BudgetLeases>, account: &mut Account) {
    let Counts { local, direct, granted, denied } = std::mem::take(&mut account.counts);
    if local + direct + granted + denied == 0 {
        return;
    }
    let entry = counts.entry(account.budget.clone()).or_default();
    entry.local += local;
    entry.direct += direct;
    entry.granted += granted;
    entry.denied += denied;
}

fn returning(index: usize, account: &Account, slice: Slice) -> Return {
    Return {
        account: index,
        tenant: account.tenant.clone(),
        id: slice.id,
        amount: slice.amount,
        spent: slice.spent,
        estimated: slice.estimated,
        until_ms: slice.until_ms(),
    }
}
