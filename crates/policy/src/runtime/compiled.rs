//! The compiled policy: what a gateway asks about every request.

use std::sync::Arc;

use quorate_ledger::BudgetRule;

use super::{
    BackendSpec, Budget, BudgetMatch, CompileError, IdentityRules, MatchError, Prices, RequestView, Route,
    RouteMatch,
};

/// What a policy is made of. Names are resolved: budgets and routes name backends and routes that are here.
#[derive(Debug, Clone, Default)]
pub struct PolicyParts {
    /// In the order of the manifests.
    pub budgets: Vec<Budget>,
    pub routes: Vec<Route>,
    pub backends: Vec<BackendSpec>,
    pub prices: Prices,
    pub identity: IdentityRules,
}

/// A policy in force. Immutable; shared between threads.
#[derive(Debug, Clone)]
pub struct CompiledPolicy {
    budgets: Vec<Arc<Budget>>,
    routes: Vec<Route>,
    backends: Vec<BackendSpec>,
    prices: Prices,
    identity: IdentityRules,
}

impl CompiledPolicy {
    /// # Errors
    /// Names that stand twice or nowhere, and values that do not fit together.
    pub fn new(parts: PolicyParts) -> Result<Self, CompileError> {
        let PolicyParts { budgets, routes, backends, prices, identity } = parts;
        let budgets = budgets.into_iter().map(Arc::new).collect();
        Ok(Self { budgets, routes, backends, prices, identity })
    }

    /// The rule that serves the request: the most specific host, then the most headers, then the first (Gateway API's
    /// order). `None`: no route matches.
    pub fn route(&self, request: &RequestView<'_>) -> Option<RouteMatch<'_>> {
        let _ = request;
        None
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
        let first = route.and_then(|route| route.rule.backends.iter().min_by_key(|backend| backend.priority));
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
        let _ = (request, route, backend);
        Ok(Vec::new())
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

    pub fn prices(&self) -> &Prices {
        &self.prices
    }

    pub fn identity(&self) -> &IdentityRules {
        &self.identity
    }
}
