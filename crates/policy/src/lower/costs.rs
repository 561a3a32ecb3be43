//! Metadata keys: from the name by which a rule refers to a cost to the cost itself.

use quorate_ledger::Unit;

use crate::lower::{Lowering, mistake};
use crate::manifests::Kind;
use crate::manifests::kinds::{CostDefinition, same_cost, token_cost};
use crate::manifests::object::{Object, Spec};
use crate::nearest::nearest;
use crate::runtime::{Cost, NO_ROUTE};

/// A cost, and the routes on which the key stands for it.
#[derive(Debug)]
pub(crate) struct KeyCost {
    pub cost: Cost,
    /// `None`: every request.
    pub routes: Option<Vec<String>>,
}

/// What a key costs on these routes. Routes may define it differently: each meaning once, the first route's first.
/// Nothing: the key is unknown (and reported).
pub(crate) fn costs_of_key(
    lowering: &mut Lowering<'_>,
    policy: &Object,
    path: &str,
    key: &str,
    routes: Option<&[String]>,
) -> Vec<KeyCost> {
    let mut costs: Vec<KeyCost> = Vec::new();
    let Some(routes) = routes else {
        let cost = find(lowering, policy, path, key, None);
        return cost.into_iter().map(|cost| KeyCost { cost, routes: None }).collect();
    };
    for route in routes {
        let Some(cost) = find(lowering, policy, path, key, Some(route)) else { return Vec::new() };
        match costs.iter_mut().find(|known| same_cost(&known.cost, &cost)) {
            Some(known) => known.routes.get_or_insert_default().push(route.clone()),
            None => costs.push(KeyCost { cost, routes: Some(vec![route.clone()]) }),
        }
    }
    costs
}

/// What answers are counted in.
pub(crate) fn unit_of(cost: &Cost) -> Unit {
    match cost {
        Cost::Tokens(_) => Unit::Tokens,
        Cost::Dollars => Unit::Dollars,
        Cost::Cel(_) | Cost::Number(_) => Unit::Cost,
    }
}

/// The route's own, then the namespace's, then anybody's, then the well-known token counts.
fn find(
    lowering: &mut Lowering<'_>,
    policy: &Object,
    path: &str,
    key: &str,
    route: Option<&str>,
) -> Option<Cost> {
    let route = route.filter(|route| *route != NO_ROUTE);
    let namespace = &policy.key.namespace;
    let own = |object: &Object| route.is_some_and(|route| object.key.full_name() == route);
    let ranked = |object: &&Object| match &object.spec {
        Spec::Route(_) if own(object) => 0,
        Spec::RequestCosts(_) | Spec::GatewayConfig(_) if object.key.namespace == *namespace => 1,
        Spec::GatewayConfig(_) => 2,
        // Without a route of its own, a policy may still mean what a route of its namespace defines.
        Spec::Route(_) if route.is_none() && object.key.namespace == *namespace => 3,
        _ => 4,
    };
    let kinds = [Kind::AIGatewayRoute, Kind::LLMRequestCost, Kind::GatewayConfig];
    let definers = kinds.into_iter().flat_map(|kind| lowering.of_kind(kind));
    let mut definers: Vec<&Object> = definers.filter(|object| ranked(object) < 4).collect();
    definers.sort_by_key(ranked);
    let defined = definers.iter().flat_map(|object| definitions(object));
    if let Some(found) = defined.clone().find(|definition| definition.key == key) {
        return Some(found.cost.clone());
    }
    if let Some(kind) = token_cost(key) {
        let message = format!(
            "nothing defines the metadata key {key}; it counts tokens by its name (an LLMRequestCost or llmRequestCosts would say so)"
        );
        if !lowering.warnings.iter().any(|warning| warning.ends_with(&message)) {
            lowering.warn(policy, &message);
        }
        return Some(Cost::Tokens(kind));
    }
    let known: Vec<&str> = defined.map(|definition| definition.key.as_str()).collect();
    let list = if known.is_empty() {
        "none is defined".to_owned()
    } else {
        format!("known are {}", known.join(", "))
    };
    let message = format!(
        "unknown metadata key `{key}`, {list}; define it in an LLMRequestCost or under llmRequestCosts of the route"
    );
    let meant = nearest(key, known.iter().copied());
    lowering.errors.push(mistake(policy, path, &message).meant(meant));
    None
}

fn definitions(object: &Object) -> &[CostDefinition] {
    match &object.spec {
        Spec::Route(route) => &route.costs,
        Spec::RequestCosts(costs) => &costs.costs,
        Spec::GatewayConfig(config) => &config.costs,
        _ => &[],
    }
}
