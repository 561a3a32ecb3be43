//! What a call asks: of which accounts, how much, and how. Out of it comes the work for `spend`, and enough of each
//! descriptor for `answer`.

use std::collections::HashSet;
use std::sync::Arc;

use quorate_ledger::{Amount, CHARGES_MAX, Enforcement};
use quorate_policy::runtime::{Budget, DescriptorLimit, Spending};
use quorate_rpc::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use quorate_rpc::rls::RateLimitRequest;

use super::attributes;
use super::config::RateLimitConfig;
use super::descriptors;
use super::reservation::Reservation;
use crate::policy::ActivePolicy;

/// No proxy sends as many; each costs a look-up.
const DESCRIPTORS_MAX: usize = 64;

/// One account that hits are charged to, or that is looked at.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub budget: Arc<Budget>,
    pub subject: String,
    /// In the budget's unit. Zero: look only.
    pub amount: Amount,
    pub spending: Spending,
    /// In place of the account's own.
    pub limit: Option<Amount>,
    /// Over the limit only together with all other lines of this sort.
    pub quota: bool,
}

impl Line {
    /// It is of the budget of this name.
    pub(super) fn is_of(&self, budget: &str) -> bool {
        self.budget.rule.name == budget
    }

    /// They are charged to one account.
    pub(super) fn is_twin_of(&self, other: &Self) -> bool {
        self.subject == other.subject && Arc::ptr_eq(&self.budget, &other.budget)
    }

    /// Its account may be spent from slices.
    pub(super) fn is_leased(&self) -> bool {
        self.budget.rule.enforcement == Enforcement::Lease
    }

    /// What is over is refused: it is not only counted.
    pub(super) fn binds(&self) -> bool {
        self.limit.is_some() || self.budget.rule.enforcement != Enforcement::Shadow
    }
}

/// What a descriptor means.
#[derive(Debug)]
pub(super) enum Meaning {
    /// Nothing limits it.
    Nothing,
    Unlimited,
    /// One limit of a domain, by the number of its line.
    Limit {
        line: usize,
        limit: Limit,
    },
    /// Budgets that the attributes meet.
    Budgets {
        lines: Vec<usize>,
    },
    /// It says what was used of a reservation.
    Settles,
    /// The request's own mistake: it is over the limit, and is not charged.
    Refused {
        why: String,
    },
}

/// Where a limit of a domain comes from.
#[derive(Debug)]
pub(super) enum Limit {
    Configured { limit: Arc<DescriptorLimit>, metric: Arc<str> },
    Brought { metric: Arc<str> },
}

/// What was used of a reservation: one amount for each of its lines; `None`: nobody says so.
#[derive(Debug, Clone)]
pub(super) struct Settle {
    pub reservation: Reservation,
    pub amounts: Vec<Option<Amount>>,
}

#[derive(Debug, Default)]
pub(super) struct Question {
    pub tenant: String,
    /// Of the policy that says all this.
    pub version: u64,
    /// One for each descriptor, with the hits that it has.
    pub meanings: Vec<(Meaning, u64)>,
    pub lines: Vec<Line>,
    pub settles: Vec<Settle>,
}

/// The caller's mistake, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mistake(pub String);

impl Question {
    pub(super) fn read(
        request: &RateLimitRequest,
        config: &RateLimitConfig,
        policy: &ActivePolicy,
    ) -> Result<Self, Mistake> {
        if request.domain.is_empty() {
            return Err(Mistake("rate limit domain must not be empty".to_owned()));
        }
        if request.descriptors.is_empty() {
            return Err(Mistake("rate limit descriptor list must not be empty".to_owned()));
        }
        if request.descriptors.len() > DESCRIPTORS_MAX {
            let count = request.descriptors.len();
            return Err(Mistake(format!("{count} descriptors, at most {DESCRIPTORS_MAX} are allowed")));
        }
        if request.descriptors.iter().any(|one| one.is_negative_hits) {
            return Err(Mistake(
                "hits cannot be taken back: reserve them (docs/envoy.md) and settle what was used".to_owned(),
            ));
        }
        let mut question = Self { tenant: config.tenant.clone(), version: policy.version, ..Self::default() };
        if request.domain == config.attributes_domain {
            attributes::read(&mut question, request, policy)?;
        } else {
            descriptors::read(&mut question, request, policy)?;
        }
        for line in &mut question.lines {
            line.quota |= config.quota_mode;
            // Nothing is refused, so everything counts.
            if config.shadow_mode && line.spending != Spending::Held {
                line.spending = Spending::Count;
            }
        }
        question.check()?;
        Ok(question)
    }

    /// One operation of the ledger bears all that is all or nothing together. Said before anything is charged.
    fn check(&self) -> Result<(), Mistake> {
        if self.lines.len() <= CHARGES_MAX {
            return Ok(());
        }
        for held in [true, false] {
            let whole = |line: &&Line| match line.spending {
                Spending::Held => held,
                Spending::Whole | Spending::Lease => !held,
                Spending::Count => false,
            };
            let accounts =
                self.lines.iter().filter(whole).map(|line| (&line.budget.rule.name, &line.subject));
            let count = accounts.collect::<HashSet<_>>().len();
            if count > CHARGES_MAX {
                return Err(Mistake(format!(
                    "{count} accounts are charged all or nothing in one call, at most {CHARGES_MAX} are allowed; ask in several calls"
                )));
            }
        }
        Ok(())
    }

    /// A descriptor is over its limit as it stands.
    pub(super) fn refuses(&self) -> bool {
        self.meanings.iter().any(|(meaning, _)| matches!(meaning, Meaning::Refused { .. }))
    }

    /// Something is to be held.
    pub(super) fn holds(&self) -> bool {
        self.lines.iter().any(|line| line.spending == Spending::Held)
    }

    /// Takes down what was used of a reservation: for each mark of a line, `None` where this descriptor says nothing of it.
    /// What several descriptors say adds up.
    pub(super) fn used(&mut self, reservation: &Reservation, of: impl Fn(u64) -> Option<Amount>) {
        let known = self.settles.iter().position(|known| known.reservation.id == reservation.id);
        let at = known.unwrap_or_else(|| {
            let amounts = vec![None; reservation.lines.len()];
            self.settles.push(Settle { reservation: reservation.clone(), amounts });
            self.settles.len() - 1
        });
        for (amount, line) in self.settles[at].amounts.iter_mut().zip(&reservation.lines) {
            if let Some(more) = of(line.mark) {
                let sum = amount.unwrap_or_default().checked_add(more).unwrap_or(Amount::MAX);
                *amount = Some(sum);
            }
        }
    }
}

/// As the descriptor says, else as the request says, else one.
pub(super) fn hits(request: &RateLimitRequest, descriptor: &RateLimitDescriptor) -> u64 {
    descriptor.hits_addend.unwrap_or_else(|| request.hits_addend.max(1).into())
}

pub(super) fn units(hits: u64) -> Result<Amount, Mistake> {
    Amount::from_units(hits).map_err(|_| Mistake(format!("{hits} hits are more than can be counted")))
}

pub(super) fn pairs(descriptor: &RateLimitDescriptor) -> impl ExactSizeIterator<Item = (&str, &str)> + Clone {
    descriptor.entries.iter().map(|entry| (entry.key.as_str(), entry.value.as_str()))
}
