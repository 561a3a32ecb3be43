//! kind: BackendTrafficPolicy. Only its global rate limits matter here.

use quorate_ledger::{Amount, Window};

use crate::manifests::kinds::{ClientSelector, Targets};
use crate::manifests::reader::{Cursor, Fields};
use crate::manifests::values;

#[derive(Debug, Clone)]
pub(crate) struct TrafficPolicy {
    pub targets: Targets,
    pub rules: Vec<TrafficRule>,
}

#[derive(Debug, Clone)]
pub(crate) struct TrafficRule {
    pub selector: ClientSelector,
    pub limit: Amount,
    pub window: Window,
    /// Charged for each request.
    pub request_cost: Amount,
    pub response_cost: ResponseCost,
    pub shared: bool,
    pub shadow: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ResponseCost {
    /// Answers cost nothing: the rule counts requests.
    Nothing,
    Number(Amount),
    /// The cost of this metadata key.
    Key(String),
}

/// Where the AI gateway leaves the costs of a request.
const METADATA_NAMESPACE: &str = "io.envoy.ai_gateway";
/// Of these only AIGatewayRoutes, under either name, and Gateways are here; a target of another kind does not exist.
const TARGET_KINDS: [&str; 8] = [
    "HTTPRoute",
    "AIGatewayRoute",
    "Gateway",
    "GRPCRoute",
    "ListenerSet",
    "TLSRoute",
    "TCPRoute",
    "UDPRoute",
];
const RULES_MAX: usize = 256;
pub(crate) const UNITS: [(&str, Window); 7] = [
    ("Second", Window::Second),
    ("Minute", Window::Minute),
    ("Hour", Window::Hour),
    ("Day", Window::Day),
    ("Week", Window::Week),
    ("Month", Window::Month),
    ("Year", Window::Year),
];
/// What shapes traffic between proxies and is none of a budget's business.
const WITHOUT_EFFECT: [&str; 22] = [
    "mergeType",
    "bandwidthLimit",
    "faultInjection",
    "admissionControl",
    "useClientProtocol",
    "compression",
    "compressor",
    "responseOverride",
    "httpUpgrade",
    "requestBuffer",
    "telemetry",
    "routingType",
    "loadBalancer",
    "retry",
    "proxyProtocol",
    "tcpKeepalive",
    "healthCheck",
    "circuitBreaker",
    "timeout",
    "connection",
    "dns",
    "http2",
];

impl TrafficPolicy {
    pub fn read(spec: &Cursor<'_>) -> Option<Self> {
        let fields = spec.fields()?;
        let targets = Targets::read(&fields, &TARGET_KINDS);
        let limit = fields.get("rateLimit");
        let rules = limit.as_ref().map(rate_limit).unwrap_or_default();
        fields.without_effect(&WITHOUT_EFFECT);
        fields.done();
        if limit.is_none() {
            spec.warn("has no rateLimit, so the policy limits nothing");
        }
        Some(Self { targets, rules })
    }
}

/// `{type, global: {rules}, local}`
fn rate_limit(at: &Cursor<'_>) -> Vec<TrafficRule> {
    let Some(fields) = at.fields() else { return Vec::new() };
    if let Some(kind) = fields.get("type") {
        kind.choice(&[("Global", ()), ("Local", ())]);
    }
    fields.unsupported("local", "a limit of the whole fleet is one under global");
    let global = fields.get("global");
    fields.done();
    let Some(global) = global else {
        if at.node().get("local").is_none() {
            at.error("field global is missing");
        }
        return Vec::new();
    };
    let Some(fields) = global.fields() else { return Vec::new() };
    fields.need("rules");
    let rules = fields.list("rules", RULES_MAX).iter().filter_map(rule).collect();
    fields.unsupported("shared", "set it on each rule");
    fields.done();
    rules
}

fn rule(at: &Cursor<'_>) -> Option<TrafficRule> {
    let fields = at.fields()?;
    let selector = ClientSelector::read_all(&fields);
    let limit = fields.need("limit").and_then(|limit| rule_limit(&limit));
    let (request_cost, response_cost) = match fields.get("cost") {
        Some(cost) => costs(&cost),
        None => (Some(one()), Some(ResponseCost::Nothing)),
    };
    let shared = fields.flag("shared");
    let shadow = fields.flag("shadowMode");
    if let Some(headers) = fields.get("xRateLimitHeaders") {
        headers.choice(&[("Off", ()), ("DraftVersion03", ())]);
        headers.warn("has no effect here: the gateway always sends them");
    }
    fields.done();
    let (limit, window) = limit?;
    Some(TrafficRule {
        selector,
        limit,
        window,
        request_cost: request_cost?,
        response_cost: response_cost?,
        shared,
        shadow,
    })
}

/// `{requests, unit, fromMetadata}`
fn rule_limit(at: &Cursor<'_>) -> Option<(Amount, Window)> {
    let fields = at.fields()?;
    let requests = fields.need("requests").and_then(|requests| whole(&requests));
    let unit = fields.need("unit").and_then(|unit| unit.choice(&UNITS));
    if let Some(metadata) = fields.get("fromMetadata") {
        metadata.warn("has no effect here: requests and unit hold for every request");
    }
    fields.done();
    Some((requests?, unit?))
}

/// `{request, response}`. An absent request cost is one, as in Envoy.
fn costs(at: &Cursor<'_>) -> (Option<Amount>, Option<ResponseCost>) {
    let Some(fields) = at.fields() else { return (None, None) };
    let request = match fields.get("request").map(|request| (cost(&request), request)) {
        None => Some(one()),
        Some((Some(ResponseCost::Number(number)), _)) => Some(number),
        Some((Some(_), request)) => request
            .refuse("is not known before the answer; use `from: Number` here and Metadata under response"),
        Some((None, _)) => None,
    };
    let response = match fields.get("response") {
        None => Some(ResponseCost::Nothing),
        Some(response) => cost(&response),
    };
    fields.done();
    (request, response)
}

/// `{from: Number, number}` or `{from: Metadata, metadata: {namespace, key}}`
fn cost(at: &Cursor<'_>) -> Option<ResponseCost> {
    let fields = at.fields()?;
    let from_metadata =
        fields.need("from").and_then(|from| from.choice(&[("Number", false), ("Metadata", true)]));
    let number = fields.get("number");
    let metadata = fields.get("metadata");
    fields.done();
    let from_metadata = from_metadata?;
    match (from_metadata, number, metadata) {
        (false, Some(number), None) => Some(ResponseCost::Number(whole(&number)?)),
        (true, None, Some(metadata)) => metadata_key(&metadata.fields()?).map(ResponseCost::Key),
        (false, None, _) => at.refuse("field number is missing; `from: Number` needs it"),
        (true, _, None) => at.refuse("field metadata is missing; `from: Metadata` needs it"),
        _ => at.refuse("has both number and metadata; `from` takes one of them"),
    }
}

fn metadata_key(fields: &Fields<'_>) -> Option<String> {
    if let Some(namespace) = fields.need("namespace") {
        namespace.choice(&[(METADATA_NAMESPACE, ())]);
    }
    let key = fields.need("key").and_then(|key| values::name(&key));
    fields.done();
    key
}

/// Envoy's limits and costs are 32 bits wide; ours may be larger.
fn whole(at: &Cursor<'_>) -> Option<Amount> {
    Amount::from_units(at.integer(0, Amount::MAX.units_floor())?).ok()
}

fn one() -> Amount {
    Amount::from_units(1).unwrap_or(Amount::ZERO)
}
