//! Budgets, routes and requests out of bytes. Few names and values, so that they meet; now and then any text at all.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::LazyLock;

use arbitrary::{Arbitrary, Result, Unstructured};
use quorate_ledger::{Amount, BudgetRule, Unit, Window};
use quorate_policy::runtime::{
    Attribute, BackendRef, BodyMutation, Budget, CelCost, Cidr, Condition, Cost, HeaderMatch, HeaderMutation,
    Identity, MODEL_HEADER, MethodMatch, NO_ROUTE, PathMatch, Pattern, Price, Route, RouteRule, Routing,
    Selector, Sticky, Strategy, SubjectPart, TextMatch, TokenKind, Usage,
};

use crate::scan::{Asked, Tokens};

const HEADERS: [&str; 6] = [MODEL_HEADER, "x-a", "x-b", "x-user-id", "x-team-id", "x-tenant-id"];
const PARAMETERS: [&str; 4] = ["q", "plan", "seat", ""];
const VALUES: [&str; 14] = [
    "1",
    "",
    "2",
    "12",
    "1é",
    "m",
    "M",
    "gpt-4o",
    "gpt-4o-mini",
    "premium",
    "engineering",
    "a+b",
    "100%",
    "\u{1}\n",
];
const PATTERNS: [&str; 12] = [
    "[12]",
    ".*",
    "",
    "1|2|22",
    "(1|12?).*",
    "^2$",
    "1{0,2}m?",
    "(?i)M",
    "\\x31.",
    "gpt-4o(-.*)?",
    "a\\+b|m",
    "1\\w",
];
const PATHS: [&str; 8] = ["/v1/chat", "/v1", "/v10", "/", "", "/1", "/12", "/v1/chat/completions"];
const QUERIES: [&str; 8] =
    ["q=1", "q=2&q=1", "x", "q", "plan=free", "%71=1", "seat=a%2Bb&=m", "q=%zz&plan=%e9"];
const HOSTS: [&str; 7] =
    ["api.example.com", "example.com", "a.b.example.org", "API.example.com", "", "[::1]", ".example.com"];
const HOST_PATTERNS: [&str; 7] =
    ["api.example.com", "*.example.com", "*", "*.Example.org", "example.com", "[::1]", "*.b.example.org"];
const SOURCES: [&str; 6] = ["10.1.2.3", "10.2.2.3", "::ffff:10.1.2.3", "2001:db8::1", "::1", "203.0.113.9"];
const PREFIXES: [&str; 7] =
    ["10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/0", "2001:db8::/32", "::/0", "10.1.2.3/32", "::ffff:10.1.0.0/112"];
const MODELS: [&str; 6] = ["gpt-4o", "gpt-4o-mini", "small", "gpt-4o-2024-08-06", "m", ""];
const TENANTS: [&str; 3] = ["acme", "other", "premium"];
const ROUTES: [&str; 3] = ["r0", "r1", "r2"];
const KINDS: [TokenKind; 6] = [
    TokenKind::Total,
    TokenKind::Input,
    TokenKind::Output,
    TokenKind::CachedInput,
    TokenKind::CacheCreationInput,
    TokenKind::Reasoning,
];
const VARIABLES: [&str; 6] = [
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cached_input_tokens",
    "cache_creation_input_tokens",
    "reasoning_tokens",
];
/// Below what floats lose of the sums below.
const TOKENS_MAX: u64 = 1 << 20;

/// Of the sorts whose bound is promised to hold: sums, products of different counts, steps at numbers they name.
static EXPRESSIONS: LazyLock<Vec<CelCost>> = LazyLock::new(|| {
    let texts = [
        "input_tokens * 0.25 + output_tokens * 1.0",
        "model == 'gpt-4o' ? input_tokens * 2 : output_tokens + 3",
        "input_tokens > 1000 ? input_tokens * 3 : input_tokens * 5",
        "input_tokens * output_tokens / 1000.0",
        "cached_input_tokens * 0.1 + (input_tokens - cached_input_tokens) * 1.0",
        "{'gpt-4o': 2.5, 'small': 0.5}[model] * total_tokens",
        "model.matches('^gpt-4o') ? total_tokens * 3u : total_tokens",
    ];
    texts.iter().map(|text| CelCost::new(text).unwrap()).collect()
});

/// One of them, or any text of a few characters.
fn text(u: &mut Unstructured<'_>, known: &[&str]) -> Result<String> {
    let free = known.len();
    let drawn = u.int_in_range(0..=free + 1)?;
    match known.get(drawn) {
        Some(text) => Ok((*text).to_owned()),
        None => Ok(String::arbitrary(u)?.chars().take(24).collect()),
    }
}

fn name(u: &mut Unstructured<'_>, known: &[&str]) -> Result<String> {
    Ok((*u.choose(known)?).to_owned())
}

pub fn many<T>(
    u: &mut Unstructured<'_>,
    most: usize,
    mut one: impl FnMut(&mut Unstructured<'_>, usize) -> Result<T>,
) -> Result<Vec<T>> {
    let count = u.int_in_range(0..=most)?;
    (0..count).map(|number| one(u, number)).collect()
}

fn maybe<T>(
    u: &mut Unstructured<'_>,
    one: impl FnOnce(&mut Unstructured<'_>) -> Result<T>,
) -> Result<Option<T>> {
    if bool::arbitrary(u)? { one(u).map(Some) } else { Ok(None) }
}

fn text_match(u: &mut Unstructured<'_>) -> Result<TextMatch> {
    if bool::arbitrary(u)? {
        return pattern(u).map(TextMatch::Pattern);
    }
    text(u, &VALUES).map(TextMatch::Exact)
}

/// A text that is none matches nothing but itself.
fn pattern(u: &mut Unstructured<'_>) -> Result<Pattern> {
    let source = text(u, &PATTERNS)?;
    Ok(Pattern::new(&source).unwrap_or_else(|_| Pattern::new("none").unwrap()))
}

fn attribute(u: &mut Unstructured<'_>) -> Result<Attribute> {
    Ok(match u.int_in_range(0..=7)? {
        0 => Attribute::Query(name(u, &PARAMETERS)?),
        1 => Attribute::Tenant,
        2 => Attribute::Team,
        3 => Attribute::User,
        4 => Attribute::Key,
        _ => Attribute::Header(name(u, &HEADERS)?),
    })
}

fn cidr(u: &mut Unstructured<'_>) -> Result<Cidr> {
    let drawn = if bool::arbitrary(u)? {
        name(u, &PREFIXES)?
    } else {
        format!("{}/{}", address(u)?, u.int_in_range(0..=128)?)
    };
    Ok(drawn.parse().unwrap_or_else(|_| PREFIXES[0].parse().unwrap()))
}

fn address(u: &mut Unstructured<'_>) -> Result<IpAddr> {
    Ok(match u.int_in_range(0..=3)? {
        0 => IpAddr::from(u32::arbitrary(u)?.to_be_bytes()),
        1 => IpAddr::from(u128::arbitrary(u)?.to_be_bytes()),
        _ => name(u, &SOURCES)?.parse().unwrap(),
    })
}

fn condition(u: &mut Unstructured<'_>) -> Result<Condition> {
    let kind = u.int_in_range(0..=7)?;
    let invert = bool::arbitrary(u)?;
    Ok(match kind {
        0 => Condition::Methods(many(u, 2, |u, _| {
            Ok(MethodMatch { method: name(u, &["GET", "POST", "PUT"])?, invert: bool::arbitrary(u)? })
        })?),
        1 => {
            let value = match u.int_in_range(0..=2)? {
                0 => PathMatch::Exact(text(u, &PATHS)?),
                1 => PathMatch::Prefix(text(u, &PATHS)?),
                _ => PathMatch::Pattern(pattern(u)?),
            };
            Condition::Path { value, invert }
        }
        2 => Condition::Source { within: cidr(u)?, invert },
        _ => Condition::Text { attribute: attribute(u)?, value: text_match(u)?, invert },
    })
}

fn part(u: &mut Unstructured<'_>) -> Result<SubjectPart> {
    Ok(match u.int_in_range(0..=10)? {
        0 => SubjectPart::Query(name(u, &PARAMETERS)?),
        1 => SubjectPart::Model,
        2 => SubjectPart::Tenant,
        3 => SubjectPart::Team,
        4 => SubjectPart::User,
        5 => SubjectPart::Key,
        6 => SubjectPart::Source,
        7 => SubjectPart::Route,
        8 => SubjectPart::Backend,
        _ => SubjectPart::Header(name(u, &HEADERS)?),
    })
}

fn cost(u: &mut Unstructured<'_>) -> Result<Cost> {
    Ok(match u.int_in_range(0..=7)? {
        0 => Cost::Dollars,
        1 => Cost::Number(Amount::from_units(u16::arbitrary(u)?.into()).unwrap()),
        2 | 3 => Cost::Cel(u.choose(EXPRESSIONS.as_slice())?.clone()),
        4 => match CelCost::new(&sum(u)?) {
            Ok(cost) => Cost::Cel(cost),
            // It goes below zero.
            Err(_) => Cost::Tokens(TokenKind::Total),
        },
        _ => Cost::Tokens(*u.choose(&KINDS)?),
    })
}

/// A sum of token counts times constants.
fn sum(u: &mut Unstructured<'_>) -> Result<String> {
    let mut sum = u8::arbitrary(u)?.to_string();
    for term in many(u, 5, |u, _| Ok((i8::arbitrary(u)?, *u.choose(&VARIABLES)?)))? {
        write!(sum, " + {:?} * {}", f64::from(term.0) / 10.0, term.1).unwrap();
    }
    Ok(sum)
}

pub fn budget(u: &mut Unstructured<'_>, number: usize) -> Result<Budget> {
    let limit = Amount::from_units(1_000).unwrap();
    let mut rule = BudgetRule::new(format!("b{number}"), Unit::Tokens, limit, Window::Hour);
    rule.tenant = maybe(u, |u| name(u, &TENANTS))?;
    let mut subject: Vec<SubjectPart> = many(u, 4, |u, _| part(u))?;
    subject.sort();
    subject.dedup();
    let conditions = many(u, 4, |u, _| condition(u))?;
    let routes = maybe(u, |u| many(u, 3, |u, _| name(u, &[NO_ROUTE, "r0", "r1", "inference/chat"])))?;
    let backends = maybe(u, |u| many(u, 2, |u, _| name(u, &["ns/a", "ns/b", "default/openai"])))?;
    let request_cost = Amount::from_units(u8::arbitrary(u)?.into()).unwrap();
    let one = Amount::from_units(1).unwrap();
    let price_fallback = maybe(u, |_| Ok(Price::new(one, one)))?;
    let selector = Selector { conditions };
    let made = Budget::new(rule, cost(u)?);
    Ok(Budget { selector, subject, routes, backends, request_cost, price_fallback, ..made })
}

pub fn route(u: &mut Unstructured<'_>, number: usize) -> Result<Route> {
    let hostnames = many(u, 2, |u, _| name(u, &HOST_PATTERNS))?;
    let rules = many(u, 3, |u, _| {
        let header =
            |u: &mut Unstructured<'_>, _| Ok(HeaderMatch { name: name(u, &HEADERS)?, value: text_match(u)? });
        let matches = many(u, 2, |u, _| many(u, 3, header))?;
        let backends = many(u, 3, |u, _| backend(u))?;
        let strategies = [Strategy::Weighted, Strategy::Cheapest, Strategy::LowestLatency];
        let sticky = maybe(u, |u| Ok(Sticky::Header(name(u, &HEADERS)?)))?;
        let routing = Routing { strategy: *u.choose(&strategies)?, sticky };
        Ok(RouteRule { matches, backends, routing, ..RouteRule::default() })
    })?;
    Ok(Route { name: ROUTES[number % ROUTES.len()].to_owned(), hostnames, rules })
}

fn backend(u: &mut Unstructured<'_>) -> Result<BackendRef> {
    Ok(BackendRef {
        backend: name(u, &["ns/a", "ns/b", "default/openai"])?,
        weight: u.int_in_range(0..=3)?,
        priority: u.int_in_range(0..=2)?,
        model_override: maybe(u, |u| text(u, &MODELS))?,
        header_mutation: HeaderMutation::default(),
        body_mutation: BodyMutation::default(),
    })
}

pub fn asked(u: &mut Unstructured<'_>) -> Result<Asked> {
    let (host, bare_host) = match maybe(u, host)? {
        Some((host, bare)) => (Some(host), bare),
        None => (None, String::new()),
    };
    Ok(Asked {
        method: name(u, &["POST", "GET", "PUT"])?,
        path: text(u, &PATHS)?,
        query: maybe(u, |u| text(u, &QUERIES))?,
        host,
        bare_host,
        source: maybe(u, address)?,
        model: text(u, &MODELS)?,
        headers: many(u, 5, |u, _| Ok((name(u, &HEADERS)?, text(u, &VALUES)?)))?,
        identity: Identity {
            tenant: text(u, &TENANTS)?,
            team: maybe(u, |u| text(u, &VALUES))?,
            user: maybe(u, |u| text(u, &VALUES))?,
            key: maybe(u, |u| text(u, &VALUES))?,
        },
    })
}

/// As it is sent, and bare.
fn host(u: &mut Unstructured<'_>) -> Result<(String, String)> {
    let mut host = name(u, &HOSTS)?;
    let bare = host.to_ascii_lowercase();
    if bool::arbitrary(u)? {
        host.push('.');
    }
    if let Some(port) = maybe(u, |u| u.arbitrary::<u16>())? {
        write!(host, ":{port}").unwrap();
    }
    Ok((host, bare))
}

/// As providers report them: what is cached is part of the input, reasoning of the output.
pub fn tokens(u: &mut Unstructured<'_>) -> Result<Tokens> {
    let input_max = u.int_in_range(0..=TOKENS_MAX)?;
    let output_max = u.int_in_range(0..=TOKENS_MAX)?;
    let input = u.int_in_range(0..=input_max)?;
    let output = u.int_in_range(0..=output_max)?;
    let cached_input = u.int_in_range(0..=input)?;
    let cache_creation_input = u.int_in_range(0..=input - cached_input)?;
    let reasoning = u.int_in_range(0..=output)?;
    let used = Usage { input, cached_input, cache_creation_input, output, reasoning, total: input + output };
    Ok(Tokens { input_max, output_max, used })
}
