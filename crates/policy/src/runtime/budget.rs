//! A budget: one compiled rule, and one that a request met.

use std::sync::Arc;

use quorate_ledger::{Amount, BudgetRule};

use super::subject::Way;
use super::{Cost, CostContext, CostError, Price, Prices, RequestView, Selector, SubjectPart, Tier, Usage};

/// In [`Budget::routes`]: requests that no route takes, and that go where the gateway sends those.
pub const NO_ROUTE: &str = "";

/// One compiled rule. Budgets are matched in the order of the manifests.
#[derive(Debug, Clone)]
pub struct Budget {
    /// What the ledger enforces.
    pub rule: BudgetRule,
    pub selector: Selector,
    /// Empty: one account for the tenant.
    pub subject: Vec<SubjectPart>,
    /// Only requests on these routes (`namespace/name`, or [`NO_ROUTE`]); `None`: any, and those without a route.
    pub routes: Option<Vec<String>>,
    /// Only requests that go to one of these backends (`namespace/name`) first; `None`: any.
    pub backends: Option<Vec<String>>,
    /// For each answer.
    pub cost: Cost,
    /// For each request, on top (Envoy: `cost.request`).
    pub request_cost: Amount,
    /// Output tokens reserved for a request that names no limit of its own.
    pub output_default: u64,
    /// The fewest output tokens such a request is admitted with.
    pub output_floor: u64,
    /// The most output tokens that a request may name.
    pub output_max: Option<u64>,
    pub when_short: WhenShort,
    /// How long a request may queue while only reservations stand in its way.
    pub max_wait_ms: u64,
    pub on_cluster_loss: ClusterLoss,
    /// Descending; empty: none.
    pub tiers: Vec<Tier>,
    /// For models that have no price.
    pub price_fallback: Option<Price>,
    /// Where it came from: `BackendTrafficPolicy ai-services/token-budget-per-user rule 1`.
    pub explains: String,
}

/// What becomes of a request that asks for more than is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenShort {
    Deny,
    /// It gets less output, also one that names its own limit; never below the floor.
    Clamp,
}

/// What becomes of requests while the budget cluster cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterLoss {
    FailClosed,
    /// Each gateway admits up to this much for each account and window.
    FailOpen {
        up_to: Amount,
    },
}

/// A budget that a request is charged to.
#[derive(Debug, Clone)]
pub struct BudgetMatch {
    pub budget: Arc<Budget>,
    pub subject: String,
}

impl Budget {
    /// A budget with the defaults of the kind Budget: every request, one account, total tokens.
    pub fn new(rule: BudgetRule, cost: Cost) -> Self {
        Self {
            rule,
            selector: Selector::default(),
            subject: Vec::new(),
            routes: None,
            backends: None,
            cost,
            request_cost: Amount::ZERO,
            output_default: 1024,
            output_floor: 16,
            output_max: None,
            when_short: WhenShort::Deny,
            max_wait_ms: 0,
            on_cluster_loss: ClusterLoss::FailClosed,
            tiers: Vec::new(),
            price_fallback: None,
            explains: String::new(),
        }
    }

    /// Whether a request is charged here.
    pub(super) fn applies(&self, request: &RequestView<'_>, way: Way<'_>) -> bool {
        let route = Some(way.route.map_or(NO_ROUTE, |found| found.route.name.as_str()));
        let among = |names: &Option<Vec<String>>, name: Option<&str>| match names {
            Some(names) => name.is_some_and(|name| names.iter().any(|known| known == name)),
            None => true,
        };
        self.rule.tenant.as_ref().is_none_or(|tenant| *tenant == request.identity.tenant)
            && among(&self.routes, route)
            && among(&self.backends, way.backend)
            && self.selector.matches(request)
    }

    /// It is met by descriptors of Envoy's rate limit service only, never by a request of a gateway's own.
    pub fn is_of_descriptors(&self) -> bool {
        self.routes.as_ref().is_some_and(Vec::is_empty)
    }

    /// It is a backend's own: what is short here is not short at another backend.
    pub fn is_of_backend(&self) -> bool {
        self.backends.is_some() || self.subject.contains(&SubjectPart::Backend)
    }

    /// It can deny, and so holds a bound on what a request may do.
    pub fn binds(&self) -> bool {
        self.rule.enforcement.binds()
    }

    /// It needs to know how large the input can be.
    pub fn bounds_input(&self) -> bool {
        self.binds() && self.cost.counts_input()
    }

    /// What a request with this usage costs here: its answer, and [`Self::request_cost`] on top.
    ///
    /// # Errors
    /// A model without a price, or an expression that fails.
    pub fn charge(&self, usage: &Usage, at: &CostContext<'_>, prices: &Prices) -> Result<Amount, CostError> {
        let cost = self.cost.of(usage, at, prices, self.price_fallback.as_ref())?;
        cost.checked_add(self.request_cost).ok_or(CostError::TooLarge)
    }

    /// The most that a request with up to `input` and `output` tokens can cost here, whichever of `at` serves it.
    ///
    /// # Errors
    /// As for [`Self::charge`].
    pub fn bound(
        &self,
        input: u64,
        output: u64,
        at: &[CostContext<'_>],
        prices: &Prices,
    ) -> Result<Amount, CostError> {
        let cost = self.cost.bound(input, output, at, prices, self.price_fallback.as_ref())?;
        cost.checked_add(self.request_cost).ok_or(CostError::TooLarge)
    }
}
