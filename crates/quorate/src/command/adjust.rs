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
    #[arg(long, value_name = "UNITS", value_parser = micros)]
    top_up: Option<u64>,
    /// Set what is spent to zero; reservations stay
    #[arg(long)]
    reset: bool,
    /// Another limit for this account, from now on
    #[arg(long, value_name = "UNITS", value_parser = micros)]
    limit: Option<u64>,
    /// Back to the budget's own limit
    #[arg(long)]
    clear_limit: bool,
}

impl Adjust {
    pub async fn run(self) -> Result<()> {
        let client = self.cluster.client()?;
        let change = match self.change {
            ChangeOptions { top_up: Some(micros), .. } => Change::TopUpMicros(micros),
            ChangeOptions { limit: Some(micros), .. } => Change::OverrideLimitMicros(micros),
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

/// `5000`, `0.5`: tokens, cost units or dollars, in millionths.
pub(super) fn micros(text: &str) -> Result<u64, String> {
    let wanted = || "wanted: a number of units, with at most 6 decimals".to_owned();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|c| c.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 6 {
        return Err(wanted());
    }
    let whole: u64 = whole.parse().map_err(|_| wanted())?;
    let fraction: u64 = format!("{fraction:0<6}").parse().map_err(|_| wanted())?;
    let micros =
        whole.checked_mul(1_000_000).and_then(|whole| whole.checked_add(fraction)).ok_or_else(wanted)?;
    Amount::from_micros(micros).map(Amount::micros).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_on_the_command_line() {
        for (text, amount) in [("5000", 5_000_000_000), ("0.5", 500_000), ("1.000001", 1_000_001), ("0", 0)] {
            assert_eq!(micros(text), Ok(amount), "{text}");
        }
        for text in ["", ".", "1.", ".5", "-1", "1.0000001", "1e3", "99999999999999999999", "5 "] {
            assert!(micros(text).is_err(), "{text}");
        }
    }
}
