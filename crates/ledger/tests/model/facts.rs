//! What happened, as one list; and where an account stands, computed from scratch by walking that list.

use quorate_ledger::{
    Adjustment, Amount, Balance, BudgetRule, Charge, Denial, Enforcement, ReservationId, TimestampMs, Unit,
    Window, WindowSpan,
};

pub type Account = (String, String, String);

#[derive(Debug, Clone)]
pub enum Fact {
    /// A window was used for the first time, with what was left of the one before.
    Opened {
        account: Account,
        span: WindowSpan,
        carried: i128,
    },
    Held {
        id: ReservationId,
        account: Account,
        span: WindowSpan,
        amount: i128,
        limit: i128,
        enforcement: Enforcement,
        /// A shadow let it through.
        short: bool,
    },
    Charged {
        id: ReservationId,
        account: Account,
        amount: i128,
        estimated: bool,
        /// What was left before, where the budget only counts.
        left: Option<i128>,
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

#[derive(Debug, Default)]
pub struct Facts {
    pub now: u64,
    pub rules: Vec<BudgetRule>,
    pub list: Vec<Fact>,
    /// (account, window or slice that was charged, share)
    said: Vec<(Account, WindowSpan, u8)>,
    /// (account, share, spent, limit, window shown)
    pub alerts: Vec<(Account, u8, i128, i128, WindowSpan)>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Sums {
    pub spent: i128,
    pub reserved: i128,
    pub overdraft: i128,
    pub estimated: i128,
    pub topped_up: i128,
    pub shadow_denied: u64,
    seen_limit: i128,
}

pub fn amount(value: i128) -> Amount {
    Amount::from_micros(u64::try_from(value).expect("never negative")).expect("never too large")
}

pub fn micros(amount: Amount) -> i128 {
    i128::from(amount.micros())
}

struct Line {
    id: ReservationId,
    held: i128,
    reserved: i128,
    charged: i128,
    /// Of what counts of `charged`.
    estimated: i128,
    open: bool,
    forgiven: bool,
}

impl Facts {
    pub fn rule(&self, tenant: &str, budget: &str) -> Option<&BudgetRule> {
        let mine =
            |rule: &&BudgetRule| rule.name == budget && rule.tenant.as_deref().is_none_or(|t| t == tenant);
        self.rules.iter().find(mine)
    }

    fn sliding_ms(&self, account: &Account) -> Option<u64> {
        let rule = self.rules.iter().find(|rule| rule.name == account.1)?;
        if let Window::Sliding { ms } = rule.window { Some(ms) } else { None }
    }

    /// One window, or one slice.
    pub fn sums(&self, account: &Account, span: WindowSpan) -> Sums {
        let mut sums = Sums::default();
        let mut lines: Vec<Line> = Vec::new();
        for fact in &self.list {
            match fact {
                Fact::Held { id, account: of, span: at, amount, limit, enforcement, short }
                    if of == account && *at == span =>
                {
                    sums.seen_limit = *limit;
                    sums.shadow_denied += u64::from(*short);
                    let reserved = if *enforcement == Enforcement::Count { 0 } else { *amount };
                    lines.push(Line {
                        id: *id,
                        held: *amount,
                        reserved,
                        charged: 0,
                        estimated: 0,
                        open: true,
                        forgiven: false,
                    });
                }
                Fact::Charged { id, account: of, amount, estimated, left } if of == account => {
                    let Some(line) = lines.iter_mut().find(|line| line.id == *id) else { continue };
                    let change = amount - line.charged;
                    let change = if line.forgiven { change.max(0) } else { change };
                    sums.spent += change;
                    let counts = if line.forgiven { change } else { *amount };
                    line.estimated = if *estimated { counts } else { 0 };
                    match left {
                        None => sums.overdraft += (amount - line.held).max(0),
                        Some(_) if change < 0 => sums.overdraft = (sums.overdraft + change).max(0),
                        Some(left) => sums.overdraft += (change - left).max(0),
                    }
                    (line.charged, line.open, line.forgiven) = (*amount, false, false);
                }
                Fact::Reset { account: of, span: at } if of == account && *at == span => {
                    (sums.spent, sums.overdraft) = (0, 0);
                    for line in lines.iter_mut().filter(|line| !line.open) {
                        (line.forgiven, line.estimated) = (true, 0);
                    }
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
        sums.estimated = lines.iter().map(|line| line.estimated).sum();
        sums.reserved = lines.iter().filter(|line| line.open).map(|line| line.reserved).sum();
        sums
    }

    pub fn spans(&self, account: &Account) -> Vec<WindowSpan> {
        let opened = self.list.iter().filter_map(|fact| match fact {
            Fact::Opened { account: of, span, .. } if of == account => Some(*span),
            _ => None,
        });
        opened.collect()
    }

    /// The slices that count at `at`, oldest first.
    fn counted(&self, account: &Account, ms: u64, at: u64) -> Vec<WindowSpan> {
        let mut spans = self.spans(account);
        spans.retain(|span| span.end.unwrap().0 + ms > at);
        spans.sort();
        spans
    }

    /// All that counts together with this window, and what it is shown as.
    pub fn total(&self, account: &Account, span: WindowSpan) -> (Sums, WindowSpan) {
        let Some(ms) = self.sliding_ms(account) else { return (self.sums(account, span), span) };
        let (mut total, mut oldest) = (Sums::default(), span);
        for slice in self.counted(account, ms, self.now).into_iter().rev() {
            let sums = self.sums(account, slice);
            total.spent += sums.spent;
            total.reserved += sums.reserved;
            total.overdraft += sums.overdraft;
            total.estimated += sums.estimated;
            total.topped_up += sums.topped_up;
            total.shadow_denied += sums.shadow_denied;
            if sums.spent + sums.reserved > 0 {
                oldest = slice;
            }
        }
        let end = oldest.end.map(|end| TimestampMs(end.0 + ms));
        (total, WindowSpan { start: oldest.start, end })
    }

    pub fn fresh_limit(&self, account: &Account) -> Option<i128> {
        let rule = self.rule(&account.0, &account.1)?;
        let last = self.list.iter().rev().find_map(|fact| match fact {
            Fact::Overridden { account: of, limit } if of == account => Some(*limit),
            _ => None,
        });
        Some(last.flatten().unwrap_or(micros(rule.limit)))
    }

    /// As last seen, once the window is over or the budget gone.
    pub fn limit(&self, account: &Account, span: WindowSpan) -> i128 {
        let present = |rule: &&BudgetRule| {
            self.sliding_ms(account).is_some() || rule.span_at(TimestampMs(self.now)) == span
        };
        match self.rule(&account.0, &account.1).filter(present) {
            Some(_) => {
                let (sums, _) = self.total(account, span);
                self.fresh_limit(account).unwrap() + self.carried(account, span) + sums.topped_up
            }
            None => self.sums(account, span).seen_limit,
        }
    }

    /// What counts of it under the rule of now.
    pub fn carried(&self, account: &Account, span: WindowSpan) -> i128 {
        let rule = self.rule(&account.0, &account.1);
        let cap = rule.and_then(|rule| rule.carry_over).map_or(0, micros);
        let opened = self.list.iter().find_map(|fact| match fact {
            Fact::Opened { account: of, span: at, carried } if of == account && *at == span => Some(*carried),
            _ => None,
        });
        opened.unwrap_or_else(|| self.carry(account, span)).min(cap)
    }

    fn carry(&self, account: &Account, span: WindowSpan) -> i128 {
        let Some(rule) = self.rule(&account.0, &account.1) else { return 0 };
        let Some(cap) = rule.carry_over.map(micros) else { return 0 };
        let before = self.spans(account).into_iter().filter(|used| used.end <= Some(span.start)).max();
        let Some(last) = before else { return 0 };
        let length = last.end.unwrap().0 - last.start.0;
        if last.end.unwrap().0 + 12 * length <= self.now {
            return 0;
        }
        let previous = rule.span_at(TimestampMs(span.start.0 - 1));
        let left = if previous == last {
            let sums = self.sums(account, last);
            (sums.seen_limit - sums.spent - sums.reserved).max(0)
        } else {
            self.fresh_limit(account).unwrap() + self.carry(account, previous)
        };
        left.min(cap)
    }

    /// Puts down that a window is used.
    pub fn open(&mut self, account: &Account, span: WindowSpan) {
        if !self.spans(account).contains(&span) {
            let carried = self.carry(account, span);
            self.list.push(Fact::Opened { account: account.clone(), span, carried });
        }
    }

    pub fn adjust(&mut self, account: &Account, span: WindowSpan, adjustment: &Adjustment) {
        let account = account.clone();
        match adjustment {
            Adjustment::TopUp(more) => {
                self.list.push(Fact::ToppedUp { account, span, amount: micros(*more) });
            }
            Adjustment::Reset => {
                let spans = match self.sliding_ms(&account) {
                    Some(ms) => self.counted(&account, ms, self.now),
                    None => vec![span],
                };
                self.list
                    .extend(spans.into_iter().map(|span| Fact::Reset { account: account.clone(), span }));
            }
            Adjustment::OverrideLimit(limit) => {
                self.list.push(Fact::Overridden { account, limit: Some(micros(*limit)) });
            }
            Adjustment::ClearOverride => self.list.push(Fact::Overridden { account, limit: None }),
        }
    }

    /// Those that were ever used.
    pub fn accounts(&self, tenant: &str, budget: &str) -> Vec<Account> {
        let opened = self.list.iter().filter_map(|fact| match fact {
            Fact::Opened { account, .. } if account.0 == tenant && account.1 == budget => {
                Some(account.clone())
            }
            _ => None,
        });
        opened.collect()
    }

    pub fn charge(&mut self, id: ReservationId, line: &Place, amount: i128, estimated: bool) {
        let Place { account, span, enforcement, .. } = line;
        let spent_before = self.sums(account, *span).spent;
        let left = (*enforcement == Enforcement::Count)
            .then(|| (self.limit(account, *span) - self.total(account, *span).0.spent).max(0));
        self.list.push(Fact::Charged { id, account: account.clone(), amount, estimated, left });
        if self.sums(account, *span).spent > spent_before {
            self.alert(account, *span);
        }
    }

    fn alert(&mut self, account: &Account, span: WindowSpan) {
        let Some(rule) = self.rule(&account.0, &account.1) else { return };
        let shares = rule.alerts.clone();
        let together = match self.sliding_ms(account) {
            Some(ms) => self.counted(account, ms, self.now),
            None => vec![span],
        };
        if !together.contains(&span) {
            return;
        }
        let (sums, shown) = self.total(account, span);
        let limit = self.limit(account, span);
        for share in shares {
            let said = |(of, at, what): &(Account, WindowSpan, u8)| {
                of == account && together.contains(at) && *what == share
            };
            if sums.spent * 100 >= limit * i128::from(share) && !self.said.iter().any(said) {
                self.said.push((account.clone(), span, share));
                self.alerts.push((account.clone(), share, sums.spent, limit, shown));
            }
        }
    }

    pub fn balance(&self, account: &Account, span: WindowSpan, of: i128) -> Balance {
        let (sums, shown) = self.total(account, span);
        Balance {
            budget: account.1.clone(),
            subject: account.2.clone(),
            unit: Unit::Tokens,
            limit: amount(self.limit(account, span)),
            spent: amount(sums.spent),
            reserved: amount(sums.reserved),
            resets_at: shown.end,
            amount: amount(of),
        }
    }

    pub fn available(&self, account: &Account, span: WindowSpan) -> i128 {
        let (sums, _) = self.total(account, span);
        (self.limit(account, span) - sums.spent - sums.reserved).max(0)
    }

    pub fn is_short(&self, charge: &Charge, place: &Place) -> bool {
        let Place { account, span, enforcement, .. } = place;
        match enforcement {
            Enforcement::Reserve | Enforcement::Lease => {
                self.available(account, *span) < micros(charge.at_least)
            }
            Enforcement::Count => self.total(account, *span).0.spent >= self.limit(account, *span),
            Enforcement::Shadow => false,
        }
    }

    /// `deadlines`: of the tenant's open reservations.
    pub fn denial(&self, charge: &Charge, place: &Place, deadlines: &[u64]) -> Denial {
        let Place { account, span, enforcement, .. } = place;
        let (asked, counts) = (micros(charge.at_least), *enforcement == Enforcement::Count);
        let fits = |used: i128, limit: i128| if counts { used < limit } else { used + asked <= limit };
        let held = !counts && fits(self.total(account, *span).0.spent, self.limit(account, *span));
        let rule = self.rule(&account.0, &account.1).unwrap();
        let fresh = self.fresh_limit(account).unwrap() + rule.carry_over.map_or(0, micros);
        let mut waits = Vec::new();
        match self.sliding_ms(account) {
            Some(ms) => {
                let slices = self.counted(account, ms, self.now);
                let ends = slices.iter().map(|slice| slice.end.unwrap().0 + ms);
                let free = |at: &u64| {
                    let later = self.counted(account, ms, *at);
                    let sums = later.into_iter().map(|slice| self.sums(account, slice));
                    let (mut used, mut limit) = (0, fresh);
                    for sums in sums {
                        used += sums.spent + if counts { 0 } else { sums.reserved };
                        limit += sums.topped_up;
                    }
                    fits(used, limit)
                };
                waits.extend(ends.into_iter().find(free).map(|at| at - self.now));
            }
            None if fits(0, fresh) => waits.extend(span.end.map(|end| end.0 - self.now)),
            None => {}
        }
        if held {
            waits.extend(deadlines.iter().map(|deadline| deadline.saturating_sub(self.now).max(1)));
        }
        Denial {
            account: self.balance(account, *span, 0),
            asked: charge.at_least,
            available: amount(self.available(account, *span)),
            retry_after_ms: waits.into_iter().min(),
            held_by_reservations: held,
        }
    }
}

/// Where one charge of a reservation goes, and what is held of it.
#[derive(Debug, Clone)]
pub struct Place {
    pub account: Account,
    pub span: WindowSpan,
    pub enforcement: Enforcement,
    pub held: i128,
}
