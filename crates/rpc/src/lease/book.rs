//! What a process holds of many accounts, and every decision about it: a pure state machine. Time comes as an argument,
//! what is to be done goes out as [`Action`]s, and what came of it comes back in.

use std::collections::{BTreeMap, HashMap};

use quorate_ledger::{Amount, Balance, BudgetRule, Denial, Grant, ReservationId};

use super::account::{Account, Asked, Counts};
use super::pace::Size;
use super::slice::Slice;
use super::stats::BudgetLeases;
use super::types::{Action, Ask, LeaseSettings, Line, Now, Return, Taken, Ticket, Want};

/// A tick looks at this part of all accounts, each being looked at every second or so,
const LOOKS: usize = 8;
/// and at no fewer than these: nobody waits long behind it.
const LOOK_MIN: usize = 512;

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
    /// The account that a tick begins with.
    next: usize,
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
            next: 0,
            counts: BTreeMap::new(),
        }
    }

    /// What there is to do since this was last asked.
    pub fn actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// Takes all amounts or none, under the policy of this version. `may_wait`: whoever asks can wait for a slice of its own,
    /// and then asks [`Book::take_after`]. `Wait` only then.
    pub fn take(
        &mut self,
        version: u64,
        tenant: &str,
        wants: &[Want<'_>],
        may_wait: bool,
        now: Now,
    ) -> Taken {
        if self.stopping || version < self.version {
            return Taken::Direct;
        }
        self.version = version;
        let mut lines = Vec::with_capacity(wants.len());
        // Of wants that no slice has room for.
        let mut firsts = Vec::new();
        let mut can_wait = may_wait;
        for want in wants {
            let Some(index) = self.number(tenant, want, now) else {
                can_wait = false;
                continue;
            };
            let Some(Some(account)) = self.accounts.get_mut(index) else { return Taken::Direct };
            account.wanted(want.amount, now);
            if let Some(line) = account.take(index, want.amount, version, now) {
                lines.push(line);
            } else if can_wait {
                match account.first(want.amount, want.rule, now, &self.settings) {
                    Some(size) => {
                        firsts.push((index, size, want.rule));
                        continue;
                    }
                    None => can_wait = false,
                }
            }
            if let Some(asked) = account.ask(want.rule, version, now, &self.settings) {
                self.actions.push(Action::Ask(ask(index, account, asked)));
            }
        }
        if lines.len() == wants.len() {
            self.count(&lines, |counts| counts.local += 1);
            return Taken::Held(lines);
        }
        self.end(&lines, &[], false);
        if can_wait {
            return Taken::Wait(firsts.into_iter().filter_map(|first| self.first(first, now)).collect());
        }
        self.missed(tenant, wants);
        Taken::Direct
    }

    /// The same for whoever has waited for what [`Book::take`] said.
    pub fn take_after(
        &mut self,
        version: u64,
        tenant: &str,
        wants: &[Want<'_>],
        now: Now,
    ) -> Option<Vec<Line>> {
        let mut lines = Vec::with_capacity(wants.len());
        let may_take = !self.stopping && version >= self.version;
        for want in wants.iter().filter(|_| may_take) {
            let index = self.find(tenant, &want.rule.name, want.subject);
            let account = index.and_then(|index| Some((index, self.accounts.get_mut(index)?.as_mut()?)));
            lines.extend(account.and_then(|(index, account)| account.take(index, want.amount, version, now)));
        }
        if lines.len() == wants.len() {
            self.count(&lines, |counts| {
                (counts.local, counts.waited) = (counts.local + 1, counts.waited + 1)
            });
            return Some(lines);
        }
        self.end(&lines, &[], false);
        self.missed(tenant, wants);
        None
    }

    fn first(&mut self, (index, size, rule): (usize, Size, &BudgetRule), now: Now) -> Option<Ask> {
        let (version, settings) = (self.version, self.settings);
        let account = self.accounts.get_mut(index)?.as_mut()?;
        let asked = account.ask_first(size, rule, version, now, &settings);
        Some(ask(index, account, asked))
    }

    fn count(&mut self, lines: &[Line], count: impl Fn(&mut Counts)) {
        for line in lines {
            if let Some(Some(account)) = self.accounts.get_mut(line.account) {
                count(&mut account.counts);
            }
        }
    }

    fn missed(&mut self, tenant: &str, wants: &[Want<'_>]) {
        for want in wants {
            if let Some(account) = self.account(tenant, &want.rule.name, want.subject) {
                account.counts.direct += 1;
            }
        }
    }

    /// This policy is in force. The next ticks call back what was taken under others.
    pub fn under(&mut self, version: u64) {
        self.version = self.version.max(version);
    }

    /// Ends what was taken together: one amount for each line; none: nothing was used.
    pub fn end(&mut self, lines: &[Line], used: &[Amount], estimated: bool) {
        for (number, line) in lines.iter().enumerate() {
            let Some(Some(account)) = self.accounts.get_mut(line.account) else { continue };
            let used = used.get(number).copied().unwrap_or_default();
            let mut over: Vec<Slice> = account.end(line, used, estimated).into_iter().collect();
            if self.stopping {
                over.extend(account.retire(self.version, Now::default(), true));
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
        let settings = self.settings;
        let Some(account) = self.asking(ticket) else { return };
        account.granted(id, grant, now, &settings);
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
        let over = account.retire(self.version, now, true);
        account.back_off(now);
        let is_returning = account.returning > 0;
        let account = &*account;
        let returns = over.into_iter().map(|slice| returning(index, account, slice)).collect();
        is_returning.then_some((index, returns))
    }

    pub fn is_returning(&self, account: usize) -> bool {
        matches!(self.accounts.get(account), Some(Some(account)) if account.returning > 0)
    }

    /// Looks at everything, of many accounts at the next ones: what is too old, idle, used up or of a window that is over
    /// stops giving. The number of slices that were given up: they expire as charged.
    pub fn tick(&mut self, now: Now) -> usize {
        let mut lost = 0;
        let all = self.accounts.len();
        for _ in 0..all.min(LOOK_MIN.max(all / LOOKS)) {
            let index = if self.next < all { self.next } else { 0 };
            self.next = index + 1;
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
        let over = account.retire(self.version, now, all);
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
    let Counts { local, waited, direct, granted, denied } = std::mem::take(&mut account.counts);
    if local + direct + granted + denied == 0 {
        return;
    }
    let entry = counts.entry(account.budget.clone()).or_default();
    entry.local += local;
    entry.waited += waited;
    entry.direct += direct;
    entry.granted += granted;
    entry.denied += denied;
}

fn ask(index: usize, account: &Account, asked: Asked) -> Ask {
    Ask {
        ticket: Ticket { account: index, slice: asked.number },
        tenant: account.tenant.clone(),
        budget: account.budget.clone(),
        subject: account.subject.clone(),
        amount: asked.size.amount,
        at_least: asked.size.at_least,
        ttl_ms: asked.ttl_ms,
    }
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
