//! Finds the few rules that may match a request, without looking at all of them.
//!
//! Each rule is filed under one of the things it demands (a tenant, a route, the value of a header or how it begins, a
//! path, an address prefix): the one that the fewest other rules demand. A request is looked up once for each *kind* of
//! thing. What is found still has to be checked; what is not found cannot match.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;

use super::{Attribute, Cidr, Condition, PathMatch, Pattern, RequestView, Selector, TextMatch};

/// A text of a request that rules are filed by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Field {
    Attribute(Attribute),
    Method,
    Path,
}

/// Something that a rule demands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Exact(Field, String),
    /// How the text begins.
    Prefix(Field, String),
    Route(String),
    Source(Cidr),
}

/// Any of these keys brings the rule up. Several where a rule is bound to several routes, or a pattern has several
/// beginnings.
pub(super) type Choice = Vec<Key>;

/// Rules by their number.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    /// A handful: the fields that rules are filed by.
    texts: Vec<(Field, Texts)>,
    routes: HashMap<String, Vec<u32>>,
    /// By the length of the prefix.
    sources: Vec<(u8, HashMap<Cidr, Vec<u32>>)>,
    /// Those that can be filed under nothing.
    others: Vec<u32>,
}

/// The rules that are filed by one field.
#[derive(Debug, Clone, Default)]
struct Texts {
    exact: HashMap<String, Vec<u32>>,
    /// By the length of the beginning, in bytes.
    prefixes: Vec<(usize, HashMap<String, Vec<u32>>)>,
}

impl Index {
    /// `rules`: for each rule the keys it may be filed under.
    pub fn new(rules: &[Vec<Choice>]) -> Self {
        let mut demand: HashMap<&Key, usize> = HashMap::new();
        for key in rules.iter().flatten().flatten() {
            *demand.entry(key).or_default() += 1;
        }
        let crowd = |choice: &&Choice| choice.iter().filter_map(|key| demand.get(key)).max().copied();
        let mut index = Self::default();
        for (number, choices) in (0..).zip(rules) {
            match choices.iter().min_by_key(crowd) {
                Some(choice) => choice.iter().for_each(|key| index.slot(key).push(number)),
                None => index.others.push(number),
            }
        }
        index
    }

    fn slot(&mut self, key: &Key) -> &mut Vec<u32> {
        match key {
            Key::Exact(field, value) => group(&mut self.texts, field).exact.entry(value.clone()).or_default(),
            Key::Prefix(field, prefix) => {
                let prefixes = &mut group(&mut self.texts, field).prefixes;
                group(prefixes, &prefix.len()).entry(prefix.clone()).or_default()
            }
            Key::Route(name) => self.routes.entry(name.clone()).or_default(),
            Key::Source(cidr) => group(&mut self.sources, &cidr.length()).entry(*cidr).or_default(),
        }
    }

    /// The numbers of the rules that may match, ascending, each once.
    pub fn candidates(&self, request: &RequestView<'_>, route: Option<&str>) -> Vec<u32> {
        let mut found = self.others.clone();
        for (field, texts) in &self.texts {
            if let Some(value) = field.of(request) {
                extend(&mut found, texts.exact.get(value.as_ref()));
                for (length, prefixes) in &texts.prefixes {
                    extend(&mut found, value.get(..*length).and_then(|start| prefixes.get(start)));
                }
            }
        }
        if let Some(route) = route {
            extend(&mut found, self.routes.get(route));
        }
        if let Some(address) = request.source {
            self.by_source(address, &mut found);
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    fn by_source(&self, address: IpAddr, found: &mut Vec<u32>) {
        for (length, prefixes) in &self.sources {
            if let Some(prefix) = Cidr::around(address, *length) {
                extend(found, prefixes.get(&prefix));
            }
        }
    }
}

impl Field {
    fn of<'a>(&self, request: &RequestView<'a>) -> Option<Cow<'a, str>> {
        match self {
            Self::Attribute(attribute) => attribute.of(request),
            Self::Method => Some(Cow::Borrowed(request.method)),
            Self::Path => Some(Cow::Borrowed(request.path)),
        }
    }
}

fn group<'a, K: Clone + PartialEq, V: Default>(groups: &'a mut Vec<(K, V)>, key: &K) -> &'a mut V {
    let at = groups.iter().position(|(known, _)| known == key).unwrap_or_else(|| {
        groups.push((key.clone(), V::default()));
        groups.len() - 1
    });
    &mut groups[at].1
}

fn extend(found: &mut Vec<u32>, numbers: Option<&Vec<u32>>) {
    if let Some(numbers) = numbers {
        found.extend_from_slice(numbers);
    }
}

/// What the conditions demand.
pub(super) fn choices(selector: &Selector) -> Vec<Choice> {
    let choice = |condition: &Condition| match condition {
        Condition::Text { attribute, value, invert: false } => text(attribute, value),
        Condition::Methods(any) if any.iter().all(|one| !one.invert) => {
            Some(any.iter().map(|one| Key::Exact(Field::Method, one.method.clone())).collect())
        }
        Condition::Path { value: PathMatch::Exact(path), invert: false } => {
            Some(vec![Key::Exact(Field::Path, path.clone())])
        }
        Condition::Path { value: PathMatch::Prefix(prefix), invert: false } => {
            Some(vec![Key::Prefix(Field::Path, prefix.trim_end_matches('/').to_owned())])
        }
        Condition::Path { value: PathMatch::Pattern(pattern), invert: false } => {
            beginnings(&Field::Path, pattern)
        }
        Condition::Source { within, invert: false } => Some(vec![Key::Source(*within)]),
        _ => None,
    };
    selector.conditions.iter().filter_map(choice).collect()
}

/// What a text demands.
pub(super) fn text(attribute: &Attribute, value: &TextMatch) -> Option<Choice> {
    let field = Field::Attribute(attribute.clone());
    match value {
        TextMatch::Exact(value) => Some(vec![Key::Exact(field, value.clone())]),
        TextMatch::Pattern(pattern) => beginnings(&field, pattern),
    }
}

fn beginnings(field: &Field, pattern: &Pattern) -> Option<Choice> {
    let prefixes = pattern.beginnings()?.into_iter();
    Some(prefixes.map(|prefix| Key::Prefix(field.clone(), prefix)).collect())
}
