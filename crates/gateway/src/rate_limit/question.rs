//! What a call asks: of which accounts, how much, and how. Out of it comes the work for `spend`, and enough of each
//! descriptor for `answer`.

use std::sync::Arc;

use quorate_ledger::Amount;
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
}

/// Where a limit of a domain comes from.
#[derive(Debug)]
pub(super) enum Limit {
    Configured { limit: Arc<DescriptorLimit>, metric: Arc<str> },
    Brought,
}

/// What was used of a reservation: one amount for each of its lines.
#[derive(Debug, Clone)]
pub(super) struct Settle {
    pub reservation: Reservation,
    pub amounts: Vec<Amount>,
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
        Ok(question)
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
