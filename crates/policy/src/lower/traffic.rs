//! Rules of a BackendTrafficPolicy as budgets. Every matching rule is charged, and any of them denies.

use quorate_ledger::{Amount, BudgetRule, Enforcement, Unit};

use crate::lower::Lowering;
use crate::lower::binding::{Binding, bind};
use crate::lower::costs::{KeyCost, costs_of_key, unit_of};
use crate::lower::naming::RuleNames;
use crate::manifests::kinds::{ResponseCost, TrafficPolicy, TrafficRule, token_cost};
use crate::manifests::object::Object;
use crate::runtime::{Budget, Cost, Selector, SubjectPart, TokenKind};

pub(crate) fn lower(lowering: &mut Lowering<'_>, object: &Object, policy: &TrafficPolicy) {
    if policy.rules.is_empty() {
        return;
    }
    let binding = bind(lowering, object, &policy.targets);
    let mut names = RuleNames::new(object.key.full_name());
    for (index, rule) in policy.rules.iter().enumerate() {
        lower_rule(lowering, object, rule, index, &binding, &mut names);
    }
}

fn lower_rule(
    lowering: &mut Lowering<'_>,
    object: &Object,
    rule: &TrafficRule,
    index: usize,
    binding: &Binding,
    names: &mut RuleNames,
) {
    let costs = match &rule.response_cost {
        ResponseCost::Nothing => {
            vec![KeyCost { cost: Cost::Number(Amount::ZERO), routes: binding.routes.clone() }]
        }
        ResponseCost::Number(number) => {
            vec![KeyCost { cost: Cost::Number(*number), routes: binding.routes.clone() }]
        }
        ResponseCost::Key(key) => {
            let path = format!("spec.rateLimit.global.rules[{index}].cost.response.metadata.key");
            costs_of_key(lowering, object, &path, key, binding.routes.as_deref())
        }
    };
    if rule.request_cost.is_zero()
        && matches!(&costs[..], [KeyCost { cost: Cost::Number(n), .. }] if n.is_zero())
    {
        lowering.warn(object, &format!("rule {} costs nothing, so it never denies", index + 1));
    }
    let mut subject = rule.selector.subject.clone();
    if binding.apart && !rule.shared {
        subject.push(SubjectPart::Route);
    }
    let several = costs.len() > 1;
    for (number, KeyCost { cost, routes }) in costs.into_iter().enumerate() {
        let mut label = label(rule);
        // Routes that define the key differently have budgets of their own, the further ones named by a route.
        if let (true, Some(first)) = (number > 0, routes.as_ref().and_then(|routes| routes.first())) {
            let route = first.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("unrouted");
            label = if label.is_empty() { route.to_owned() } else { format!("{label}/{route}") };
        }
        let unit = if matches!(cost, Cost::Number(_)) { Unit::Cost } else { unit_of(&cost) };
        let enforcement = if rule.shadow { Enforcement::Shadow } else { Enforcement::Reserve };
        let ledger_rule =
            BudgetRule { enforcement, ..BudgetRule::new(names.next(&label), unit, rule.limit, rule.window) };
        let budget = Budget {
            selector: Selector { conditions: rule.selector.conditions.clone() },
            subject: subject.clone(),
            routes,
            request_cost: rule.request_cost,
            explains: format!("{} rule {}", object.key, index + 1),
            ..Budget::new(ledger_rule, cost)
        };
        lowering.push(object, budget);
    }
    if several && rule.shared {
        let message = format!(
            "rule {} is shared, but its routes define its cost differently: each definition has accounts of its own",
            index + 1
        );
        lowering.warn(object, &message);
    }
}

/// What tells a rule from its neighbours: the values it compares, and what it counts where that is not all tokens.
fn label(rule: &TrafficRule) -> String {
    let mut parts: Vec<&str> = rule.selector.exact_values();
    match &rule.response_cost {
        ResponseCost::Key(key) if token_cost(key) == Some(TokenKind::Total) => {}
        ResponseCost::Key(key) => parts.push(key),
        ResponseCost::Nothing | ResponseCost::Number(_) => parts.push("requests"),
    }
    parts.join("/")
}
