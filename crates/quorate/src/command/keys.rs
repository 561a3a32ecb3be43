//! `quorate keys`: API keys that Quorate issues. A key is shown once; the cluster keeps its hash.

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use comfy_table::Table;
use quorate_rpc::admin::adjust_account_request::Change;
use quorate_rpc::admin::{AdjustAccountRequest, CreateKeyRequest, ListKeysRequest, RevokeKeyRequest};
use quorate_rpc::budget::ApiKey;

use crate::command::ClusterOptions;
use crate::command::adjust::micros;
use crate::output::{Format, OutputOptions, or_dash, table, time};

/// Make, revoke and list API keys
///
/// Example: `quorate keys create --tenant acme --user alice --expires 90d`
#[derive(Debug, Args)]
pub struct Keys {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make a key and show it, this once
    Create(Create),
    /// End a key, on the whole fleet within a second
    Revoke(Revoke),
    /// Who has keys
    List(List),
}

#[derive(Debug, Args)]
struct Create {
    #[arg(long)]
    tenant: String,
    /// Whom it stands for
    #[arg(long, default_value = "")]
    user: String,
    #[arg(long, default_value = "")]
    team: String,
    /// Only these models
    #[arg(long, value_delimiter = ',', value_name = "MODEL")]
    models: Vec<String>,
    /// From now on, as in 90d, 12h, 30m
    #[arg(long, value_name = "TIME", value_parser = span_ms)]
    expires: Option<u64>,
    /// A limit of its own in a budget whose subject is `key`, as in key-daily=50000
    #[arg(long = "limit", value_name = "BUDGET=UNITS", value_parser = limit)]
    limits: Vec<(String, u64)>,
    #[arg(long, default_value = "", value_name = "TEXT")]
    comment: String,
    #[command(flatten)]
    cluster: ClusterOptions,
    #[command(flatten)]
    output: OutputOptions,
}

#[derive(Debug, Args)]
struct Revoke {
    /// The id, or the key itself
    id: String,
    #[command(flatten)]
    cluster: ClusterOptions,
}

#[derive(Debug, Args)]
struct List {
    /// Only this tenant
    #[arg(long, default_value = "")]
    tenant: String,
    #[command(flatten)]
    cluster: ClusterOptions,
    #[command(flatten)]
    output: OutputOptions,
}

impl Keys {
    pub async fn run(self) -> Result<()> {
        match self.what {
            What::Create(create) => create.run().await,
            What::Revoke(revoke) => revoke.run().await,
            What::List(list) => list.run().await,
        }
    }
}

impl Create {
    async fn run(self) -> Result<()> {
        let client = self.cluster.client()?;
        let admin = self.cluster.admin_of(&client);
        let request = CreateKeyRequest {
            tenant: self.tenant.clone(),
            user: self.user,
            team: self.team,
            models: self.models,
            expires_in_ms: self.expires.unwrap_or(0),
            comment: self.comment,
        };
        let created = admin.create_key(request).await.context("no key was made")?;
        let key = created.key.clone().unwrap_or_default();
        for (budget, micros) in self.limits {
            let request = AdjustAccountRequest {
                id: client.new_id().to_bytes().to_vec().into(),
                tenant: self.tenant.clone(),
                budget: budget.clone(),
                subject: key.id.clone(),
                change: Some(Change::OverrideLimitMicros(micros)),
            };
            if let Err(error) = admin.adjust_account(request).await {
                // A key without the limit that was asked for is worse than none.
                admin.revoke_key(RevokeKeyRequest { id: key.id }).await.context(
                    "the key's own limit could not be set, and the key not be revoked: revoke it by hand",
                )?;
                bail!("limit {budget}: {error}; the key was revoked again");
            }
        }
        match self.output.output {
            Format::Table | Format::Wide => {
                println!("{}", created.text);
                eprintln!("key {} of tenant {}; it is shown this once and kept nowhere", key.id, key.tenant);
                Ok(())
            }
            _ => self.output.print(&created, || table(&[])),
        }
    }
}

impl Revoke {
    async fn run(self) -> Result<()> {
        let id = id_of_key(&self.id);
        let revoked = self.cluster.admin()?.revoke_key(RevokeKeyRequest { id: id.to_owned() }).await?;
        let key = revoked.key.unwrap_or_default();
        println!("key {} of tenant {} revoked at {}", key.id, key.tenant, time(key.revoked_at_ms));
        Ok(())
    }
}

impl List {
    async fn run(self) -> Result<()> {
        let request = ListKeysRequest { tenant: self.tenant, ..ListKeysRequest::default() };
        let answer = self.cluster.admin()?.list_keys(request).await?;
        self.output.print(&answer, || keys(&answer.keys))
    }
}

/// Of `qk_ID_SECRET`: the secret stays here. An id is itself.
pub(super) fn id_of_key(key: &str) -> &str {
    key.strip_prefix("qk_").map_or(key, |rest| rest.split_once('_').map_or(rest, |(id, _)| id))
}

pub(super) fn keys(keys: &[ApiKey]) -> Table {
    let mut table =
        table(&["ID", "TENANT", "USER", "TEAM", "MODELS", "CREATED", "EXPIRES", "REVOKED", "BY", "COMMENT"]);
    for key in keys {
        let models = if key.models.is_empty() { "(every)".to_owned() } else { key.models.join(",") };
        let revoked = if key.revoked_at_ms == 0 { "-".to_owned() } else { time(key.revoked_at_ms) };
        table.add_row([
            key.id.clone(),
            key.tenant.clone(),
            or_dash(&key.user),
            or_dash(&key.team),
            models,
            time(key.created_at_ms),
            time(key.expires_at_ms),
            revoked,
            key.by.clone(),
            key.comment.clone(),
        ]);
    }
    table
}

/// `90d`, `12h`, `30m`, `45s` in milliseconds.
fn span_ms(text: &str) -> Result<u64, String> {
    let wanted = || "wanted: a number and a unit, as in 90d, 12h, 30m or 45s".to_owned();
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wanted)?;
    let unit_ms: u64 = match unit {
        "d" => 86_400_000,
        "h" => 3_600_000,
        "m" => 60_000,
        "s" => 1_000,
        _ => return Err(wanted()),
    };
    let number: u64 = number.parse().map_err(|_| wanted())?;
    number.checked_mul(unit_ms).filter(|ms| *ms > 0).ok_or_else(wanted)
}

fn limit(text: &str) -> Result<(String, u64), String> {
    let (budget, units) = text.rsplit_once('=').ok_or("wanted: BUDGET=UNITS")?;
    Ok((budget.to_owned(), micros(units)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_time() {
        for (text, ms) in [("90d", Some(7_776_000_000)), ("12h", Some(43_200_000)), ("45s", Some(45_000))] {
            assert_eq!(span_ms(text).ok(), ms, "{text}");
        }
        for text in ["", "d", "90", "-1d", "0s", "1w", "99999999999999999999d", "é"] {
            assert!(span_ms(text).is_err(), "{text}");
        }
    }

    #[test]
    fn limits_of_keys() {
        assert_eq!(limit("ns/key-daily=5").unwrap(), ("ns/key-daily".to_owned(), 5_000_000));
        assert_eq!(limit("key-dollars=1.5").unwrap(), ("key-dollars".to_owned(), 1_500_000));
        assert!(limit("key-daily").is_err() && limit("a=").is_err());
    }
}
