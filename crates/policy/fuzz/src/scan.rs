//! The same answers the long way: every route and every budget looked at, one after the other.

use std::cmp::Reverse;
use std::net::IpAddr;

use quorate_policy::runtime::{
    Attribute, BackendRef, Budget, CompiledPolicy, CostContext, HeaderMatch, Identity, MatchError, NO_ROUTE,
    Prices, RequestView, Route, RouteMatch, RouteRule, SUBJECT_MAX_BYTES, Signals, SubjectPart, TextMatch,
    Usage, Verdict,
};

/// A request that owns its texts.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub query: Option<String>,
    pub host: Option<String>,
    /// The host in lower case, without port and final dots.
    pub bare_host: String,
    pub source: Option<IpAddr>,
    pub model: String,
    pub headers: Vec<(String, String)>,
    pub identity: Identity,
}

/// What a request may use at most, and what it did use.
#[derive(Debug, Clone, Copy)]
pub struct Tokens {
    pub input_max: u64,
    pub output_max: u64,
    pub used: Usage,
}

impl Asked {
    pub fn view(&self) -> RequestView<'_> {
        RequestView {
            method: &self.method,
            path: &self.path,
            query: self.query.as_deref(),
            host: self.host.as_deref(),
            source: self.source,
            model: &self.model,
            headers: &self.headers,
            identity: &self.identity,
        }
    }
}

/// Route, budgets, subjects and the explanation are those of a scan.
///
/// # Panics
/// They are not.
pub fn agrees(policy: &CompiledPolicy, asked: &Asked) {
    let request = asked.view();
    let found = policy.route(&request);
    let wanted = route(policy.routes(), asked);
    let place = |found: &RouteMatch<'_>| (found.route.name.clone(), found.index);
    assert_eq!(found.as_ref().map(place), wanted.map(|(route, index)| (route.name.clone(), index)));
    if let Some(found) = &found {
        assert_eq!(policy.route_at(found.position).as_ref().map(place), Some(place(found)));
        backends_are_ordered(policy, &request, found);
    }

    let first =
        found.as_ref().and_then(|found| first_backend(found.rule)).map(|first| first.backend.as_str());
    let name = found.as_ref().map_or(NO_ROUTE, |found| found.route.name.as_str());
    let model = found.as_ref().map_or(request.model, |found| found.counted_model(request.model));
    let counted = RequestView { model, ..request };
    let scanned: Vec<&Budget> = policy
        .all_budgets()
        .iter()
        .map(|budget| &**budget)
        .filter(|budget| applies(budget, &counted, name, first))
        .collect();
    let values = |budget: &Budget| -> Vec<String> {
        budget.subject.iter().map(|part| value(part, &counted, name, first)).collect()
    };

    let names: Vec<&str> = scanned.iter().map(|budget| budget.rule.name.as_str()).collect();
    match policy.budgets(&request, found.as_ref()) {
        Ok(matches) => {
            let indexed: Vec<&str> = matches.iter().map(|one| one.budget.rule.name.as_str()).collect();
            assert_eq!(indexed, names);
            for one in &matches {
                assert_eq!(parts(&one.subject, one.budget.subject.len()), values(&one.budget));
                assert!(!one.subject.chars().any(char::is_control) && one.subject.len() <= SUBJECT_MAX_BYTES);
            }
        }
        Err(MatchError::SubjectTooLong { budget, bytes }) => {
            assert!(bytes > SUBJECT_MAX_BYTES && names.contains(&budget.as_str()));
        }
    }

    // By its own order: what is cheapest, or where a conversation goes.
    let explained = policy.explain(&request, &signals(policy.prices()));
    assert_eq!(explained.budgets.len(), policy.all_budgets().len());
    let applying = explained.budgets.iter().filter(|one| matches!(one.verdict, Verdict::Applies { .. }));
    let goes_to = explained.backends.first().map(|first| first.backend.backend.as_str());
    let scanned = policy.all_budgets().iter().filter(|budget| applies(budget, &counted, name, goes_to));
    assert!(applying.map(|one| &one.budget.rule.name).eq(scanned.map(|budget| &budget.rule.name)));
}

/// No budget that the request meets charges more than its bound, whichever backend serves it.
///
/// # Panics
/// One does.
pub fn charges_within_bounds(policy: &CompiledPolicy, asked: &Asked, tokens: &Tokens) {
    let request = asked.view();
    let found = policy.route(&request);
    let at = match &found {
        Some(found) => found.contexts(request.model),
        None => vec![CostContext { model: request.model, backend: "", route: "" }],
    };
    let Ok(matches) = policy.budgets(&request, found.as_ref()) else { return };
    for budget in matches.iter().map(|one| &one.budget) {
        let bound = budget.bound(tokens.input_max, tokens.output_max, &at, policy.prices());
        let Ok(bound) = bound else { continue };
        for at in &at {
            let charged = budget.charge(&tokens.used, at, policy.prices());
            let charged = charged.unwrap_or_else(|error| panic!("{error}, bounded by {bound}"));
            assert!(charged <= bound, "{:?}: {charged} > {bound}", budget.cost);
        }
    }
}

/// Gateway API: the most specific host, then the most headers, then the first.
fn route<'a>(routes: &'a [Route], asked: &Asked) -> Option<(&'a Route, usize)> {
    let request = asked.view();
    let mut ways = Vec::new();
    for route in routes {
        let any = ["*".to_owned()];
        let hosts = if route.hostnames.is_empty() { &any[..] } else { &route.hostnames[..] };
        for (index, rule) in route.rules.iter().enumerate() {
            let every = [Vec::new()];
            let matches = if rule.matches.is_empty() { &every[..] } else { &rule.matches[..] };
            let fitting = matches.iter().filter(|all| all.iter().all(|one| header_fits(one, &request)));
            for headers in fitting {
                let ranks = hosts.iter().filter_map(|host| host_rank(host, &asked.bare_host));
                ways.extend(ranks.map(|rank| (Reverse((rank, headers.len())), route, index)));
            }
        }
    }
    ways.into_iter().min_by_key(|(rank, ..)| *rank).map(|(_, route, index)| (route, index))
}

fn header_fits(wanted: &HeaderMatch, request: &RequestView<'_>) -> bool {
    let found = Attribute::Header(wanted.name.clone()).of(request);
    found.is_some_and(|found| match &wanted.value {
        TextMatch::Exact(value) => *value == found,
        TextMatch::Pattern(pattern) => pattern.matches(&found),
    })
}

/// `None`: another host.
fn host_rank(name: &str, host: &str) -> Option<(u8, usize)> {
    let name = name.to_ascii_lowercase();
    match name.strip_prefix('*') {
        Some("") => Some((0, 0)),
        Some(suffix) => (host.len() > suffix.len() && host.ends_with(suffix)).then_some((1, suffix.len())),
        None => (name == host).then_some((2, name.len())),
    }
}

fn first_backend(rule: &RouteRule) -> Option<&BackendRef> {
    let mut first: Option<&BackendRef> = None;
    for backend in rule.backends.iter().filter(|backend| backend.weight > 0) {
        if first.is_none_or(|first| backend.priority < first.priority) {
            first = Some(backend);
        }
    }
    first
}

/// Each that gets anything, once, whatever is drawn and known; the same each time.
fn backends_are_ordered(policy: &CompiledPolicy, request: &RequestView<'_>, found: &RouteMatch<'_>) {
    let latency_ms = |backend: &str, _: &str| (backend != "ns/b").then_some(backend.len() as u64);
    for draw in [0, 1, u64::MAX] {
        let signals = Signals { draw, latency_ms: &latency_ms, ..signals(policy.prices()) };
        let ordered = found.ordered(request, &signals);
        assert_eq!(ordered, found.ordered(request, &signals));
        assert!(ordered.is_sorted_by_key(|one| (one.backend.priority, one.rank)));
        let count = found.rule.backends.iter().filter(|backend| backend.weight > 0).count();
        assert_eq!(ordered.len(), count);
        assert!(ordered.iter().all(|one| one.backend.weight > 0));
    }
}

/// Of a request of a moderate size, of which nothing else is known.
fn signals(prices: &Prices) -> Signals<'_> {
    Signals { draw: 0, conversation: None, input: 1_000, output: 100, prices, latency_ms: &|_, _| None }
}

fn applies(budget: &Budget, request: &RequestView<'_>, route: &str, backend: Option<&str>) -> bool {
    budget.rule.tenant.as_ref().is_none_or(|tenant| *tenant == request.identity.tenant)
        && budget.routes.as_ref().is_none_or(|names| names.iter().any(|name| name == route))
        && budget
            .backends
            .as_ref()
            .is_none_or(|names| names.iter().any(|name| Some(name.as_str()) == backend))
        && budget.selector.conditions.iter().all(|condition| condition.holds(request))
}

fn value(part: &SubjectPart, request: &RequestView<'_>, route: &str, backend: Option<&str>) -> String {
    let attribute = match part {
        SubjectPart::Model => return request.model.to_owned(),
        SubjectPart::Source => {
            return request.source.map(|address| address.to_canonical().to_string()).unwrap_or_default();
        }
        SubjectPart::Route => return route.to_owned(),
        SubjectPart::Backend => return backend.unwrap_or_default().to_owned(),
        SubjectPart::Header(name) => Attribute::Header(name.clone()),
        SubjectPart::Query(name) => Attribute::Query(name.clone()),
        SubjectPart::Tenant => Attribute::Tenant,
        SubjectPart::Team => Attribute::Team,
        SubjectPart::User => Attribute::User,
        SubjectPart::Key => Attribute::Key,
    };
    attribute.of(request).unwrap_or_default().into_owned()
}

/// The values that a subject was made of. That they can be told from it is why no two requests share one by accident.
fn parts(subject: &str, count: usize) -> Vec<String> {
    if count == 0 {
        assert_eq!(subject, "");
        return Vec::new();
    }
    let pieces: Vec<&str> = subject.split('+').collect();
    assert_eq!(pieces.len(), count, "{subject:?}");
    let inner = |(index, piece): (usize, &&str)| {
        let piece = if index > 0 { piece.strip_prefix(' ').unwrap() } else { piece };
        let piece = if index + 1 < count { piece.strip_suffix(' ').unwrap() } else { piece };
        unescaped(piece)
    };
    pieces.iter().enumerate().map(inner).collect()
}

fn unescaped(piece: &str) -> String {
    let mut bytes = Vec::new();
    let mut escapes = piece.split('%');
    bytes.extend(escapes.next().unwrap_or_default().bytes());
    for escape in escapes {
        bytes.push(u8::from_str_radix(&escape[..2], 16).unwrap());
        bytes.extend(escape[2..].bytes());
    }
    String::from_utf8(bytes).unwrap()
}
