//! Routes: which backends serve a request. In which order: `routing.rs`.

use super::{CostContext, MODEL_HEADER, Routing, TextMatch};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// `namespace/name`.
    pub name: String,
    /// `api.example.com` or `*.example.com`; empty: any.
    pub hostnames: Vec<String>,
    pub rules: Vec<RouteRule>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteRule {
    /// Any of these, all headers of each. Empty: every request.
    pub matches: Vec<Vec<HeaderMatch>>,
    pub backends: Vec<BackendRef>,
    /// Among those of equal priority.
    pub routing: Routing,
    pub request_timeout_ms: Option<u64>,
    pub stream_idle_timeout_ms: Option<u64>,
    /// For `GET /v1/models`.
    pub models_owned_by: Option<String>,
    /// For `GET /v1/models`: Unix seconds.
    pub models_created_at: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderMatch {
    /// In lower case. `x-ai-eg-model` is the effective model.
    pub name: String,
    pub value: TextMatch,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendRef {
    /// `namespace/name`.
    pub backend: String,
    /// Its share among those of the same priority; 0: gets nothing.
    pub weight: u32,
    /// The lowest is tried first. Only the order counts.
    pub priority: u32,
    pub model_override: Option<String>,
    pub header_mutation: HeaderMutation,
    pub body_mutation: BodyMutation,
}

/// Changes to the headers of a request on its way to a backend.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderMutation {
    pub set: Vec<(String, String)>,
    pub remove: Vec<String>,
}

/// Changes to the top-level fields of a JSON body on its way to a backend.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BodyMutation {
    pub set: Vec<BodyField>,
    pub remove: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BodyField {
    pub name: String,
    /// JSON.
    pub value: String,
}

/// The rule that a request met.
#[derive(Debug, Clone, Copy)]
pub struct RouteMatch<'a> {
    pub route: &'a Route,
    pub rule: &'a RouteRule,
    /// Of the rule, from 0.
    pub index: usize,
    pub position: RoutePosition,
}

/// Where a rule stands in its policy: what to keep of a [`RouteMatch`] for longer than it can be borrowed. Of no use with
/// another policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoutePosition {
    pub(super) route: usize,
    pub(super) rule: usize,
}

impl RoutePosition {
    /// `routes`: those of the policy.
    pub(super) fn find(self, routes: &[Route]) -> Option<RouteMatch<'_>> {
        let route = routes.get(self.route)?;
        Some(RouteMatch { route, rule: route.rules.get(self.rule)?, index: self.rule, position: self })
    }
}

impl<'a> RouteMatch<'a> {
    /// The backend that stands first by priority, then by place. `None`: the rule has none that gets anything.
    pub fn first_backend(&self) -> Option<&'a BackendRef> {
        self.rule.backends.iter().filter(|backend| backend.weight > 0).min_by_key(|backend| backend.priority)
    }

    /// The model that budgets count: what was asked for, where the rule looks at that (an override is then another name
    /// for it); else the model that the rule itself chooses. `asked`: the effective model of the request.
    pub fn counted_model<'b>(&self, asked: &'b str) -> &'b str
    where
        'a: 'b,
    {
        let looks = self.rule.matches.iter().flatten().any(|header| header.name == MODEL_HEADER);
        let chosen = self.first_backend().filter(|_| !looks);
        chosen.and_then(|backend| backend.model_override.as_deref()).unwrap_or(asked)
    }

    /// Every way in which the request can be served, for [`super::Cost::bound`]. `model`: the effective one.
    pub fn contexts<'b>(&self, model: &'b str) -> Vec<CostContext<'b>>
    where
        'a: 'b,
    {
        let serving = self.rule.backends.iter().filter(|backend| backend.weight > 0);
        serving.map(|backend| self.context(backend, model)).collect()
    }

    /// One of them, for [`super::Cost::of`].
    pub fn context<'b>(&self, backend: &'a BackendRef, model: &'b str) -> CostContext<'b>
    where
        'a: 'b,
    {
        CostContext {
            model: backend.model_override.as_deref().unwrap_or(model),
            backend: &backend.backend,
            route: &self.route.name,
        }
    }
}
