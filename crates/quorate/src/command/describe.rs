//! `quorate describe tenant NAME`: everything of one tenant on one screen.

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use quorate_rpc::admin::{self, Consistency};
use serde::Serialize;

use crate::command::{ClusterOptions, tables};
use crate::output::{Format, OutputOptions, table, time, units};

/// Show one tenant in full
///
/// Example: `quorate describe tenant acme`
#[derive(Debug, Args)]
pub struct Describe {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Accounts with their closed windows, open reservations, totals
    Tenant(DescribeTenant),
}

#[derive(Debug, Args)]
struct DescribeTenant {
    name: String,
    /// Answer from what the asked node has applied, which may be old
    #[arg(long)]
    stale: bool,
    #[command(flatten)]
    cluster: ClusterOptions,
    #[command(flatten)]
    output: OutputOptions,
}

#[derive(Debug, Serialize)]
struct Description {
    tenant: admin::Tenant,
    accounts: Vec<admin::Account>,
    reservations: Vec<admin::Reservation>,
}

impl Describe {
    pub async fn run(self) -> Result<()> {
        let What::Tenant(wanted) = self.what;
        let admin = wanted.cluster.admin()?;
        let consistency =
            i32::from(if wanted.stale { Consistency::Stale } else { Consistency::Linearizable });
        let name = wanted.name;
        let tenants = admin
            .list_tenants(admin::ListTenantsRequest {
                consistency,
                tenant: name.clone(),
                ..Default::default()
            })
            .await?;
        let Some(tenant) = tenants.tenants.into_iter().next() else {
            bail!("tenant {name} has no account; `quorate get tenants` lists those that have");
        };
        let accounts = admin
            .list_accounts(admin::ListAccountsRequest {
                consistency,
                tenant: name.clone(),
                ..Default::default()
            })
            .await?;
        let open = admin
            .list_reservations(admin::ListReservationsRequest { consistency, tenant: name, page_size: 0 })
            .await?;
        let description =
            Description { tenant, accounts: accounts.accounts, reservations: open.reservations };
        match wanted.output.output {
            Format::Table | Format::Wide => {
                print_tables(&description);
                Ok(())
            }
            _ => wanted.output.print(&description, || table(&[])),
        }
    }
}

fn print_tables(description: &Description) {
    println!("{}", tables::tenants(std::slice::from_ref(&description.tenant)));
    println!("\nAccounts\n{}", tables::accounts(&description.accounts));
    let closed = description
        .accounts
        .iter()
        .flat_map(|account| account.closed_windows.iter().map(move |window| (account, window)));
    let mut windows = table(&["BUDGET", "SUBJECT", "FROM", "TO", "LIMIT", "SPENT", "RESERVED", "OVERDRAFT"]);
    for (account, window) in closed {
        windows.add_row([
            account.budget.clone(),
            account.subject.clone(),
            time(window.start_ms),
            time(window.end_ms),
            units(window.limit_micros),
            tables::spent(units(window.spent_micros), window.estimated_micros, units),
            units(window.reserved_micros),
            units(window.overdraft_micros),
        ]);
    }
    if windows.row_iter().next().is_some() {
        println!("\nClosed windows\n{windows}");
    }
    if !description.reservations.is_empty() {
        println!("\nOpen reservations\n{}", tables::reservations(&description.reservations));
    }
}
