//! What a policy may say but probably does not mean. A warning never refuses anything.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use quorate_ledger::{Amount, Unit, Window};

use crate::runtime::{Budget, Cost};

pub(crate) fn find(budgets: &[Budget]) -> Vec<String> {
    if budgets.is_empty() {
        return vec!["the policy has no budgets: every request passes uncounted".to_owned()];
    }
    let of_requests = || budgets.iter().filter(|budget| !budget.is_of_descriptors());
    let mut warnings: Vec<String> = of_requests().flat_map(of_one).collect();
    warnings.extend(counted_twice(of_requests()));
    warnings
}

fn of_one(budget: &Budget) -> Vec<String> {
    let mut warnings = Vec::new();
    let name = &budget.rule.name;
    let counts_output = budget.rule.unit == Unit::Tokens && budget.cost.counts_output();
    let below = |tokens: u64| {
        counts_output && Amount::from_units(tokens).is_ok_and(|amount| budget.rule.limit < amount)
    };
    if budget.rule.limit.is_zero() {
        warnings.push(format!("budget {name}: the limit is 0, so every request with a cost is denied"));
    } else if below(budget.output_floor) {
        warnings.push(format!(
            "budget {name}: the limit is below output.floor ({} tokens), so a request without max_tokens is always denied",
            budget.output_floor
        ));
    } else if below(budget.output_default) {
        warnings.push(format!(
            "budget {name}: the limit is below output.default ({} tokens), so a request without max_tokens takes all that is left",
            budget.output_default
        ));
    }
    if budget.rule.window == Window::Second {
        warnings.push(format!(
            "budget {name}: a request usually runs for more than a second; all of it counts in the second in which it began"
        ));
    }
    warnings
}

/// Budgets that meet the same requests and start again at the same time: only the lowest limit ever decides.
fn counted_twice<'a>(budgets: impl Iterator<Item = &'a Budget>) -> Vec<String> {
    let mut first = BTreeMap::new();
    let mut warnings = Vec::new();
    for budget in budgets {
        let mut subject = budget.subject.clone();
        subject.sort();
        // Selectors, routes and costs have no order; as text they compare well enough for a warning.
        let met = format!("{:?} {:?} {:?}", budget.selector, budget.routes, budget.backends);
        let counted =
            format!("{} {:?} {:?}", cost_name(&budget.cost), budget.request_cost, budget.rule.enforcement);
        let zone = &budget.rule.zone;
        match first.entry((&budget.rule.tenant, subject, budget.rule.window, zone, met, counted)) {
            Entry::Vacant(free) => {
                free.insert(&budget.rule.name);
            }
            Entry::Occupied(other) => warnings.push(format!(
                "budgets {} and {} count the same requests in the same window: only the lower limit decides",
                other.get(),
                budget.rule.name
            )),
        }
    }
    warnings
}

fn cost_name(cost: &Cost) -> String {
    match cost {
        Cost::Cel(expression) => expression.as_str().to_owned(),
        other => format!("{other:?}"),
    }
}
