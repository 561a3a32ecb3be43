//! Finds the limit of a descriptor without looking at all of a domain: one step down a tree for each entry.
//!
//! At each level the entry's value is looked for as it is, then among values with `*`, in the order of the configuration,
//! then under the key alone. There is no way back up: a value that stands there but leads nowhere matches nothing, as in
//! envoyproxy/ratelimit.

use std::collections::HashMap;
use std::sync::Arc;

use quorate_ledger::Window;

use super::subject::push_escaped;
use super::wildcard::Wildcard;
use super::{Budget, CompileError, Descriptor, DescriptorLimit, RateLimitDomain};

/// A domain, ready to be asked.
#[derive(Debug, Clone)]
pub struct DomainIndex {
    name: String,
    root: Level,
    overrides: Vec<(Window, Override)>,
}

/// Where limits count that requests bring themselves.
#[derive(Debug, Clone)]
pub struct Override {
    pub budget: Arc<Budget>,
    /// What metrics call it: `domain.override_Year`. One for all of them, since their values are the clients'.
    pub metric: Arc<str>,
}

/// The budgets of the policy, by name.
pub(super) type Known<'a> = HashMap<&'a str, &'a Arc<Budget>>;

/// A limit, and the account of it that a descriptor means.
#[derive(Debug, Clone)]
pub struct FoundLimit<'a> {
    pub limit: &'a Arc<DescriptorLimit>,
    /// `None`: unlimited.
    pub budget: Option<&'a Arc<Budget>>,
    /// The values that are not the configuration's own; empty: there is one account. As long as they are: it may have
    /// more than [`super::SUBJECT_MAX_BYTES`].
    pub subject: String,
    /// What metrics call it: `domain.key_value.key`.
    pub metric: Arc<str>,
}

type Level = HashMap<String, Key>;

/// What follows one key.
#[derive(Debug, Clone, Default)]
struct Key {
    exact: HashMap<String, Node>,
    patterns: Patterns,
    any: Option<Box<Node>>,
}

/// Values with `*`, by how they begin: a value is compared with those only that begin as it does.
#[derive(Debug, Clone, Default)]
struct Patterns {
    nodes: Vec<(Wildcard, Node)>,
    /// By the length of the beginning, in bytes.
    beginnings: Vec<(usize, HashMap<String, Vec<usize>>)>,
}

#[derive(Debug, Clone)]
struct Node {
    limit: Option<Arc<DescriptorLimit>>,
    budget: Option<Arc<Budget>>,
    /// The value that came is part of the subject.
    separates: bool,
    /// What metrics call this step: with the configured value, or with none.
    step: String,
    value_to_metric: bool,
    /// Of the whole way, where no value that comes stands in it.
    metric: Arc<str>,
    /// Some step of the way has a value in its metric that comes with the request.
    metric_varies: bool,
    next: Level,
}

impl DomainIndex {
    /// # Errors
    /// A limit names a budget that is not there.
    pub(super) fn new(domain: &RateLimitDomain, known: &Known<'_>) -> Result<Self, CompileError> {
        let overrides = domain.overrides.iter().map(|(window, name)| {
            let metric = format!("{}.override_{}", domain.name, window.name()).into();
            Ok((*window, Override { budget: budget(known, name)?, metric }))
        });
        Ok(Self {
            name: domain.name.clone(),
            root: level(&domain.descriptors, &domain.name, false, known)?,
            overrides: overrides.collect::<Result<_, _>>()?,
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// For limits of this window that requests bring themselves.
    pub fn of_override(&self, window: Window) -> Option<&Override> {
        self.overrides.iter().find(|(known, _)| *known == window).map(|(_, found)| found)
    }

    /// `None`: nothing limits it.
    pub fn find<'a, 'e>(
        &'a self,
        entries: impl ExactSizeIterator<Item = (&'e str, &'e str)> + Clone,
    ) -> Option<FoundLimit<'a>> {
        let mut at = &self.root;
        let mut subject = String::new();
        let mut left = entries.len();
        for (key, value) in entries.clone() {
            left -= 1;
            let node = at.get(key)?.find(value)?;
            if node.separates {
                if !subject.is_empty() {
                    subject.push_str(" + ");
                }
                push_escaped(&mut subject, value);
            }
            if left == 0 {
                let limit = node.limit.as_ref()?;
                let metric = self.metric(node, limit, entries);
                return Some(FoundLimit { limit, budget: node.budget.as_ref(), subject, metric });
            }
            at = &node.next;
        }
        None
    }

    fn metric<'e>(
        &self,
        node: &Node,
        limit: &DescriptorLimit,
        entries: impl Iterator<Item = (&'e str, &'e str)>,
    ) -> Arc<str> {
        if !limit.detailed_metric && !node.metric_varies {
            return Arc::clone(&node.metric);
        }
        let mut name = self.name.clone();
        let mut at = &self.root;
        for (key, value) in entries {
            let Some(node) = at.get(key).and_then(|key| key.find(value)) else { break };
            name.push('.');
            let with_value = node.separates && (limit.detailed_metric || node.value_to_metric);
            if with_value && !value.is_empty() {
                name.push_str(key);
                name.push('_');
                name.push_str(value);
            } else {
                name.push_str(&node.step);
            }
            at = &node.next;
        }
        name.into()
    }
}

/// The subject of a limit that a request brings itself: the whole descriptor, as long as it is.
pub fn override_subject<'e>(entries: impl Iterator<Item = (&'e str, &'e str)>) -> String {
    let mut subject = String::new();
    for (number, (key, value)) in entries.enumerate() {
        if number > 0 {
            subject.push_str(" + ");
        }
        push_escaped(&mut subject, key);
        // No `=` of a key can be taken for this one: two pairs that look alike would need one more of them.
        subject.push('=');
        push_escaped(&mut subject, value);
    }
    subject
}

fn budget(known: &Known<'_>, name: &str) -> Result<Arc<Budget>, CompileError> {
    let found = known.get(name).map(|found| Arc::clone(found));
    found.ok_or_else(|| CompileError::Budget {
        budget: name.to_owned(),
        problem: "a descriptor is limited by it, and it is not there".to_owned(),
    })
}

fn level(
    descriptors: &[Descriptor],
    above: &str,
    varies: bool,
    known: &Known<'_>,
) -> Result<Level, CompileError> {
    let mut level = Level::default();
    for one in descriptors {
        let step = if one.value.is_empty() { one.key.clone() } else { format!("{}_{}", one.key, one.value) };
        let metric = format!("{above}.{step}");
        let wild = one.value.contains('*');
        let separates = (one.value.is_empty() || wild) && !one.share;
        let metric_varies = varies || (separates && one.value_to_metric);
        let node = Node {
            budget: match one.limit.as_ref().and_then(|limit| limit.budget.as_deref()) {
                Some(name) => Some(budget(known, name)?),
                None => None,
            },
            limit: one.limit.clone().map(Arc::new),
            separates,
            value_to_metric: one.value_to_metric,
            next: self::level(&one.descriptors, &metric, metric_varies, known)?,
            metric: metric.into(),
            metric_varies,
            step,
        };
        let key = level.entry(one.key.clone()).or_default();
        match (one.value.as_str(), wild) {
            ("", _) => key.any = Some(Box::new(node)),
            (value, true) => key.patterns.push(Wildcard::new(value), node),
            (value, false) => drop(key.exact.insert(value.to_owned(), node)),
        }
    }
    Ok(level)
}

impl Key {
    fn find(&self, value: &str) -> Option<&Node> {
        self.exact.get(value).or_else(|| self.patterns.find(value)).or(self.any.as_deref())
    }
}

impl Patterns {
    fn push(&mut self, pattern: Wildcard, node: Node) {
        let beginning = pattern.beginning().to_owned();
        let length = beginning.len();
        let at = self.beginnings.iter().position(|(known, _)| *known == length).unwrap_or_else(|| {
            self.beginnings.push((length, HashMap::new()));
            self.beginnings.len() - 1
        });
        self.beginnings[at].1.entry(beginning).or_default().push(self.nodes.len());
        self.nodes.push((pattern, node));
    }

    /// The first that matches, in the order of the configuration.
    fn find(&self, value: &str) -> Option<&Node> {
        let begin_alike = |(length, by_beginning): &(usize, HashMap<String, Vec<usize>>)| {
            let numbers = value.get(..*length).and_then(|beginning| by_beginning.get(beginning))?;
            numbers.iter().copied().find(|number| self.nodes[*number].0.matches(value))
        };
        let first = self.beginnings.iter().filter_map(begin_alike).min()?;
        Some(&self.nodes[first].1)
    }
}
