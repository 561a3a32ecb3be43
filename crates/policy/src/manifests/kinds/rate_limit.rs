//! The configuration of envoyproxy/ratelimit: a domain and its descriptors, in the form that service reads, without
//! `apiVersion` and `kind`. What Quorate adds are the fields `enforcement`, `reserve` and `accounts_max` of a descriptor, and
//! `managed_by` of the domain.

use quorate_ledger::Window;

use crate::manifests::reader::{Cursor, Fields};
use crate::manifests::values;
use crate::manifests::yaml::{Node, Sort, Value};
use crate::runtime::{Metadata, Spending};

/// One domain.
#[derive(Debug, Clone)]
pub(crate) struct RateLimitConfig {
    pub domain: String,
    /// Who put it here and may take it away again; empty: an operator.
    pub managed_by: String,
    pub descriptors: Vec<DescriptorSpec>,
}

/// One entry that a request's descriptor may have, and what may follow it.
#[derive(Debug, Clone)]
pub(crate) struct DescriptorSpec {
    pub key: String,
    /// Empty: any value.
    pub value: String,
    pub limit: Option<RateLimitSpec>,
    pub shadow: bool,
    pub quota: bool,
    pub detailed_metric: bool,
    pub value_to_metric: bool,
    pub share_threshold: bool,
    pub metadata: Option<Metadata>,
    pub spending: Spending,
    /// Its account may be spent from slices.
    pub leased: bool,
    pub accounts_max: u32,
    pub descriptors: Vec<DescriptorSpec>,
}

#[derive(Debug, Clone)]
pub(crate) struct RateLimitSpec {
    /// `None`: unlimited.
    pub per: Option<(u32, Window)>,
    pub name: String,
    pub replaces: Vec<String>,
}

const DESCRIPTORS_MAX: usize = 20_000;
const REPLACES_MAX: usize = 64;
/// Of a key and of a value: Envoy Gateway's keys hold namespace, route, rule, match and host.
const KEY_MAX_BYTES: usize = 1024;
/// What nests deeper is no descriptor that anybody sends.
const DEPTH_MAX: usize = 16;
const UNITS: [(&str, Window); 7] = [
    ("second", Window::Second),
    ("minute", Window::Minute),
    ("hour", Window::Hour),
    ("day", Window::Day),
    ("week", Window::Week),
    ("month", Window::Month),
    ("year", Window::Year),
];

impl RateLimitConfig {
    /// Whether a document is one of these: it says `domain`, and no `kind`.
    pub fn is_one(document: &Node) -> bool {
        document.get("kind").is_none() && document.get("domain").is_some()
    }

    pub fn read(at: &Cursor<'_>) -> Option<Self> {
        let fields = at.fields()?;
        let domain = fields.need("domain").and_then(|domain| values::domain(&domain));
        let managed_by = fields.get("managed_by").map(|by| values::name(&by));
        let descriptors = read_level(&fields, 0);
        fields.done();
        Some(Self {
            domain: domain?,
            managed_by: managed_by.unwrap_or_default().unwrap_or_default(),
            descriptors,
        })
    }

    /// How many limits there are, for tables.
    pub fn limits(&self) -> usize {
        fn count(level: &[DescriptorSpec]) -> usize {
            level.iter().map(|one| usize::from(one.limit.is_some()) + count(&one.descriptors)).sum()
        }
        count(&self.descriptors)
    }
}

fn read_level(fields: &Fields<'_>, depth: usize) -> Vec<DescriptorSpec> {
    let mut level: Vec<DescriptorSpec> = Vec::new();
    let items = fields.list("descriptors", DESCRIPTORS_MAX);
    let mut known = std::collections::HashSet::new();
    for item in items {
        if depth >= DEPTH_MAX {
            item.error(format!("descriptors nest deeper than {DEPTH_MAX}"));
            break;
        }
        let Some(one) = DescriptorSpec::read(&item, depth) else { continue };
        if !known.insert((one.key.clone(), one.value.clone())) {
            let of = if one.value.is_empty() { String::new() } else { format!(" with value {}", one.value) };
            item.error(format!("key {}{of} stands twice at this level", one.key));
        }
        level.push(one);
    }
    level
}

impl DescriptorSpec {
    fn read(at: &Cursor<'_>, depth: usize) -> Option<Self> {
        let fields = at.fields()?;
        let key = fields.need("key").and_then(|key| text(&key, 1));
        let value = fields.get("value").map(|value| text(&value, 0));
        let limit = fields.get("rate_limit").map(|limit| RateLimitSpec::read(&limit));
        let metadata = fields.get("metadata").map(|metadata| read_metadata(metadata.node()));
        let (shadow, quota) = (fields.flag("shadow_mode"), fields.flag("quota_mode"));
        let (detailed_metric, value_to_metric) =
            (fields.flag("detailed_metric"), fields.flag("value_to_metric"));
        let share_threshold = fields.flag("share_threshold");
        let spending = read_spending(&fields);
        let accounts_max = fields.get("accounts_max").map(|max| max.integer(1, 1_000_000));
        let descriptors = read_level(&fields, depth + 1);
        fields.done();
        let value = match value {
            Some(value) => value?,
            None => String::new(),
        };
        if share_threshold && !value.contains('*') {
            at.error("share_threshold is only for a value with a `*`");
        }
        let limit = match limit {
            Some(limit) => Some(limit?),
            None => None,
        };
        if let (Some(limit), Some(spends)) = (&limit, fields.get("reserve").or(fields.get("enforcement")))
            && limit.per.is_none()
        {
            spends.error("has no effect on what is unlimited");
        }
        let (spending, leased) = spending?;
        let accounts_max = accounts_max.flatten().and_then(|max| u32::try_from(max).ok()).unwrap_or(0);
        Some(Self {
            key: key?,
            value,
            limit,
            shadow,
            quota,
            detailed_metric,
            value_to_metric,
            share_threshold,
            metadata,
            spending,
            leased,
            accounts_max,
            descriptors,
        })
    }
}

impl RateLimitSpec {
    fn read(at: &Cursor<'_>) -> Option<Self> {
        let fields = at.fields()?;
        let unlimited = fields.flag("unlimited");
        let name = fields.get("name").map(|name| values::name(&name));
        let mut replaces = Vec::new();
        for one in fields.list("replaces", REPLACES_MAX) {
            let Some(replaced) = one.fields() else { continue };
            replaces.extend(replaced.need("name").and_then(|name| values::name(&name)));
            replaced.done();
        }
        let unit = fields.get("unit");
        let requests = fields.get("requests_per_unit");
        let per = if unlimited {
            if let Some(unit) = unit {
                unit.error("goes not with unlimited; leave one of the two out");
            }
            Some(None)
        } else {
            let window = match unit {
                Some(unit) => read_unit(&unit),
                None => at.refuse("field unit is missing"),
            };
            let requests = match requests {
                Some(requests) => requests.integer(0, u32::MAX.into()),
                // As in the original: a number that is left out is 0, and lets nothing through.
                None => Some(0),
            };
            let requests = requests.and_then(|requests| u32::try_from(requests).ok());
            window.zip(requests).map(|(window, requests)| Some((requests, window)))
        };
        fields.done();
        let name = name.unwrap_or_else(|| Some(String::new()))?;
        if !name.is_empty() && replaces.contains(&name) {
            at.error("replaces itself; name another limit");
        }
        Some(Self { per: per?, name, replaces })
    }
}

/// In capitals or not.
fn read_unit(at: &Cursor<'_>) -> Option<Window> {
    let word = at.text()?;
    match UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)) {
        Some((_, window)) => Some(*window),
        None => at.unknown(word, &UNITS.map(|(name, _)| name)),
    }
}

/// And whether the account is leased.
fn read_spending(fields: &Fields<'_>) -> Option<(Spending, bool)> {
    let reserve = fields.get("reserve").map(|reserve| (reserve.flag(), reserve));
    let enforcement = fields.get("enforcement");
    let named = enforcement.map(|at| {
        at.choice(&[("Count", Spending::Count), ("Reserve", Spending::Whole), ("Lease", Spending::Lease)])
    });
    let leased = named == Some(Some(Spending::Lease));
    let spending = match (reserve, named) {
        (Some((Some(true), at)), Some(Some(Spending::Count))) => {
            at.refuse("is only for enforcement Reserve, which may be left out, and Lease")
        }
        (Some((Some(true), _)), _) => Some(Spending::Held),
        (Some((None, _)), _) => None,
        (_, Some(named)) => named,
        _ => Some(Spending::Count),
    };
    Some((spending?, leased))
}

/// Keys and values are texts, also where they look like numbers.
fn text(at: &Cursor<'_>, min: usize) -> Option<String> {
    let Some(scalar) = at.scalar().filter(|scalar| scalar.sort != Sort::Null) else {
        return at.expected("a text");
    };
    let text = &scalar.text;
    if text.len() < min || text.len() > KEY_MAX_BYTES || text.chars().any(char::is_control) {
        return at.refuse(format!("{min} to {KEY_MAX_BYTES} bytes without control characters are allowed"));
    }
    Some(text.clone())
}

fn read_metadata(node: &Node) -> Metadata {
    match &node.value {
        Value::Map(entries) => Metadata::Map(
            entries.iter().map(|entry| (entry.key.clone(), read_metadata(&entry.value))).collect(),
        ),
        Value::List(items) => Metadata::List(items.iter().map(read_metadata).collect()),
        Value::Scalar(scalar) => match scalar.sort {
            Sort::Null => Metadata::Null,
            Sort::Bool => Metadata::Bool(scalar.text.eq_ignore_ascii_case("true")),
            Sort::Integer | Sort::Float => match scalar.text.parse::<f64>() {
                Ok(number) if number.is_finite() => Metadata::Number(number),
                _ => Metadata::Text(scalar.text.clone()),
            },
            Sort::Text => Metadata::Text(scalar.text.clone()),
        },
    }
}
