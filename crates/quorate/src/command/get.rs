//! `quorate get`: lists, over gRPC, from any node.

use anyhow::Result;
use clap::{Args, ValueEnum};
use comfy_table::Table;
use quorate_rpc::admin::{self, Consistency};
use quorate_rpc::budget::ProviderState;

use crate::command::ClusterOptions;
use crate::output::{OutputOptions, bytes, duration, table, time, units};

/// Examples: `quorate get accounts --tenant acme`, `quorate get nodes -o json`
#[derive(Debug, Args)]
pub struct Get {
    what: What,
    #[command(flatten)]
    options: GetOptions,
}

#[derive(Debug, Args)]
struct GetOptions {
    #[command(flatten)]
    cluster: ClusterOptions,
    #[command(flatten)]
    output: OutputOptions,
    /// Answer from what the asked node has applied, which may be old
    #[arg(long)]
    stale: bool,
    /// Only this tenant
    #[arg(long)]
    tenant: Option<String>,
    /// Only this budget
    #[arg(long)]
    budget: Option<String>,
    /// Only this subject
    #[arg(long)]
    subject: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum What {
    /// The members of the cluster
    Nodes,
    /// Who has accounts
    Tenants,
    /// The rules in force
    Budgets,
    /// The counters
    Accounts,
    /// What is held for requests under way
    Reservations,
    /// What the fleet knows of backends
    Providers,
    /// The policy file in force
    Policy,
}

impl Get {
    pub async fn run(mut self) -> Result<()> {
        let options = &mut self.options;
        let admin = options.cluster.admin();
        let consistency =
            i32::from(if options.stale { Consistency::Stale } else { Consistency::Linearizable });
        let tenant = options.tenant.take().unwrap_or_default();
        let output = &options.output;
        match self.what {
            What::Nodes => {
                let answer = admin.list_nodes(admin::ListNodesRequest {}).await?;
                output.print(&answer, || nodes(&answer.nodes))
            }
            What::Tenants => {
                let request = admin::ListTenantsRequest { consistency, tenant, ..Default::default() };
                let answer = admin.list_tenants(request).await?;
                output.print(&answer, || tenants(&answer.tenants))
            }
            What::Budgets => {
                let answer = admin.list_budgets(admin::ListBudgetsRequest { consistency }).await?;
                output.print(&answer, || budgets(&answer.budgets))
            }
            What::Accounts => {
                let (budget, subject) =
                    (options.budget.take().unwrap_or_default(), options.subject.take().unwrap_or_default());
                let request =
                    admin::ListAccountsRequest { consistency, tenant, budget, subject, ..Default::default() };
                let answer = admin.list_accounts(request).await?;
                if !answer.cursor.is_empty() {
                    eprintln!("there are more: narrow the list with --tenant, --budget or --subject");
                }
                options.output.print(&answer, || accounts(&answer.accounts))
            }
            What::Reservations => {
                let answer = admin
                    .list_reservations(admin::ListReservationsRequest { consistency, tenant, page_size: 0 })
                    .await?;
                output.print(&answer, || reservations(&answer.reservations))
            }
            What::Providers => {
                let answer = admin.list_providers(admin::ListProvidersRequest { consistency }).await?;
                output.print(&answer, || providers(&answer))
            }
            What::Policy => {
                let answer = admin.get_policy(admin::GetPolicyRequest { consistency }).await?;
                print!("{}", answer.document);
                Ok(())
            }
        }
    }
}

fn nodes(nodes: &[admin::Node]) -> Table {
    let mut table =
        table(&["ID", "ADDRESS", "ROLE", "TERM", "APPLIED", "SNAPSHOT", "DATA", "UPTIME", "VERSION"]);
    for node in nodes {
        table.add_row([
            node.id.to_string(),
            node.address.clone(),
            node.role.clone(),
            node.term.to_string(),
            node.applied_index.to_string(),
            node.snapshot_index.to_string(),
            bytes(node.data_bytes),
            duration(node.uptime_ms),
            node.version.clone(),
        ]);
    }
    table
}

pub(super) fn tenants(tenants: &[admin::Tenant]) -> Table {
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

fn budgets(budgets: &[admin::BudgetRule]) -> Table {
    let mut table = table(&["BUDGET", "TENANT", "LIMIT", "UNIT", "WINDOW", "SUBJECT"]);
    for budget in budgets {
        let tenant = if budget.tenant.is_empty() { "(every)" } else { &budget.tenant };
        let subject = budget.subject.join(" + ");
        table.add_row([
            &budget.name,
            tenant,
            &units(budget.limit_micros),
            &budget.unit,
            &budget.window,
            &subject,
        ]);
    }
    table
}

pub(super) fn accounts(accounts: &[admin::Account]) -> Table {
    let mut table =
        table(&["TENANT", "BUDGET", "SUBJECT", "LIMIT", "SPENT", "RESERVED", "AVAILABLE", "RESETS"]);
    for account in accounts {
        table.add_row([
            account.tenant.clone(),
            account.budget.clone(),
            if account.subject.is_empty() { "-".to_owned() } else { account.subject.clone() },
            units(account.limit_micros),
            units(account.spent_micros),
            units(account.reserved_micros),
            units(account.available_micros),
            time(account.window_end_ms),
        ]);
    }
    table
}

pub(super) fn reservations(reservations: &[admin::Reservation]) -> Table {
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

fn providers(answer: &admin::ListProvidersResponse) -> Table {
    let mut table = table(&["BACKEND", "STATE", "SINCE", "UNTIL", "REASON", "REPORTED BY"]);
    for provider in &answer.providers {
        let state = match provider.state() {
            ProviderState::Healthy => "healthy",
            ProviderState::Limited => "limited",
            ProviderState::Failing => "failing",
            ProviderState::Unspecified => "unknown",
        };
        let until = if provider.until_ms == 0 { "-".to_owned() } else { time(provider.until_ms) };
        table.add_row([
            &provider.backend,
            state,
            &time(provider.since_ms),
            &until,
            &provider.reason,
            &provider.reporter,
        ]);
    }
    table
}
