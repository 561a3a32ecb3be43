//! Buckets of a QuotaPolicy as budgets of its backends, in sliding windows.
//!
//! A request that matches rules of a model's quota is charged there, and passes while its rules have room; the default
//! bucket is for those that match none.

use quorate_ledger::{BudgetRule, Enforcement, Window};

use crate::lower::Lowering;
use crate::lower::costs::unit_of;
use crate::lower::naming::RuleNames;
use crate::manifests::Kind;
use crate::manifests::kinds::{Bucket, ModelQuota, QuotaPolicy, any_of};
use crate::manifests::object::{Object, Spec};
use crate::runtime::{Attribute, Budget, Condition, Cost, MODEL_HEADER, Selector, SubjectPart, TextMatch};

pub(crate) fn lower(lowering: &mut Lowering<'_>, object: &Object, quota: &QuotaPolicy) {
    let backends = bound_backends(lowering, object, quota);
    let mut names = RuleNames::new(object.key.full_name());
    let mut push = |lowering: &mut Lowering<'_>,
                    label: &str,
                    cost: &Cost,
                    bucket: &Bucket,
                    conditions: Vec<Condition>| {
        let window = Window::Sliding { ms: bucket.window_ms };
        let enforcement = if bucket.shadow { Enforcement::Shadow } else { Enforcement::Reserve };
        let rule = BudgetRule::new(names.next(label), unit_of(cost), bucket.limit, window);
        let mut subject = vec![SubjectPart::Backend];
        subject.extend(bucket.selector.subject.iter().cloned());
        let budget = Budget {
            selector: Selector { conditions },
            subject,
            backends: backends.clone(),
            explains: format!("{} {label}", object.key).trim_end().to_owned(),
            ..Budget::new(BudgetRule { enforcement, ..rule }, cost.clone())
        };
        lowering.push(object, budget);
    };
    if let Some((cost, bucket)) = &quota.service {
        push(lowering, "", cost, bucket, Vec::new());
    }
    for model in &quota.models {
        let is_model = model_condition(lowering, &model.model, backends.as_deref());
        if let Some(default) = &model.default
            && let Some(outside) = outside_of_rules(lowering, object, model)
        {
            let conditions = [vec![is_model.clone()], outside].concat();
            push(lowering, &model.model, &model.cost, default, conditions);
        }
        for bucket in &model.rules {
            let values = bucket.selector.exact_values().join("/");
            let label = if values.is_empty() { "rule" } else { &values };
            let conditions = [vec![is_model.clone()], bucket.selector.conditions.clone()].concat();
            push(lowering, &format!("{}/{label}", model.model), &model.cost, bucket, conditions);
        }
    }
}

/// Conditions under which a request matches none of the rules that enforce. `None`: every request matches one.
fn outside_of_rules(
    lowering: &mut Lowering<'_>,
    object: &Object,
    model: &ModelQuota,
) -> Option<Vec<Condition>> {
    let mut outside = Vec::new();
    for rule in model.rules.iter().filter(|rule| !rule.shadow) {
        match &rule.selector.conditions[..] {
            [] => {
                let message = format!(
                    "model {}: a bucket rule matches every request, so the default bucket is never used",
                    model.model
                );
                lowering.warn(object, &message);
                return None;
            }
            [one] if !matches!(one, Condition::Methods(_)) => outside.push(inverted(one)),
            _ => {
                let message = format!(
                    "model {}: requests of a bucket rule with several conditions are charged to the default bucket too",
                    model.model
                );
                lowering.warn(object, &message);
            }
        }
    }
    Some(outside)
}

fn inverted(condition: &Condition) -> Condition {
    let mut condition = condition.clone();
    match &mut condition {
        Condition::Text { invert, .. }
        | Condition::Path { invert, .. }
        | Condition::Source { invert, .. } => {
            *invert = !*invert;
        }
        Condition::Methods(_) => {}
    }
    condition
}

/// The targets; where one does not exist, every backend of the namespace, as for routes. `None`: any backend.
fn bound_backends(lowering: &mut Lowering<'_>, object: &Object, quota: &QuotaPolicy) -> Option<Vec<String>> {
    let namespace = &object.key.namespace;
    let of_namespace: Vec<&str> = lowering
        .of_kind(Kind::AIServiceBackend)
        .chain(lowering.of_kind(Kind::AIBackend))
        .filter(|other| other.key.namespace == *namespace)
        .map(|other| other.key.name.as_str())
        .collect();
    let full = |name: &str| format!("{namespace}/{name}");
    let targets: Vec<&str> = quota.targets.references.iter().map(|target| target.name.as_str()).collect();
    let missing: Vec<&str> = targets.iter().copied().filter(|name| !of_namespace.contains(name)).collect();
    if missing.is_empty() && !targets.is_empty() {
        return Some(targets.into_iter().map(full).collect());
    }
    let what = if targets.is_empty() {
        "it has no target".to_owned()
    } else {
        format!("there is no backend {}", missing.join(", "))
    };
    if of_namespace.is_empty() {
        let message = format!("{what}, and no backend is in namespace {namespace}: it binds every request");
        lowering.warn(object, &message);
        return None;
    }
    lowering.warn(object, &format!("{what}: it binds every backend of namespace {namespace}"));
    Some(of_namespace.into_iter().map(full).collect())
}

/// A quota names the model as the backend knows it; requests may name one that a route replaces by it.
fn model_condition(lowering: &Lowering<'_>, model: &str, backends: Option<&[String]>) -> Condition {
    let mut names = vec![model.to_owned()];
    for object in lowering.of_kind(Kind::AIGatewayRoute) {
        let Spec::Route(route) = &object.spec else { continue };
        for rule in &route.rules {
            let replaced = rule.backends.iter().any(|backend| {
                backend.model_override.as_deref() == Some(model)
                    && backends.is_none_or(|backends| backends.contains(&backend.backend))
            });
            if !replaced {
                continue;
            }
            for header in rule.matches.iter().flatten().filter(|header| header.name == MODEL_HEADER) {
                if let TextMatch::Exact(name) = &header.value
                    && !names.contains(name)
                {
                    names.push(name.clone());
                }
            }
        }
    }
    let value = any_of(&names).unwrap_or_else(|| TextMatch::Exact(model.to_owned()));
    Condition::Text { attribute: Attribute::Header(MODEL_HEADER.to_owned()), value, invert: false }
}
