//! The compiled policy: what a gateway asks about every request.

use std::collections::HashMap;
use std::sync::Arc;

use quorate_ledger::BudgetRule;

use super::descriptor_index::Known;
use super::index::{self, Choice, Field, Index, Key};
use super::route_table::RouteTable;
use super::subject::{Way, subject};
use super::{
    Attribute, BackendSpec, Budget, BudgetMatch, CompileError, DomainIndex, IdentityRules, MatchError,
    NO_ROUTE, Prices, RateLimitDomain, RequestView, Route, RouteMatch, RoutePosition, check,
};

/// What a policy is made of. A name of a route or a backend that is not here matches nothing and serves nothing.
#[derive(Debug, Clone, Default)]
pub struct PolicyParts {
    /// In the order of the manifests.
    pub budgets: Vec<Budget>,
    pub routes: Vec<Route>,
    pub backends: Vec<BackendSpec>,
    /// By default none, not even the built-in ones.
    pub prices: Prices,
    pub identity: IdentityRules,
    /// Of Envoy's rate limit service; their limits are among the budgets.
    pub domains: Vec<RateLimitDomain>,
}

/// A policy in force. Immutable; shared between threads.
#[derive(Debug, Clone)]
pub struct CompiledPolicy {
    budgets: Vec<Arc<Budget>>,
    index: Index,
    routes: Vec<Route>,
    table: RouteTable,
    backends: Vec<BackendSpec>,
    prices: Prices,
    identity: IdentityRules,
    domains: HashMap<String, DomainIndex>,
}

impl CompiledPolicy {
    /// # Errors
    /// Names that stand twice or nowhere, and values that do not fit together.
    pub fn new(parts: PolicyParts) -> Result<Self, CompileError> {
        check::parts(&parts)?;
        let PolicyParts { budgets, routes, backends, prices, identity, domains } = parts;
        let budgets: Vec<Arc<Budget>> = budgets.into_iter().map(Arc::new).collect();
        let keys: Vec<Vec<Choice>> = budgets.iter().map(|budget| keys(budget)).collect();
        let (index, table) = (Index::new(&keys), RouteTable::new(&routes));
        let known: Known<'_> =
            budgets.iter().filter(|_| !domains.is_empty()).map(|one| (one.rule.name.as_str(), one)).collect();
        let index_of = |one: &RateLimitDomain| Ok((one.name.clone(), DomainIndex::new(one, &known)?));
        let domains = domains.iter().map(index_of).collect::<Result<_, _>>()?;
        Ok(Self { budgets, index, routes, table, backends, prices, identity, domains })
    }

    /// The rule that serves the request: the most specific host, then the most headers, then the first (Gateway API's
    /// order). `None`: no route matches.
    pub fn route(&self, request: &RequestView<'_>) -> Option<RouteMatch<'_>> {
        self.table.find(&self.routes, request)
    }

    /// The rule at a position that [`Self::route`] gave.
    pub fn route_at(&self, position: RoutePosition) -> Option<RouteMatch<'_>> {
        position.find(&self.routes)
    }

    /// Every budget that the request is charged to, in the order of the manifests. Where a budget depends on the
    /// backend, it is the one that is tried first by priority and order.
    ///
    /// # Errors
    /// A subject longer than 512 bytes.
    pub fn budgets(
        &self,
        request: &RequestView<'_>,
        route: Option<&RouteMatch<'_>>,
    ) -> Result<Vec<BudgetMatch>, MatchError> {
        let first = route.and_then(|found| found.first_backend());
        self.budgets_on(request, route, first.map(|backend| backend.backend.as_str()))
    }

    /// As [`Self::budgets`], for a request that goes to `backend` (`namespace/name`).
    ///
    /// # Errors
    /// A subject longer than 512 bytes.
    pub fn budgets_on(
        &self,
        request: &RequestView<'_>,
        route: Option<&RouteMatch<'_>>,
        backend: Option<&str>,
    ) -> Result<Vec<BudgetMatch>, MatchError> {
        let way = Way { route, backend };
        let request = request.counted_on(route);
        let mut matches = Vec::new();
        let name = route.map_or(NO_ROUTE, |found| found.route.name.as_str());
        for number in self.index.candidates(&request, Some(name)) {
            if let Some(budget) = self.budgets.get(number as usize)
                && budget.applies(&request, way)
            {
                let subject = subject(&budget.rule.name, &budget.subject, &request, way)?;
                matches.push(BudgetMatch { budget: Arc::clone(budget), subject });
            }
        }
        Ok(matches)
    }

    /// What the ledger enforces, in the order of the manifests.
    pub fn rules(&self) -> Vec<BudgetRule> {
        self.budgets.iter().map(|budget| budget.rule.clone()).collect()
    }

    /// All budgets, in the order of the manifests.
    pub fn all_budgets(&self) -> &[Arc<Budget>] {
        &self.budgets
    }

    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    pub fn backends(&self) -> &[BackendSpec] {
        &self.backends
    }

    /// By `namespace/name`. `None`: a route names a backend that is not there.
    pub fn backend(&self, name: &str) -> Option<&BackendSpec> {
        self.backends.iter().find(|backend| backend.name == name)
    }

    /// Of Envoy's rate limit service. `None`: nobody configured it.
    pub fn domain(&self, name: &str) -> Option<&DomainIndex> {
        self.domains.get(name)
    }

    pub fn prices(&self) -> &Prices {
        &self.prices
    }

    pub fn identity(&self) -> &IdentityRules {
        &self.identity
    }
}

/// What a budget demands exactly.
fn keys(budget: &Budget) -> Vec<Choice> {
    let mut keys = index::choices(&budget.selector);
    keys.extend(
        budget
            .rule
            .tenant
            .clone()
            .map(|tenant| vec![Key::Exact(Field::Attribute(Attribute::Tenant), tenant)]),
    );
    keys.extend(budget.routes.as_ref().map(|names| names.iter().cloned().map(Key::Route).collect()));
    keys
}
