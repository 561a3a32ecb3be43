//! kind: AIGatewayRoute. Which backends serve a request, in which order, and what answers cost.

use crate::manifests::kinds::target::{known_group, known_kind};
use crate::manifests::kinds::{CostDefinition, cost, mutation};
use crate::manifests::reader::{Cursor, Fields};
use crate::manifests::values;
use crate::runtime::{BackendRef, HeaderMatch, RouteRule, Routing, Sticky, Strategy, TextMatch};

#[derive(Debug, Clone)]
pub(crate) struct AiGatewayRoute {
    pub parents: Vec<ParentRef>,
    pub hostnames: Vec<String>,
    /// Backends carry the namespace of the route where they name none; see [`AiGatewayRoute::read`].
    pub rules: Vec<RouteRule>,
    pub costs: Vec<CostDefinition>,
}

/// A gateway that serves the route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ParentRef {
    pub namespace: Option<String>,
    pub name: String,
}

/// Official routes have at most 15; a few more do no harm.
const RULES_MAX: usize = 256;
const MATCHES_MAX: usize = 128;
const BACKENDS_MAX: usize = 128;
const HOSTNAMES_MAX: usize = 64;
const PARENTS_MAX: usize = 32;
const WEIGHT_MAX: u64 = 1_000_000;
const TIMEOUT_MAX_MS: u64 = 24 * 3_600_000;

impl AiGatewayRoute {
    /// `namespace`: that of the route.
    pub fn read(spec: &Cursor<'_>, namespace: &str) -> Option<Self> {
        let fields = spec.fields()?;
        // `targetRefs` is the name that early v1alpha1 had for it.
        let parents = ["parentRefs", "targetRefs"].map(|name| fields.list(name, PARENTS_MAX));
        let parents = parents.iter().flatten().filter_map(parent).collect();
        let hostnames = fields.list("hostnames", HOSTNAMES_MAX).iter().filter_map(hostname).collect();
        fields.need("rules");
        let rules =
            fields.list("rules", RULES_MAX).iter().filter_map(|rule| route_rule(rule, namespace)).collect();
        let costs = cost::read_costs(&fields, "llmRequestCosts");
        // The schema of requests, in v1alpha1; the gateway tells it by the path.
        fields.without_effect(&["schema", "filterConfig"]);
        fields.done();
        Some(Self { parents, hostnames, rules, costs })
    }
}

fn parent(at: &Cursor<'_>) -> Option<ParentRef> {
    let fields = at.fields()?;
    fields.get("group").and_then(|group| known_group(&group));
    if let Some(kind) = fields.get("kind") {
        known_kind(&kind, &["Gateway"]);
    }
    let namespace = fields.get("namespace").and_then(|namespace| values::object_name(&namespace));
    let name = fields.need("name").and_then(|name| values::object_name(&name));
    // One process, one listener.
    fields.get("sectionName");
    fields.get("port");
    fields.done();
    Some(ParentRef { namespace, name: name? })
}

/// `api.example.com` or `*.example.com`, in lower case.
fn hostname(at: &Cursor<'_>) -> Option<String> {
    let text = at.text()?;
    let name = text.strip_prefix("*.").unwrap_or(text);
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    if name.is_empty() || name.len() > 253 || !name.chars().all(fine) {
        return at.refuse(format!("`{text}` is no host name; wanted api.example.com or *.example.com"));
    }
    Some(text.to_ascii_lowercase())
}

fn route_rule(at: &Cursor<'_>, namespace: &str) -> Option<RouteRule> {
    let fields = at.fields()?;
    fields.get("name").and_then(|name| values::name(&name));
    let matches = fields.list("matches", MATCHES_MAX).iter().filter_map(headers_of).collect();
    let backends: Vec<BackendRef> = fields
        .list("backendRefs", BACKENDS_MAX)
        .iter()
        .filter_map(|backend| backend_ref(backend, namespace))
        .collect();
    let routing = fields.get("routing").and_then(|routing| routing_of(&routing)).unwrap_or_default();
    let (request_timeout_ms, stream_idle_timeout_ms) = timeouts(&fields);
    let models_owned_by = fields.get("modelsOwnedBy").and_then(|owner| values::name(&owner));
    let models_created_at = fields.get("modelsCreatedAt").and_then(|at| unix_seconds(&at));
    fields.done();
    Some(RouteRule {
        matches,
        backends,
        routing,
        request_timeout_ms,
        stream_idle_timeout_ms,
        models_owned_by,
        models_created_at,
    })
}

/// A match is all of its headers; other parts of an HTTPRoute's match are not in this kind.
fn headers_of(at: &Cursor<'_>) -> Option<Vec<HeaderMatch>> {
    let fields = at.fields()?;
    let headers = fields.list("headers", MATCHES_MAX).iter().filter_map(header_match).collect();
    fields.done();
    Some(headers)
}

fn header_match(at: &Cursor<'_>) -> Option<HeaderMatch> {
    let fields = at.fields()?;
    let name = fields.need("name").and_then(|name| values::header(&name));
    let is_pattern = match fields.get("type") {
        Some(kind) => kind.choice(&[("Exact", false), ("RegularExpression", true)]),
        None => Some(false),
    };
    let value = fields.need("value");
    fields.done();
    let (is_pattern, value) = (is_pattern?, value?);
    let value = if is_pattern {
        TextMatch::Pattern(values::pattern(&value)?)
    } else {
        TextMatch::Exact(values::match_value(&value)?)
    };
    Some(HeaderMatch { name: name?, value })
}

fn backend_ref(at: &Cursor<'_>, namespace: &str) -> Option<BackendRef> {
    let fields = at.fields()?;
    let name = fields.need("name").and_then(|name| values::object_name(&name));
    let own = fields.get("namespace").map(|namespace| values::object_name(&namespace));
    fields.get("group").and_then(|group| known_group(&group));
    if let Some(kind) = fields.get("kind") {
        match kind.text() {
            Some("InferencePool") => {
                kind.error(
                    "InferencePool is not supported; use an AIServiceBackend with a Backend in its place",
                );
            }
            _ => drop(known_kind(&kind, &["AIServiceBackend", "AIBackend"])),
        }
    }
    let model_override = fields.get("modelNameOverride").and_then(|model| values::name(&model));
    let header_mutation = mutation::headers(&fields);
    let body_mutation = mutation::body(&fields);
    let weight = fields.get("weight").map_or(Some(1), |weight| weight.integer(0, WEIGHT_MAX));
    let priority =
        fields.get("priority").map_or(Some(0), |priority| priority.integer(0, u64::from(u32::MAX)));
    fields.get("port");
    fields.done();
    let namespace = match own {
        Some(own) => own?,
        None => namespace.to_owned(),
    };
    Some(BackendRef {
        backend: format!("{namespace}/{}", name?),
        weight: u32::try_from(weight?).ok()?,
        priority: u32::try_from(priority?).ok()?,
        model_override,
        header_mutation,
        body_mutation,
    })
}

/// `{strategy: Cheapest, sticky: Conversation}`: a field of ours.
fn routing_of(at: &Cursor<'_>) -> Option<Routing> {
    let fields = at.fields()?;
    let strategy = fields.get("strategy").map_or(Some(Strategy::default()), |strategy| {
        strategy.choice(&[
            ("Weighted", Strategy::Weighted),
            ("Cheapest", Strategy::Cheapest),
            ("LowestLatency", Strategy::LowestLatency),
        ])
    });
    let sticky = fields.get("sticky").and_then(|sticky| sticky_of(&sticky));
    fields.done();
    Some(Routing { strategy: strategy?, sticky })
}

/// `Conversation`, or `{header: x-conversation-id}`
fn sticky_of(at: &Cursor<'_>) -> Option<Sticky> {
    if at.scalar().is_some() {
        at.choice(&[("Conversation", ())])?;
        return Some(Sticky::Conversation);
    }
    let fields = at.fields()?;
    let header = fields.need("header").and_then(|header| values::header(&header));
    fields.done();
    header.map(Sticky::Header)
}

/// Of the whole request, and between two pieces of a stream. `0s` is no timeout, as in Gateway API.
fn timeouts(fields: &Fields<'_>) -> (Option<u64>, Option<u64>) {
    let duration = |at: Cursor<'_>| values::duration_ms(&at, 0, TIMEOUT_MAX_MS);
    let mut request = None;
    if let Some(timeouts) = fields.get("timeouts").and_then(|timeouts| timeouts.fields()) {
        request = timeouts.get("request").and_then(duration);
        let of_backend = timeouts.get("backendRequest").and_then(duration);
        request = request.or(of_backend);
        timeouts.done();
    }
    (request, fields.get("streamIdleTimeout").and_then(duration))
}

/// `2024-05-13T00:00:00Z`
fn unix_seconds(at: &Cursor<'_>) -> Option<u64> {
    let text = at.text()?;
    let parsed: Result<jiff::Timestamp, _> = text.parse();
    match parsed.map(|time| u64::try_from(time.as_second())) {
        Ok(Ok(seconds)) => Some(seconds),
        _ => at.refuse(format!("`{text}` is no time; wanted something like 2024-05-13T00:00:00Z")),
    }
}
