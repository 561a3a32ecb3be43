//! The workload `hierarchy`: reservations on a user, a team, the organisation and its dollars at once. Held on all or on
//! none, and every reader sees it so: [`crate::check::levels`], beside all that holds of accounts.

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
use crate::check::{Verdict, accounts, levels};
use crate::client::{Ending, Ids};
use crate::deploy::Deployment;
use crate::history::History;

const NAME: &str = "hierarchy";
const HOT: usize = 2;
const OPERATIONS_OF_TENANT: u64 = 150;
const USERS: u64 = 4;
const TEAMS: u64 = 2;
const DOLLARS_PER_TOKEN: u64 = 3;
/// Budgets, their subject in a manifest, and their limit in units: short at one level or another.
const BUDGETS: [(&str, &str, &str, u64); 4] = [
    ("hierarchy-user", "subject: [user]\n  ", "tokens", 400),
    ("hierarchy-team", "subject: [team]\n  ", "tokens", 700),
    ("hierarchy-organisation", "", "tokens", 1_100),
    ("hierarchy-dollars", "", "dollars", 3_000),
];
const AGAIN: usize = 6;

#[derive(Debug)]
pub struct Hierarchy {
    /// Operations a second, of all clients together.
    pub rate: u64,
    tenants: Arc<Tenants>,
}

impl Default for Hierarchy {
    fn default() -> Self {
        Self::with_rate(100)
    }
}

impl Hierarchy {
    pub fn with_rate(rate: u64) -> Self {
        let users = (0..USERS).map(|user| charges(user, 0, 0));
        let limits = users.flatten().map(|charge| Limit {
            account: format!("{}/{}", charge.budget, charge.subject),
            limit: limit_of(&charge.budget) * 1_000_000,
        });
        let mut limits: Vec<Limit> = limits.collect();
        limits.sort_by(|one, other| one.account.cmp(&other.account));
        limits.dedup();
        Self { rate, tenants: Arc::new(Tenants::new(NAME, limits, OPERATIONS_OF_TENANT)) }
    }
}

impl Workload for Hierarchy {
    fn name(&self) -> &'static str {
        NAME
    }

    /// Requests through gateways never have the header: only direct operations are charged here.
    fn policy(&self, _deployment: &Deployment) -> String {
        let budget = |(name, subject, unit, limit): &(&str, &str, &str, u64)| {
            format!(
                "apiVersion: quorate.dev/v1alpha1\nkind: Budget\nmetadata: {{name: {name}}}\nspec:\n  \
                 selector: {{headers: [{{name: x-jepsen, value: {NAME}}}]}}\n  {subject}limit: {{{unit}: {limit}}}\n  \
                 window: Lifetime\n---\n"
            )
        };
        BUDGETS.iter().map(budget).collect()
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
        let mut verdict = accounts::check(history, NAME);
        verdict.merge(levels::check(history, NAME, &the_levels()));
        verdict
    }
}

fn limit_of(budget: &str) -> u64 {
    BUDGETS.iter().find(|(name, ..)| *name == budget).map_or(0, |(_, _, _, limit)| *limit)
}

fn user(number: u64) -> String {
    format!("hierarchy-{number}")
}

fn team(user: u64) -> String {
    format!("hierarchy-team-{}", user % TEAMS)
}

/// What a request of a user charges at each level, in tokens.
fn charges(number: u64, tokens: u64, at_least: u64) -> Vec<Charge> {
    let subjects = [user(number), team(number), String::new(), String::new()];
    let charge = |((budget, _, unit, _), subject): (&(&str, &str, &str, u64), String)| {
        let price = if *unit == "dollars" { DOLLARS_PER_TOKEN } else { 1 };
        let amount = |tokens: u64| Amount::from_units(tokens * price).unwrap_or_default();
        let budget = (*budget).to_owned();
        Charge { budget, subject, amount: amount(tokens), at_least: amount(at_least) }
    };
    BUDGETS.iter().zip(subjects).map(charge).collect()
}

fn the_levels() -> levels::Levels {
    let team_of = (0..USERS).map(|number| {
        (format!("hierarchy-user/{}", user(number)), format!("hierarchy-team/{}", team(number)))
    });
    levels::Levels {
        team_of: team_of.collect(),
        organisation: "hierarchy-organisation/".to_owned(),
        dollars: "hierarchy-dollars/".to_owned(),
        dollars_per_token: DOLLARS_PER_TOKEN,
    }
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
            0..35 => self.reserve(tenant).await?,
            35..58 => self.settle(tenant).await?,
            58..65 => {
                let Made { id, .. } = tenant.pick(&mut self.player.random, true)?;
                self.player.insist(&Command::Release { tenant: tenant.name.clone(), id }, AGAIN).await?;
            }
            65..82 => {
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
        let tokens = random.random_range(1..60);
        let charges = charges(random.random_range(0..USERS), tokens, tokens);
        let held = charges.iter().map(|charge| charge.amount).collect();
        let ttl_ms = if random.random_bool(0.15) { random.random_range(50..1_500) } else { 8_000 };
        let reserve = Command::Reserve { tenant: tenant.name.clone(), id, charges, ttl_ms, wait: false };
        let ending = match random.random_range(0..10) {
            0 => self.player.send_twice(&reserve).await?,
            _ => self.player.insist(&reserve, AGAIN).await?,
        };
        let is_made = matches!(ending, Ending::Unknown(_))
            || matches!(&ending, Ending::Ok(Executed { outcome: Outcome::Granted(_), .. }));
        if is_made {
            tenant.keep(Made { id, held });
        }
        Some(())
    }

    /// The same share of every charge, in whole tokens: so the levels stay in proportion.
    async fn settle(&mut self, tenant: &Hot) -> Option<()> {
        let random = &mut self.player.random;
        let Made { id, held } = tenant.pick(random, true)?;
        let tokens = held.first()?.micros() / 1_000_000;
        let most = if random.random_bool(0.1) { 2 * tokens } else { tokens };
        let used = random.random_range(0..=most);
        let actual = charges(0, used, used).iter().map(|charge| charge.amount).collect();
        let settle = Command::Settle { tenant: tenant.name.clone(), id, actual, estimated: false };
        self.player.insist(&settle, AGAIN).await?;
        Some(())
    }
}
