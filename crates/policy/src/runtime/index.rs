//! Finds the few rules that may match a request, without looking at all of them.
//!
//! Each rule is filed under one of the things it demands exactly (a tenant, a route, a path, the value of a header, an
//! address prefix): the one that the fewest other rules demand. A request is looked up once for each *kind* of thing.
//! What is found still has to be checked; what is not found cannot match.

use std::collections::HashMap;
use std::net::IpAddr;

use super::{Attribute, Cidr, Condition, PathMatch, RequestView, Selector, TextMatch};

/// Something that a rule demands exactly.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Text(Attribute, String),
    Path(String),
    Route(String),
    Source(Cidr),
}

/// Any of these keys brings the rule up. Several only where a rule is bound to several routes.
pub(super) type Choice = Vec<Key>;

/// Rules by their number.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    /// A handful: the attributes that rules are filed under.
    texts: Vec<(Attribute, HashMap<String, Vec<u32>>)>,
    paths: HashMap<String, Vec<u32>>,
    routes: HashMap<String, Vec<u32>>,
    /// By the length of the prefix.
    sources: Vec<(u8, HashMap<Cidr, Vec<u32>>)>,
    /// Those that demand nothing exactly.
    others: Vec<u32>,
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
            Key::Text(attribute, value) => {
                group(&mut self.texts, attribute).entry(value.clone()).or_default()
            }
            Key::Path(path) => self.paths.entry(path.clone()).or_default(),
            Key::Route(name) => self.routes.entry(name.clone()).or_default(),
            Key::Source(cidr) => group(&mut self.sources, &cidr.length()).entry(*cidr).or_default(),
        }
    }

    /// The numbers of the rules that may match, ascending.
    pub fn candidates(&self, request: &RequestView<'_>, route: Option<&str>) -> Vec<u32> {
        let mut found = self.others.clone();
        for (attribute, values) in &self.texts {
            if let Some(value) = attribute.of(request) {
                extend(&mut found, values.get(value.as_ref()));
            }
        }
        if !self.paths.is_empty() {
            extend(&mut found, self.paths.get(request.path));
        }
        if let Some(route) = route {
            extend(&mut found, self.routes.get(route));
        }
        if let Some(address) = request.source {
            self.by_source(address, &mut found);
        }
        found.sort_unstable();
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

/// What the conditions demand exactly.
pub(super) fn choices(selector: &Selector) -> Vec<Choice> {
    let key = |condition: &Condition| match condition {
        Condition::Text { attribute, value: TextMatch::Exact(value), invert: false } => {
            Some(Key::Text(attribute.clone(), value.clone()))
        }
        Condition::Path { value: PathMatch::Exact(path), invert: false } => Some(Key::Path(path.clone())),
        Condition::Source { within, invert: false } => Some(Key::Source(*within)),
        _ => None,
    };
    selector.conditions.iter().filter_map(key).map(|key| vec![key]).collect()
}
