//! `quorate adjust`: one account, by hand.

use anyhow::{Context as _, Result};
use clap::Args;
use quorate_ledger::Amount;
use quorate_rpc::admin::AdjustAccountRequest;
use quorate_rpc::admin::adjust_account_request::Change;

use crate::command::{ClusterOptions, tables};
use crate::output::OutputOptions;

/// Top up, reset or re-limit one account
///
/// Example: `quorate adjust --tenant acme --budget user-hourly --subject alice --top-up 5000`
#[derive(Debug, Args)]
pub struct Adjust {
    #[arg(long)]
    tenant: String,
    #[arg(long)]
    budget: String,
    /// Empty for a budget without subject
    #[arg(long, default_value = "")]
    subject: String,
    #[command(flatten)]
    change: ChangeOptions,
    #[command(flatten)]
    cluster: ClusterOptions,
    #[command(flatten)]
    output: OutputOptions,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct ChangeOptions {
    /// Raise the limit of the present window by so many units
    #[arg(long, value_name = "UNITS")]
    top_up: Option<u64>,
    /// Set what is spent to zero; reservations stay
    #[arg(long)]
    reset: bool,
    /// Another limit for this account, from now on
    #[arg(long, value_name = "UNITS")]
    limit: Option<u64>,
    /// Back to the budget's own limit
    #[arg(long)]
    clear_limit: bool,
}

impl Adjust {
    pub async fn run(self) -> Result<()> {
        let client = self.cluster.client();
        let micros = |units| Amount::from_units(units).map(Amount::micros).context("the amount is too large");
        let change = match self.change {
            ChangeOptions { top_up: Some(units), .. } => Change::TopUpMicros(micros(units)?),
            ChangeOptions { limit: Some(units), .. } => Change::OverrideLimitMicros(micros(units)?),
            ChangeOptions { reset: true, .. } => Change::Reset(true),
            ChangeOptions { .. } => Change::ClearOverride(true),
        };
        let request = AdjustAccountRequest {
            id: client.new_id().to_bytes().to_vec().into(),
            tenant: self.tenant,
            budget: self.budget,
            subject: self.subject,
            change: Some(change),
        };
        let adjusted = self
            .cluster
            .admin_of(&client)
            .adjust_account(request)
            .await
            .context("the account was not adjusted")?;
        self.output.print(&adjusted, || tables::accounts(adjusted.account.as_slice()))
    }
}
