//! Objects of kind Budget: one budget for each of its levels, charged together or not at all.

use quorate_ledger::{BudgetRule, Unit};

use crate::lower::Lowering;
use crate::lower::alert::AlertRoute;
use crate::lower::binding::bind;
use crate::lower::naming::bounded;
use crate::manifests::Kind;
use crate::manifests::kinds::{BudgetSpec, Level, Reference, Targets};
use crate::manifests::object::{DEFAULT_NAMESPACE, Object, Spec};
use crate::runtime::{Budget, Selector, SubjectPart};

pub(crate) fn lower(lowering: &mut Lowering<'_>, object: &Object, spec: &BudgetSpec) {
    let zone = match &spec.time_zone {
        Some(name) => {
            let Some(offsets) = lowering.zones.offsets(name) else {
                lowering.error(object, "spec.timeZone", &format!("unknown time zone `{name}`"));
                return;
            };
            offsets
        }
        None => Vec::new(),
    };
    let routes = spec.routes.as_ref().and_then(|routes| {
        let references = routes.iter().map(|route| {
            let (namespace, name) = route.split_once('/').unwrap_or((DEFAULT_NAMESPACE, route));
            Reference {
                kind: "AIGatewayRoute".to_owned(),
                namespace: Some(namespace.to_owned()),
                name: name.to_owned(),
            }
        });
        let targets = Targets { references: references.collect(), labels: Vec::new() };
        bind(lowering, object, &targets).routes
    });
    spec.backends.iter().flatten().for_each(|backend| check_backend(lowering, object, backend));
    if spec.price_fallback.is_some() && spec.levels.iter().all(|level| level.limit.unit != Unit::Dollars) {
        lowering.warn(object, "priceFallback has no effect: no limit is in dollars");
    }
    for level in &spec.levels {
        let rule = BudgetRule {
            tenant: spec.tenant.clone(),
            zone: zone.clone(),
            enforcement: spec.enforcement,
            carry_over: level.carry_over,
            alerts: level.alerts.clone(),
            accounts_max: spec.accounts_max,
            ..BudgetRule::new(name(object, level), level.limit.unit, level.limit.limit, level.window)
        };
        if let Some(webhook) = &spec.alerts.webhook {
            let (url, secret) = (webhook.url.clone(), webhook.secret.clone());
            lowering.alerts.push(AlertRoute { budget: rule.name.clone(), url, secret });
        }
        let of_level = level.name.as_ref().map(|name| format!(" level {name}")).unwrap_or_default();
        let budget = Budget {
            selector: Selector { conditions: spec.selector.conditions.clone() },
            subject: subject(level, &spec.selector.subject),
            routes: routes.clone(),
            backends: spec.backends.clone(),
            request_cost: level.limit.request_cost,
            output_default: spec.output.default,
            output_floor: spec.output.floor,
            output_max: spec.output.max,
            when_short: spec.when_short,
            max_wait_ms: spec.max_wait_ms,
            on_cluster_loss: spec.on_cluster_loss,
            tiers: spec.tiers.clone(),
            price_fallback: spec.price_fallback,
            explains: format!("{}{of_level}", object.key),
            ..Budget::new(rule, level.limit.cost.clone())
        };
        lowering.push(object, budget);
    }
}

/// Requests only go to names that a route has. One that none has yet limits nothing, and nothing goes there.
fn check_backend(lowering: &mut Lowering<'_>, object: &Object, backend: &str) {
    let routed = lowering.of_kind(Kind::AIGatewayRoute).any(|route| match &route.spec {
        Spec::Route(route) => {
            route.rules.iter().flat_map(|rule| &rule.backends).any(|one| one.backend == backend)
        }
        _ => false,
    });
    if !routed {
        lowering.warn(object, &format!("no route sends requests to backend {backend}: nothing counts there"));
    }
}

/// `user-hourly`, `ai-services/user-hourly`, `acme/team`: the default namespace goes without saying.
fn name(object: &Object, level: &Level) -> String {
    let key = &object.key;
    let base = if key.namespace == DEFAULT_NAMESPACE { key.name.clone() } else { key.full_name() };
    bounded(&match &level.name {
        Some(level) => format!("{base}/{level}"),
        None => base,
    })
}

/// The level's own parts, and those that the selector says `Distinct` of.
fn subject(level: &Level, distinct: &[SubjectPart]) -> Vec<SubjectPart> {
    let mut subject = level.subject.clone();
    subject.extend(distinct.iter().filter(|part| !level.subject.contains(part)).cloned());
    subject
}
