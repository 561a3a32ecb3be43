//! The workload `account`: reserve, settle, release, extend and read on few hot tenants, from many clients, each operation
//! at any node. Some send again after an unknown end, some give up; some settle more than they hold, some send twice at the
//! same time. Checked by [`crate::check::accounts`].

use std::sync::Arc;

use anyhow::Result;
use futures_util::future::BoxFuture;
use quorate_ledger::{Amount, Charge, Command, Outcome};
use quorate_rpc::Executed;
use quorate_rpc::admin::Consistency;
use rand::Rng as _;

use super::accounts::drive::{Act, drive};
use super::accounts::finish::finish;
use super::accounts::player::Player;
use super::accounts::tenants::{Hot, Made, Tenants};
use super::{Context, Workload};
use crate::check::words::Limit;
use crate::check::{Verdict, accounts};
use crate::client::{Ending, Ids};
use crate::deploy::Deployment;
use crate::history::History;

const NAME: &str = "account";
const HOT: usize = 4;
const OPERATIONS_OF_TENANT: u64 = 200;
const USERS: u64 = 3;
/// Tokens. All users together have less than each of them: so both kinds of account are short at times.
const LIMIT_OF_USER: u64 = 500;
const LIMIT_OF_ALL: u64 = 1_100;
/// Attempts after one of unknown end.
const AGAIN: usize = 6;

#[derive(Debug)]
pub struct Account {
    /// Operations a second, of all clients together.
    pub rate: u64,
    tenants: Arc<Tenants>,
}

impl Default for Account {
    fn default() -> Self {
        Self::with_rate(300)
    }
}

impl Account {
    pub fn with_rate(rate: u64) -> Self {
        let limit = |account: String, tokens: u64| Limit { account, limit: tokens * 1_000_000 };
        let users = (0..USERS).map(|user| limit(format!("account-user/{}", subject(user)), LIMIT_OF_USER));
        let limits = users.chain([limit("account-all/".to_owned(), LIMIT_OF_ALL)]).collect();
        Self { rate, tenants: Arc::new(Tenants::new(NAME, limits, OPERATIONS_OF_TENANT)) }
    }
}

impl Workload for Account {
    fn name(&self) -> &'static str {
        NAME
    }

    /// Requests through gateways never have the header: only direct operations are charged here.
    fn policy(&self, _deployment: &Deployment) -> String {
        let budget = |name: &str, subject: &str, tokens: u64| {
            format!(
                "apiVersion: quorate.dev/v1alpha1\nkind: Budget\nmetadata: {{name: {name}}}\nspec:\n  \
                 selector: {{headers: [{{name: x-jepsen, value: {NAME}}}]}}\n  {subject}limit: {{tokens: {tokens}}}\n  \
                 window: Lifetime\n---\n"
            )
        };
        let user = budget("account-user", "subject: [user]\n  ", LIMIT_OF_USER);
        user + &budget("account-all", "", LIMIT_OF_ALL)
    }

    fn drive(&self, context: Context) -> BoxFuture<'static, Result<()>> {
        let (tenants, rate) = (self.tenants.clone(), self.rate);
        let client = |player, ids| Client { player, ids };
        Box::pin(drive(NAME, context, tenants, (rate, HOT), client))
    }

    fn finish(&self, context: Context) -> BoxFuture<'static, Result<()>> {
        let tenants = self.tenants.names();
        Box::pin(async move { finish(NAME, &context, &tenants).await })
    }

    fn check(&self, history: &History) -> Verdict {
        accounts::check(history, NAME)
    }
}

fn subject(user: u64) -> String {
    format!("account-{user}")
}

struct Client {
    player: Player,
    ids: Arc<Ids>,
}

impl Act for Client {
    fn player(&mut self) -> &mut Player {
        &mut self.player
    }

    async fn act(&mut self, tenant: &Hot) -> Option<()> {
        match self.player.random.random_range(0..100) {
            0..40 => self.reserve(tenant).await?,
            40..66 => self.settle(tenant).await?,
            66..73 => {
                let Made { id, .. } = tenant.pick(&mut self.player.random, true)?;
                self.send(&Command::Release { tenant: tenant.name.clone(), id }).await?;
            }
            73..80 => {
                let Made { id, .. } = tenant.pick(&mut self.player.random, false)?;
                let ttl_ms = self.player.random.random_range(500..6_000);
                self.send(&Command::Extend { tenant: tenant.name.clone(), id, ttl_ms }).await?;
            }
            80..92 => {
                self.player.read(&tenant.name, Consistency::Linearizable).await?;
            }
            _ => {
                self.player.read(&tenant.name, Consistency::Stale).await?;
            }
        }
        Some(())
    }
}

impl Client {
    async fn reserve(&mut self, tenant: &Hot) -> Option<()> {
        let random = &mut self.player.random;
        let id = self.ids.next(random);
        let asked = random.random_range(1..60);
        let least = if random.random_bool(0.25) { random.random_range(1..=asked) } else { asked };
        let user = subject(random.random_range(0..USERS));
        // Some expire while the run goes on.
        let ttl_ms = if random.random_bool(0.15) { random.random_range(50..1_500) } else { 8_000 };
        let (amount, at_least) = (Amount::from_units(asked).ok()?, Amount::from_units(least).ok()?);
        let charge =
            |budget: &str, subject: String| Charge { budget: budget.to_owned(), subject, amount, at_least };
        let charges = vec![charge("account-user", user), charge("account-all", String::new())];
        let reserve = Command::Reserve { tenant: tenant.name.clone(), id, charges, ttl_ms, wait: false };
        match self.send(&reserve).await? {
            Ending::Ok(Executed { outcome: Outcome::Granted(grant), .. }) => {
                let held = grant.balances.iter().map(|balance| balance.amount).collect();
                tenant.keep(Made { id, held });
            }
            // Somebody may settle what may not have been made.
            Ending::Unknown(_) => tenant.keep(Made { id, held: vec![amount; 2] }),
            Ending::Ok(_) | Ending::Fail(_) => {}
        }
        Some(())
    }

    async fn settle(&mut self, tenant: &Hot) -> Option<()> {
        let random = &mut self.player.random;
        // Some end twice, and differently.
        let ends = random.random_bool(0.9);
        let Made { id, held } = tenant.pick(random, ends)?;
        let percent = if random.random_bool(0.1) {
            random.random_range(100..200)
        } else {
            random.random_range(0..=100)
        };
        let used = |held: &Amount| Amount::from_micros(held.micros() / 100 * percent).unwrap_or_default();
        let actual = held.iter().map(used).collect();
        self.send(&Command::Settle { tenant: tenant.name.clone(), id, actual, estimated: false }).await?;
        Some(())
    }

    /// As clients are: some give up at once, some insist, some are in two places.
    async fn send(&mut self, command: &Command) -> Option<Ending<Executed>> {
        match self.player.random.random_range(0..10) {
            0 => self.player.send_twice(command).await,
            1..4 => self.player.send(command).await,
            _ => self.player.insist(command, AGAIN).await,
        }
    }
}
