//! What must hold of any request at any policy: the index finds what a scan finds, and no charge is above its bound.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arbitrary::{Arbitrary, Result, Unstructured};
use quorate_policy::manifests::{ManifestSet, Mode, Source};
use quorate_policy::runtime::{Budget, CompiledPolicy, PolicyParts, Route};

use crate::scan::{self, Asked, Tokens};
use crate::shape;

/// What stands beside the budgets made up: the examples of the tests and of `deploy/`.
const EXAMPLES: [&[&str]; 8] = [
    &[include_str!("../../tests/own/budget.yaml")],
    &[include_str!("../../tests/official/cost-sources.yaml")],
    &[include_str!("../../tests/official/credentials.yaml")],
    &[include_str!("../../tests/official/quota.yaml")],
    &[include_str!("../../tests/official/token-limits.yaml")],
    &[include_str!("../../tests/official/tutorial-equivalent.yaml")],
    &[include_str!("../../../../deploy/policy.yaml")],
    &[
        include_str!("../../../../deploy/examples/priority-routing/1-backends.yaml"),
        include_str!("../../../../deploy/examples/priority-routing/2-route.yaml"),
        include_str!("../../../../deploy/examples/priority-routing/3-budgets.yaml"),
    ],
];

/// By the examples that are in it: compiling them for each case would be most of the work.
static COMPILED: Mutex<BTreeMap<u8, Arc<CompiledPolicy>>> = Mutex::new(BTreeMap::new());

/// A policy and a request.
#[derive(Debug)]
pub struct Case {
    /// A bit for each of the examples.
    examples: u8,
    budgets: Vec<Budget>,
    routes: Vec<Route>,
    asked: Asked,
    tokens: Tokens,
}

impl<'a> Arbitrary<'a> for Case {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Ok(Self {
            examples: u8::arbitrary(u)?,
            asked: shape::asked(u)?,
            tokens: shape::tokens(u)?,
            routes: shape::many(u, 3, shape::route)?,
            budgets: shape::many(u, 12, shape::budget)?,
        })
    }
}

impl Case {
    /// # Panics
    /// It does not hold.
    pub fn hold(&self) {
        let examples = examples(self.examples);
        let mut budgets = self.budgets.clone();
        budgets.extend(examples.all_budgets().iter().map(|budget| Budget::clone(budget)));
        let mut routes = self.routes.clone();
        routes.extend_from_slice(examples.routes());
        let policy = CompiledPolicy::new(PolicyParts {
            budgets,
            routes,
            backends: examples.backends().to_vec(),
            prices: examples.prices().clone(),
            identity: examples.identity().clone(),
            ..PolicyParts::default()
        });
        let policy = policy.unwrap_or_else(|error| panic!("{error}"));
        scan::agrees(&policy, &self.asked);
        scan::charges_within_bounds(&policy, &self.asked, &self.tokens);
    }
}

fn examples(chosen: u8) -> Arc<CompiledPolicy> {
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    let policy = compiled.entry(chosen).or_insert_with(|| {
        let mut set = ManifestSet::default();
        for (number, texts) in EXAMPLES.iter().enumerate() {
            for text in texts.iter().filter(|_| chosen & (1 << number) != 0) {
                let parsed = ManifestSet::parse(&[Source { name: "example", text }], Mode::Strict);
                set = set.apply(&parsed.unwrap_or_else(|errors| panic!("{errors}")).0).0;
            }
        }
        Arc::new(set.compile().unwrap_or_else(|errors| panic!("{errors}")).0)
    });
    Arc::clone(policy)
}
