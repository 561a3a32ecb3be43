//! Values that have rules of their own wherever they stand: names, headers, amounts, durations, addresses.

use quorate_ledger::Amount;

use crate::manifests::reader::Cursor;
use crate::manifests::yaml::Sort;
use crate::runtime::{CelCost, Cidr, Pattern};

pub(crate) const NAME_MAX_BYTES: usize = 128;
const OBJECT_NAME_MAX_BYTES: usize = 253;
/// Envoy Gateway's are made of the names of several objects.
const DOMAIN_MAX_BYTES: usize = 1024;
/// Envoy Gateway's own limit for a value to match.
const MATCH_VALUE_MAX_BYTES: usize = 1024;
/// Their values are keys. A subject or a condition is replicated and shown in tables, a key never.
const SECRET_HEADERS: [&str; 7] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
];

/// The name of a tenant or a model: any text that is not too long.
pub(crate) fn name(at: &Cursor<'_>) -> Option<String> {
    bounded(at, NAME_MAX_BYTES, "name")
}

/// The domain of a rate limit configuration: free text.
pub(crate) fn domain(at: &Cursor<'_>) -> Option<String> {
    bounded(at, DOMAIN_MAX_BYTES, "domain")
}

/// The name of an object or a namespace.
pub(crate) fn object_name(at: &Cursor<'_>) -> Option<String> {
    let name = bounded(at, OBJECT_NAME_MAX_BYTES, "name")?;
    // Kubernetes allows less still: no capitals, no `_`.
    let fine = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if let Some(wrong) = name.chars().find(|c| !fine(*c)) {
        return at.refuse(format!("a name with {wrong:?}; letters, digits, `-`, `.` and `_` are allowed"));
    }
    Some(name)
}

/// The name of a Budget: free text, as it has always been, that still leaves room for a namespace before it.
pub(crate) fn budget_name(at: &Cursor<'_>) -> Option<String> {
    let name = name(at)?;
    if name.contains('/') {
        return at.refuse("a name holds no `/`; it separates namespace and name");
    }
    Some(name)
}

fn bounded(at: &Cursor<'_>, max: usize, what: &str) -> Option<String> {
    let text = at.text()?;
    if text.is_empty() || text.len() > max || text.chars().any(char::is_control) {
        let bytes = text.len();
        return at.refuse(format!(
            "a {what} of {bytes} bytes or with control characters; 1 to {max} bytes without them are allowed"
        ));
    }
    Some(text.to_owned())
}

/// What a header or a parameter is compared with.
pub(crate) fn match_value(at: &Cursor<'_>) -> Option<String> {
    let text = at.text()?;
    if text.len() > MATCH_VALUE_MAX_BYTES {
        return at.refuse(format!("{} bytes, at most {MATCH_VALUE_MAX_BYTES} are allowed", text.len()));
    }
    Some(text.to_owned())
}

/// The name of a header whose value may be stored and shown; in lower case, as HTTP/2 has it.
pub(crate) fn header(at: &Cursor<'_>) -> Option<String> {
    let name = header_name(at)?;
    if SECRET_HEADERS.contains(&name.as_str()) {
        return at.refuse(format!(
            "header {name} carries keys, and its value would be stored and shown; name users by another header, such as x-user-id"
        ));
    }
    Some(name)
}

/// The name of any header (RFC 9110, section 5.6.2: token), in lower case.
pub(crate) fn header_name(at: &Cursor<'_>) -> Option<String> {
    let text = at.text()?;
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if text.is_empty() || text.len() > NAME_MAX_BYTES || !text.chars().all(token) {
        return at.refuse(format!("{text:?} is no header name; wanted something like x-user-id"));
    }
    Some(text.to_ascii_lowercase())
}

/// A number of units with up to six decimals, exact. A text is taken too, so that `"0.15"` may be quoted.
pub(crate) fn amount(at: &Cursor<'_>, min: Amount) -> Option<Amount> {
    let wanted = format!("a number from {min} to {} with at most 6 decimals", Amount::MAX);
    let number = at.scalar().filter(|scalar| matches!(scalar.sort, Sort::Integer | Sort::Float | Sort::Text));
    match number.and_then(|scalar| decimal(&scalar.text)) {
        Some(amount) if amount >= min => Some(amount),
        _ => at.expected(&wanted),
    }
}

/// `12.5` in millionths.
fn decimal(text: &str) -> Option<Amount> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|c| c.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || (whole.is_empty() && fraction.is_empty()) || whole.len() > 13 {
        return None;
    }
    let (kept, rest) = fraction.split_at_checked(6).unwrap_or((fraction, ""));
    if rest.bytes().any(|c| c != b'0') {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let micros: u64 = format!("{kept:0<6}").parse().ok()?;
    Amount::from_micros(whole.checked_mul(1_000_000)?.checked_add(micros)?).ok()
}

/// `1h30m`, `500ms`: Gateway API's durations, and days besides.
pub(crate) fn duration_ms(at: &Cursor<'_>, min_ms: u64, max_ms: u64) -> Option<u64> {
    let text = at.text()?;
    match parse_duration(text) {
        Some(ms) if (min_ms..=max_ms).contains(&ms) => Some(ms),
        Some(_) => at.refuse(format!(
            "a duration of `{text}`; from {} to {} is allowed",
            duration_text(min_ms),
            duration_text(max_ms)
        )),
        None => at.refuse(format!("`{text}` is no duration; wanted something like 500ms, 30s, 1h30m or 7d")),
    }
}

fn parse_duration(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total = 0_u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let (unit, ms) = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)]
            .into_iter()
            .find(|(unit, _)| rest.starts_with(unit))?;
        rest = &rest[unit.len()..];
        total = total.checked_add(number.checked_mul(ms)?)?;
    }
    (!text.is_empty()).then_some(total)
}

/// `90s`, `1h`: the largest unit that divides it.
pub(crate) fn duration_text(ms: u64) -> String {
    for (unit, length) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if ms > 0 && ms.is_multiple_of(length) {
            return format!("{}{unit}", ms / length);
        }
    }
    format!("{ms}ms")
}

pub(crate) fn pattern(at: &Cursor<'_>) -> Option<Pattern> {
    let text = at.text()?;
    Pattern::new(text).map_err(|error| at.error(error.to_string())).ok()
}

pub(crate) fn cidr(at: &Cursor<'_>) -> Option<Cidr> {
    let text = at.text()?;
    text.parse().map_err(|error: crate::runtime::CidrError| at.error(error.to_string())).ok()
}

/// A cost expression that compiles and gives a cost for sample usages.
pub(crate) fn expression(at: &Cursor<'_>) -> Option<CelCost> {
    let text = at.text()?;
    CelCost::new(text).map_err(|error| at.error(format!("cost expression: {error}"))).ok()
}
