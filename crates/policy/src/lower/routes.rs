//! AIGatewayRoutes as routes; what an AIServiceBackend changes about requests goes to each reference to it.

use crate::lower::Lowering;
use crate::manifests::Kind;
use crate::manifests::kinds::AiServiceBackend;
use crate::manifests::object::{Object, Spec};
use crate::runtime::{BackendRef, BodyMutation, HeaderMutation, Route};

pub(crate) fn lower(lowering: &mut Lowering<'_>) -> Vec<Route> {
    let mut routes = Vec::new();
    for object in lowering.of_kind(Kind::AIGatewayRoute) {
        let Spec::Route(route) = &object.spec else { continue };
        let mut rules = route.rules.clone();
        for (index, rule) in rules.iter_mut().enumerate() {
            if rule.backends.is_empty() {
                lowering.warn(
                    object,
                    &format!("rule {} has no backendRefs: its requests are refused", index + 1),
                );
            }
            for backend in &mut rule.backends {
                complete(lowering, object, backend);
            }
        }
        let name = object.key.full_name();
        routes.push(Route { name, hostnames: route.hostnames.clone(), rules });
    }
    routes
}

/// A backend that is not there yet is a warning: manifests may come one file after the other.
fn complete(lowering: &mut Lowering<'_>, route: &Object, backend: &mut BackendRef) {
    match lowering.backend(&backend.backend).map(|object| &object.spec) {
        None => {
            let message = format!(
                "there is no backend {}: requests cannot go there until it is applied",
                backend.backend
            );
            lowering.warn(route, &message);
        }
        Some(Spec::AiServiceBackend(service)) => mutate(backend, service),
        Some(_) => {}
    }
}

/// What the route says wins over what the backend says.
fn mutate(backend: &mut BackendRef, service: &AiServiceBackend) {
    let HeaderMutation { set, remove } = &service.header_mutation;
    let own = &mut backend.header_mutation;
    for (name, value) in set {
        if !own.set.iter().any(|(other, _)| other == name) && !own.remove.contains(name) {
            own.set.push((name.clone(), value.clone()));
        }
    }
    for name in remove {
        if !own.remove.contains(name) && !own.set.iter().any(|(other, _)| other == name) {
            own.remove.push(name.clone());
        }
    }
    let BodyMutation { set, remove } = &service.body_mutation;
    let own = &mut backend.body_mutation;
    for field in set {
        if !own.set.iter().any(|other| other.name == field.name) && !own.remove.contains(&field.name) {
            own.set.push(field.clone());
        }
    }
    for name in remove {
        if !own.remove.contains(name) && !own.set.iter().any(|field| field.name == *name) {
            own.remove.push(name.clone());
        }
    }
}
