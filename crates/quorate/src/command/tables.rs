//! The tables of `quorate get` and `describe`: what the admin service answers, for people.

use comfy_table::Table;
use quorate_ledger::Enforcement;
use quorate_rpc::admin;
use quorate_rpc::budget::{ProviderCause, ProviderHealth, ProviderState};

use crate::output::{amount, bytes, duration, or_dash, table, time, units};

pub fn nodes(nodes: &[admin::Node], wide: bool) -> Table {
    let mut head = vec!["ID", "ADDRESS", "ROLE", "TERM", "APPLIED", "SNAPSHOT", "DATA", "UPTIME", "VERSION"];
    if wide {
        head.push("CLOCK");
    }
    let mut table = table(&head);
    for node in nodes {
        let mut row = vec![
            node.id.to_string(),
            node.address.clone(),
            node.role.clone(),
            node.term.to_string(),
            node.applied_index.to_string(),
            node.snapshot_index.to_string(),
            bytes(node.data_bytes),
            duration(node.uptime_ms),
            node.version.clone(),
        ];
        if wide {
            row.push(clock(node));
        }
        table.add_row(row);
    }
    table
}

/// How far the clock is from the others': `+5,012 ms, off`.
fn clock(node: &admin::Node) -> String {
    let Some(offset_ms) = node.clock_offset_ms else {
        return if node.clock_off { "off".to_owned() } else { "-".to_owned() };
    };
    let sign = if offset_ms < 0 { "-" } else { "+" };
    let ms = units(offset_ms.unsigned_abs().saturating_mul(1_000_000));
    format!("{sign}{ms} ms{}", if node.clock_off { ", off" } else { "" })
}

pub fn tenants(tenants: &[admin::Tenant]) -> Table {
    let mut table = table(&["TENANT", "ACCOUNTS", "OPEN", "GRANTED", "DENIED", "EXPIRED"]);
    for tenant in tenants {
        let numbers = [
            tenant.accounts,
            tenant.open_reservations,
            tenant.granted_total,
            tenant.denied_total,
            tenant.expired_total,
        ];
        table.add_row(std::iter::once(tenant.name.clone()).chain(numbers.map(|number| number.to_string())));
    }
    table
}

pub fn budgets(budgets: &[admin::BudgetRule], wide: bool) -> Table {
    let mut head = vec!["BUDGET", "TENANT", "LIMIT", "UNIT", "WINDOW", "SUBJECT", "ENFORCEMENT"];
    if wide {
        head.extend(["APPLIES TO", "COUNTS", "FROM"]);
    }
    let mut table = table(&head);
    for budget in budgets {
        let tenant = if budget.tenant.is_empty() { "(every)" } else { &budget.tenant };
        let mut row = vec![
            budget.name.clone(),
            tenant.to_owned(),
            units(budget.limit_micros),
            budget.unit.clone(),
            budget.window.clone(),
            budget.subject.join(" + "),
            budget.enforcement.clone(),
        ];
        if wide {
            row.extend([budget.applies_to.clone(), budget.cost.clone(), budget.source.clone()]);
        }
        table.add_row(row);
    }
    table
}

pub fn accounts(accounts: &[admin::Account]) -> Table {
    // Where nothing is leased, nobody needs to know of it.
    let leases = accounts.iter().any(|account| account.enforcement == Enforcement::Lease.name());
    let mut head = vec!["TENANT", "BUDGET", "SUBJECT", "LIMIT", "SPENT", "RESERVED", "AVAILABLE", "RESETS"];
    if leases {
        head.insert(6, "LEASED");
    }
    let mut table = table(&head);
    for account in accounts {
        let shown = |micros| amount(micros, account.unit());
        let mut row = vec![
            account.tenant.clone(),
            account.budget.clone(),
            or_dash(&account.subject),
            shown(account.limit_micros),
            spent(shown(account.spent_micros), account.estimated_micros, shown),
            shown(account.reserved_micros),
            shown(account.available_micros),
            time(account.window_end_ms),
        ];
        if leases {
            row.insert(6, shown(account.leased_micros));
        }
        table.add_row(row);
    }
    table
}

/// With how much of it is an estimate, if something is.
pub fn spent(spent: String, estimated_micros: u64, shown: impl Fn(u64) -> String) -> String {
    match estimated_micros {
        0 => spent,
        micros => format!("{spent} ({} estimated)", shown(micros)),
    }
}

pub fn reservations(reservations: &[admin::Reservation]) -> Table {
    let mut table = table(&["ID", "TENANT", "HOLDS", "MADE", "DEADLINE"]);
    for reservation in reservations {
        let holds = reservation
            .charges
            .iter()
            .map(|charge| format!("{} {} {}", units(charge.amount_micros), charge.budget, charge.subject));
        let holds = holds.collect::<Vec<_>>().join("; ");
        table.add_row([
            &reservation.id,
            &reservation.tenant,
            &holds,
            &time(reservation.made_at_ms),
            &time(reservation.deadline_ms),
        ]);
    }
    table
}

pub fn providers(answer: &admin::ListProvidersResponse) -> Table {
    let mut table =
        table(&["BACKEND", "MODEL", "STATE", "SINCE", "WHY", "NEXT PROBE", "FIRST BYTE", "REPORTER"]);
    let mut sorted: Vec<&ProviderHealth> = answer.providers.iter().collect();
    sorted.sort_by_key(|one| (&one.backend, &one.model));
    for provider in sorted {
        table.add_row(circuit(provider));
    }
    table
}

fn circuit(provider: &ProviderHealth) -> [String; 8] {
    let drained = provider.drained_since_ms > 0;
    let state = match provider.state() {
        _ if drained => "drained",
        ProviderState::Closed => "closed",
        ProviderState::Open => "open",
        ProviderState::HalfOpen => "half-open",
        ProviderState::Unspecified => "unknown",
    };
    let cause = match provider.cause() {
        ProviderCause::Limited => "limited",
        ProviderCause::Failing => "failing",
        ProviderCause::Unspecified => "",
    };
    let why = match (cause, provider.reason.as_str()) {
        _ if drained => format!("by {}", or_dash(&provider.drained_by)),
        (cause, "") => cause.to_owned(),
        (cause, reason) => format!("{cause}: {reason}"),
    };
    let next = match provider.state() {
        _ if drained => String::new(),
        ProviderState::Open => time(provider.until_ms),
        ProviderState::HalfOpen => format!("now, by {}", provider.holder),
        ProviderState::Closed | ProviderState::Unspecified => String::new(),
    };
    let since = if drained { provider.drained_since_ms } else { provider.since_ms };
    let model = if provider.model.is_empty() { "(every)" } else { &provider.model };
    let first_byte = provider.first_byte_ms.map(|ms| format!("{ms} ms")).unwrap_or_default();
    [
        provider.backend.clone(),
        model.to_owned(),
        state.to_owned(),
        time(since),
        or_dash(&why),
        or_dash(&next),
        or_dash(&first_byte),
        or_dash(&provider.reporter),
    ]
}

/// What the manifests made: their objects.
pub fn objects(objects: &[admin::PolicyObject], wide: bool) -> Table {
    let mut head = vec!["KIND", "NAMESPACE", "NAME", "SUMMARY"];
    if wide {
        head.push("API VERSION");
    }
    let mut table = table(&head);
    for object in objects {
        let mut row = vec![
            object.kind.clone(),
            or_dash(&object.namespace),
            object.name.clone(),
            object.summary.clone(),
        ];
        if wide {
            row.push(object.api_version.clone());
        }
        table.add_row(row);
    }
    table
}

pub fn gateways(answer: &admin::ListGatewaysResponse) -> Table {
    let mut table = table(&["GATEWAY", "ADDRESS", "NODE", "POLICY", "STATE", "CONNECTED", "VERSION"]);
    for gateway in &answer.gateways {
        let state = if !gateway.policy_error.is_empty() {
            format!("cannot read version {}: {}", answer.policy_version, gateway.policy_error)
        } else if gateway.policy_version == answer.policy_version {
            "current".to_owned()
        } else {
            format!("straggler, version {} is in force", answer.policy_version)
        };
        table.add_row([
            gateway.name.clone(),
            gateway.address.clone(),
            gateway.node_id.to_string(),
            gateway.policy_version.to_string(),
            state,
            time(gateway.connected_at_ms),
            gateway.version.clone(),
        ]);
    }
    table
}

pub fn alerts(alerts: &[admin::Alert]) -> Table {
    let mut table = table(&["AT", "TENANT", "BUDGET", "SUBJECT", "SHARE", "SPENT", "LIMIT"]);
    for alert in alerts {
        table.add_row([
            time(alert.at_ms),
            alert.tenant.clone(),
            alert.budget.clone(),
            or_dash(&alert.subject),
            format!("{} %", alert.share),
            amount(alert.spent_micros, alert.unit()),
            amount(alert.limit_micros, alert.unit()),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_shown_with_its_side() {
        let shown = |clock_offset_ms, clock_off| {
            clock(&admin::Node { clock_offset_ms, clock_off, ..admin::Node::default() })
        };
        assert_eq!(shown(Some(5_012), true), "+5,012 ms, off");
        assert_eq!(shown(Some(-3), false), "-3 ms");
        assert_eq!((shown(None, false), shown(None, true)), ("-".to_owned(), "off".to_owned()));
        assert!(!nodes(&[], false).to_string().contains("CLOCK"));
        assert!(nodes(&[], true).to_string().contains("CLOCK"));
    }

    #[test]
    fn what_is_leased_is_shown_where_something_can_be() {
        let plain = admin::Account { enforcement: "Reserve".to_owned(), ..Default::default() };
        assert!(!accounts(std::slice::from_ref(&plain)).to_string().contains("LEASED"));
        let (enforcement, leased_micros) = ("Lease".to_owned(), 12_000_000);
        let leased =
            admin::Account { enforcement, leased_micros, reserved_micros: 12_000_000, ..Default::default() };
        let shown = accounts(&[plain, leased]).to_string();
        let lines: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0][5..8], ["RESERVED", "LEASED", "AVAILABLE"], "{shown}");
        assert!(lines[1].contains(&"0") && lines[2].windows(2).any(|pair| pair == ["12", "12"]), "{shown}");
    }

    #[test]
    fn an_estimate_is_shown_where_there_is_one() {
        let mut account = admin::Account { spent_micros: 70_000_000, ..Default::default() };
        assert!(!accounts(std::slice::from_ref(&account)).to_string().contains("estimated"));
        account.estimated_micros = 30_000_000;
        assert!(accounts(&[account]).to_string().contains("70 (30 estimated)"));
    }
}
