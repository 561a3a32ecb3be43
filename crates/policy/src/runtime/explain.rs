//! Why a request is treated as it is: for `quorate explain`, the tool one reaches for when a limit surprises. It looks at
//! every budget, also at those that do not apply, and says why not. Not for the path of requests.

use std::sync::Arc;

use quorate_ledger::Amount;

use super::subject::{Way, subject};
use super::{
    Budget, CompiledPolicy, Condition, CostContext, CostError, MatchError, NO_ROUTE, Ranked, RequestView,
    RouteMatch, Signals,
};

/// What a policy makes of a request.
#[derive(Debug, Clone)]
pub struct Explanation<'a> {
    /// `None`: no route matches.
    pub route: Option<RouteMatch<'a>>,
    /// In the order in which they are tried. Equals, which are drawn by weight, stand in the order of the route, unless the
    /// request has what a sticky rule goes by.
    pub backends: Vec<Ranked<'a>>,
    /// All of them, in the order of the manifests.
    pub budgets: Vec<ExplainedBudget>,
}

#[derive(Debug, Clone)]
pub struct ExplainedBudget {
    pub budget: Arc<Budget>,
    pub verdict: Verdict,
}

/// Whether a budget applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Applies {
        subject: Result<String, MatchError>,
        /// What would be held for the request.
        reserve: Result<Amount, CostError>,
    },
    /// `header x-team-id = "red" does not hold: it is "blue"`.
    DoesNot { because: String },
}

impl CompiledPolicy {
    /// Explains a request with as many tokens as `signals` say, when it goes to the first of its backends.
    pub fn explain(&self, request: &RequestView<'_>, signals: &Signals<'_>) -> Explanation<'_> {
        let route = self.route(request);
        let backends = match &route {
            Some(found) if found.sticky_key(request, signals.conversation).is_some() => {
                found.ordered(request, signals)
            }
            Some(found) => found.ranks(request.model, signals),
            None => Vec::new(),
        };
        let first = backends.first().map(|first| first.backend.backend.as_str());
        let way = Way { route: route.as_ref(), backend: first };
        let Signals { input, output, .. } = *signals;
        let at = match &route {
            Some(found) => found.contexts(request.model),
            None => vec![CostContext { model: request.model, backend: "", route: "" }],
        };
        let request = request.counted_on(route.as_ref());
        let verdict = |budget: &Budget| match budget.mismatch(&request, way) {
            Some(because) => Verdict::DoesNot { because },
            None => Verdict::Applies {
                subject: subject(&budget.rule.name, &budget.subject, &request, way),
                reserve: budget.bound(input, output, &at, self.prices()),
            },
        };
        let explained =
            |budget: &Arc<Budget>| ExplainedBudget { budget: Arc::clone(budget), verdict: verdict(budget) };
        let budgets = self.all_budgets().iter().map(explained).collect();
        Explanation { route, backends, budgets }
    }
}

impl Budget {
    /// Why the budget does not apply. `None`: it does.
    fn mismatch(&self, request: &RequestView<'_>, way: Way<'_>) -> Option<String> {
        if self.applies(request, way) {
            return None;
        }
        let tenant = self.rule.tenant.iter().find(|tenant| **tenant != request.identity.tenant);
        if let Some(tenant) = tenant {
            return Some(format!(
                "it is for tenant {tenant}, and the request is of {}",
                request.identity.tenant
            ));
        }
        if self.is_of_descriptors() {
            return Some("it is for descriptors of Envoy's rate limit service".to_owned());
        }
        let route = Some(way.route.map_or(NO_ROUTE, |found| found.route.name.as_str()));
        for (kind, names, name) in [("route", &self.routes, route), ("backend", &self.backends, way.backend)]
        {
            let Some(names) = names else { continue };
            if !name.is_some_and(|name| names.iter().any(|known| known == name)) {
                let names: Vec<&str> = names.iter().map(|name| shown(name)).collect();
                let goes = shown(name.unwrap_or_default());
                return Some(format!(
                    "it is for {kind} {}, and the request goes to {goes}",
                    names.join(" or ")
                ));
            }
        }
        self.selector.failing(request).map(|condition| failed(condition, request))
    }
}

fn shown(name: &str) -> &str {
    if name == NO_ROUTE { "none" } else { name }
}

fn failed(condition: &Condition, request: &RequestView<'_>) -> String {
    let found = match condition {
        Condition::Text { attribute, .. } => attribute.of(request).map(|value| format!("{value:?}")),
        Condition::Methods(_) => Some(request.method.to_owned()),
        Condition::Path { .. } => Some(format!("{:?}", request.path)),
        Condition::Source { .. } => request.source.map(|address| address.to_string()),
    };
    match found {
        Some(found) => format!("{condition} does not hold: it is {found}"),
        None => format!("{condition} does not hold: it is missing"),
    }
}
