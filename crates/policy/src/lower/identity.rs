//! Identity and prices: one object each decides.

use std::collections::BTreeMap;

use crate::lower::Lowering;
use crate::manifests::Kind;
use crate::manifests::object::{Object, Spec};
use crate::runtime::{IdentityRules, Prices};

/// The one Identity; without one, the defaults.
pub(crate) fn lower(lowering: &mut Lowering<'_>) -> IdentityRules {
    let mut found: Option<&Object> = None;
    let mut rules = IdentityRules::default();
    for object in lowering.of_kind(Kind::Identity) {
        let Spec::Identity(identity) = &object.spec else { continue };
        if let Some(first) = found {
            let message =
                format!("a second Identity beside {}; a policy has one, delete the other", first.key);
            lowering.error(object, "metadata.name", &message);
            continue;
        }
        found = Some(object);
        rules = identity.rules.clone();
    }
    rules
}

/// The built-in prices, and over them those of the manifests.
pub(crate) fn prices(lowering: &mut Lowering<'_>) -> Prices {
    let mut prices = Prices::builtin();
    let mut owners: BTreeMap<&str, &Object> = BTreeMap::new();
    for object in lowering.of_kind(Kind::ModelPrice) {
        let Spec::ModelPrice(listed) = &object.spec else { continue };
        for model in &listed.models {
            match owners.insert(model, object) {
                Some(other) => {
                    let message = format!("model {model} has a price in {} too; keep one", other.key);
                    lowering.error(object, "spec", &message);
                }
                None => prices.set(model, listed.price, &listed.as_of),
            }
        }
    }
    prices
}
