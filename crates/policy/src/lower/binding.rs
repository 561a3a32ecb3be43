//! Which routes a policy binds. A target that does not exist never lets a limit vanish: the policy then binds every
//! route of its namespace, or every request where that has none, and says so.

use crate::lower::Lowering;
use crate::manifests::Kind;
use crate::manifests::kinds::{AiGatewayRoute, Reference, Targets};
use crate::manifests::object::{Object, Spec};
use crate::runtime::NO_ROUTE;

/// What a policy binds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Binding {
    /// `None`: every request.
    pub routes: Option<Vec<String>>,
    /// Several targets were meant, and each counts for itself unless the rule is shared.
    pub apart: bool,
}

pub(crate) fn bind(lowering: &mut Lowering<'_>, policy: &Object, targets: &Targets) -> Binding {
    let namespace = &policy.key.namespace;
    let mut routes: Vec<String> = Vec::new();
    let mut missing: Vec<String> = Vec::new();
    for target in &targets.references {
        let found = routes_of(lowering, namespace, target);
        if found.is_empty() {
            missing.push(format!("{} {}", target.kind, target.name));
        }
        routes.extend(found);
    }
    for labels in &targets.labels {
        let found =
            names(lowering, |object, _| object.key.namespace == *namespace && labels.matches(&object.labels));
        if found.is_empty() {
            missing.push("route with the labels of its targetSelectors".to_owned());
        }
        routes.extend(found);
    }
    let no_target = targets.references.is_empty() && targets.labels.is_empty();
    let gateway = targets.references.iter().any(|target| target.kind == "Gateway");
    let apart = gateway || targets.references.len() > 1 || !targets.labels.is_empty();
    if missing.is_empty() && !no_target {
        routes.sort();
        routes.dedup();
        return Binding { routes: Some(routes), apart };
    }
    let all = names(lowering, |object, _| object.key.namespace == *namespace);
    let missing =
        if no_target { "it has no target".to_owned() } else { format!("there is no {}", missing.join(", ")) };
    if all.is_empty() {
        let message = format!("{missing}, and no route is in namespace {namespace}: it binds every request");
        lowering.warn(policy, &message);
        return Binding { routes: None, apart };
    }
    let message = format!("{missing}: it binds every route of namespace {namespace}");
    lowering.warn(policy, &message);
    // Nobody knows what the missing route would have taken: what no route takes counts too.
    let routes = all.into_iter().chain([NO_ROUTE.to_owned()]).collect();
    Binding { routes: Some(routes), apart }
}

/// An AI gateway makes an HTTPRoute of the same name out of each AIGatewayRoute, so both names mean it.
fn routes_of(lowering: &Lowering<'_>, namespace: &str, target: &Reference) -> Vec<String> {
    let namespace = target.namespace.as_deref().unwrap_or(namespace);
    names(lowering, |object, route| {
        if target.kind != "Gateway" {
            return object.key.namespace == namespace && object.key.name == target.name;
        }
        route.parents.iter().any(|parent| {
            parent.name == target.name
                && parent.namespace.as_deref().unwrap_or(&object.key.namespace) == namespace
        })
    })
}

fn names(lowering: &Lowering<'_>, wanted: impl Fn(&Object, &AiGatewayRoute) -> bool) -> Vec<String> {
    let name = |object: &Object| match &object.spec {
        Spec::Route(route) if wanted(object, route) => Some(object.key.full_name()),
        _ => None,
    };
    lowering.of_kind(Kind::AIGatewayRoute).filter_map(name).collect()
}
