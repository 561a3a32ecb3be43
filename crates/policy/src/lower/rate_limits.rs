//! Domains of Envoy's rate limit service: a budget for each limit, and the tree by which a descriptor finds it.
//!
//! A budget is named by the way to its descriptor, so it keeps its accounts when others come and go. No request of a
//! gateway's own is charged to it: it is bound to no route.

use std::collections::HashMap;

use quorate_ledger::{Amount, BudgetRule, Enforcement, Unit, Window};

use crate::lower::Lowering;
use crate::lower::naming::bounded;
use crate::manifests::kinds::{DescriptorSpec, RateLimitConfig, RateLimitSpec};
use crate::manifests::object::Object;
use crate::runtime::{Budget, Cost, Descriptor, DescriptorLimit, RateLimitDomain};

/// What the service calls the budgets of all policies, unless its own configuration says otherwise.
const ATTRIBUTES_DOMAIN: &str = "quorate";
const WINDOWS: [Window; 7] =
    [Window::Second, Window::Minute, Window::Hour, Window::Day, Window::Week, Window::Month, Window::Year];

/// What of a domain is known so far.
#[derive(Default)]
struct Known {
    /// The names of limits, for `replaces`.
    names: Vec<String>,
    /// Of each budget, where its limit stands: `path: /api > v1`.
    places: HashMap<String, String>,
}

/// The way to a descriptor.
struct Way {
    /// As its budget is named.
    name: String,
    /// As people read it, with the steps told apart.
    place: String,
}

pub(crate) fn lower(lowering: &mut Lowering<'_>, object: &Object, config: &RateLimitConfig) {
    if config.domain == ATTRIBUTES_DOMAIN {
        lowering.warn(
            object,
            "the service keeps this name for the budgets of all other policies, unless its `attributes_domain` is another: nobody asks here",
        );
    }
    let mut known = Known::default();
    let above = Way { name: config.domain.clone(), place: String::new() };
    let descriptors = level(lowering, object, &above, &config.descriptors, &mut known);
    let replaced = |limit: &DescriptorLimit| limit.replaces.clone();
    for name in limits(&descriptors).flat_map(replaced).filter(|name| !known.names.contains(name)) {
        lowering.warn(object, &format!("no limit is named {name}, so nothing is replaced by that name"));
    }
    // What a request brings is no limit that the ledger could know: it counts there, and the service compares.
    let of_window =
        |window: Window| (window, bounded(&format!("{}/override/{}", config.domain, window.name())));
    let overrides: Vec<(Window, String)> = WINDOWS.into_iter().map(of_window).collect();
    for (window, name) in &overrides {
        let rule = BudgetRule::new(name.clone(), Unit::Cost, Amount::MAX, *window);
        let rule = BudgetRule { enforcement: Enforcement::Shadow, ..rule };
        push(lowering, object, &mut known, rule, "limits that requests bring", "limits that requests bring");
    }
    lowering.domains.push(RateLimitDomain { name: config.domain.clone(), descriptors, overrides });
}

fn level(
    lowering: &mut Lowering<'_>,
    object: &Object,
    above: &Way,
    specs: &[DescriptorSpec],
    known: &mut Known,
) -> Vec<Descriptor> {
    let mut level = Vec::new();
    for spec in specs {
        let way = above.to(spec);
        let limit = spec.limit.as_ref().map(|limit| {
            if !limit.name.is_empty() {
                known.names.push(limit.name.clone());
            }
            lower_limit(lowering, object, &way, known, (spec, limit))
        });
        level.push(Descriptor {
            key: spec.key.clone(),
            value: spec.value.clone(),
            share: spec.share_threshold,
            value_to_metric: spec.value_to_metric,
            limit,
            descriptors: self::level(lowering, object, &way, &spec.descriptors, known),
        });
    }
    level
}

impl Way {
    fn to(&self, spec: &DescriptorSpec) -> Self {
        let Self { name, place } = self;
        let (name, step) = match spec.value.as_str() {
            "" => (format!("{name}/{}", spec.key), spec.key.clone()),
            value => (format!("{name}/{}={value}", spec.key), format!("{}: {value}", spec.key)),
        };
        let place = if place.is_empty() { step } else { format!("{place} > {step}") };
        Self { name, place }
    }
}

fn lower_limit(
    lowering: &mut Lowering<'_>,
    object: &Object,
    way: &Way,
    known: &mut Known,
    (spec, limit): (&DescriptorSpec, &RateLimitSpec),
) -> DescriptorLimit {
    let (requests_per_unit, window) = limit.per.unwrap_or((u32::MAX, Window::Lifetime));
    let budget = limit.per.map(|_| {
        let name = bounded(&way.name);
        let most = Amount::from_units(requests_per_unit.into()).unwrap_or(Amount::MAX);
        let rule = BudgetRule {
            enforcement: match (spec.shadow, spec.leased) {
                (true, _) => Enforcement::Shadow,
                (false, true) => Enforcement::Lease,
                (false, false) => Enforcement::Reserve,
            },
            accounts_max: spec.accounts_max,
            ..BudgetRule::new(name.clone(), Unit::Cost, most, window)
        };
        let what = way.name.split_once('/').map_or(way.name.as_str(), |(_, path)| path);
        push(lowering, object, known, rule, what, &format!("`{}`", way.place));
        name
    });
    DescriptorLimit {
        budget,
        name: limit.name.clone(),
        replaces: limit.replaces.clone(),
        requests_per_unit,
        window,
        spending: spec.spending,
        shadow: spec.shadow,
        quota: spec.quota,
        detailed_metric: spec.detailed_metric,
        metadata: spec.metadata.clone(),
    }
}

fn push(
    lowering: &mut Lowering<'_>,
    object: &Object,
    known: &mut Known,
    rule: BudgetRule,
    what: &str,
    place: &str,
) {
    if let Some(other) = known.places.insert(rule.name.clone(), place.to_owned()) {
        let message = format!(
            "{other} and {place} would be one budget, {}; give one of the two another key or value, here and in the proxy, or a domain of its own",
            rule.name
        );
        return lowering.error(object, "descriptors", &message);
    }
    let budget = Budget {
        routes: Some(Vec::new()),
        explains: format!("{} {what}", object.key),
        ..Budget::new(rule, Cost::Number(Amount::ZERO))
    };
    lowering.push(object, budget);
}

fn limits(level: &[Descriptor]) -> Box<dyn Iterator<Item = &DescriptorLimit> + '_> {
    Box::new(level.iter().flat_map(|one| one.limit.iter().chain(limits(&one.descriptors))))
}
