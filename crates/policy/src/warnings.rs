//! What a policy may say but probably does not mean. A warning never refuses anything.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use quorate_ledger::{Amount, Window};

use crate::policy::Budget;

pub(crate) fn find(budgets: &[Arc<Budget>]) -> Vec<String> {
    if budgets.is_empty() {
        return vec!["the policy has no budgets: every request passes uncounted".to_owned()];
    }
    let mut warnings: Vec<String> = budgets.iter().flat_map(|budget| of_one(budget)).collect();
    warnings.extend(counted_twice(budgets));
    warnings
}

fn of_one(budget: &Budget) -> Vec<String> {
    let mut warnings = Vec::new();
    let name = &budget.name;
    let below = |tokens: u64| Amount::from_units(tokens).is_ok_and(|amount| budget.limit < amount);
    if below(budget.output_floor) {
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
    if budget.window == Window::Second {
        warnings.push(format!(
            "budget {name}: a request usually runs for more than a second; all of it counts in the second in which it began"
        ));
    }
    warnings
}

/// Budgets that meet the same requests and start again at the same time: only the lowest limit ever decides.
fn counted_twice(budgets: &[Arc<Budget>]) -> Vec<String> {
    let mut first = BTreeMap::new();
    let mut warnings = Vec::new();
    for budget in budgets {
        let mut parts: Vec<String> = budget.subject.iter().map(ToString::to_string).collect();
        parts.sort();
        match first.entry((&budget.tenant, parts, budget.window)) {
            Entry::Vacant(free) => {
                free.insert(&budget.name);
            }
            Entry::Occupied(other) => warnings.push(format!(
                "budgets {} and {} count the same requests in the same window: only the lower limit decides",
                other.get(),
                budget.name
            )),
        }
    }
    warnings
}
