//! What clients do: the life of a request with all that can go wrong on their side (they vanish, come too late, ask twice,
//! change their mind), and an operator who changes limits meanwhile.

use quorate_ledger::{Adjustment, Amount, Charge, Command, Grant, Outcome, ReservationId};
use tokio::time::{Duration, Instant};

use super::client::Client;
use super::plan::{Plan, charges, policy, tenant, tokens};

/// Longest a client or a reservation goes on after the trouble has ended.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
const NO_WAIT: Duration = Duration::ZERO;
const TTL_MAX_MS: u64 = 8_000;

pub(super) async fn gateway(mut client: Client, plan: Plan, until: Instant) {
    while Instant::now() < until {
        let pause = client.rng.delay(150, 1_500);
        tokio::time::sleep(pause).await;
        request(&mut client, &plan).await;
    }
}

async fn request(client: &mut Client, plan: &Plan) {
    let tenant = tenant(client.rng.below(plan.tenants));
    let id = client.new_id();
    let charges = charges(&mut client.rng);
    let ttl_ms = client.rng.between(200, TTL_MAX_MS);
    let wait = if client.rng.percent(40) { client.rng.millis(100, 6_000) } else { NO_WAIT };
    let timeout = wait + client.rng.millis(1_000, 10_000);
    let reserve =
        Command::Reserve { tenant: tenant.clone(), id, charges: charges.clone(), ttl_ms, wait: false };
    match client.rng.below(10) {
        0 => again(client, reserve.clone(), wait, timeout),
        1 => {
            let (tenant, patience) = (tenant.clone(), client.rng.millis(10, 1_500));
            let mut twin = client.twin();
            tokio::spawn(async move {
                tokio::time::sleep(patience).await;
                twin.execute(Command::Release { tenant, id }, NO_WAIT, timeout).await;
            });
        }
        _ => {}
    }
    match client.execute(reserve.clone(), wait, timeout).await {
        Some(Outcome::Granted(grant)) => use_it(client, (&tenant, id), &grant, ttl_ms, reserve).await,
        Some(Outcome::Denied(_)) if client.rng.percent(20) => {
            client.execute(reserve, wait, timeout).await;
        }
        // It may hold something, which comes back at the latest with its deadline.
        None if client.rng.percent(50) => {
            client.execute(Command::Release { tenant, id }, NO_WAIT, PATIENCE / 2).await;
        }
        _ => {}
    }
}

/// The same once more, a little later, beside everything else.
fn again(client: &mut Client, command: Command, wait: Duration, timeout: Duration) {
    let (mut twin, delay) = (client.twin(), client.rng.delay(20, 3_000));
    tokio::spawn(async move {
        tokio::time::sleep(delay).await;
        twin.execute(command, wait, timeout).await;
    });
}

async fn use_it(
    client: &mut Client,
    (tenant, id): (&str, ReservationId),
    grant: &Grant,
    ttl_ms: u64,
    reserve: Command,
) {
    let held = client.rng.delay(600, ttl_ms * 3 / 2);
    tokio::time::sleep(held).await;
    let (tenant, timeout) = (tenant.to_owned(), client.rng.millis(1_000, 10_000));
    match client.rng.below(20) {
        // It vanishes: the reservation expires.
        0 | 1 => return,
        2..5 => {
            let extend =
                Command::Extend { tenant: tenant.clone(), id, ttl_ms: client.rng.between(200, TTL_MAX_MS) };
            client.execute(extend, NO_WAIT, timeout).await;
        }
        5 => {
            client.execute(reserve, NO_WAIT, timeout).await;
        }
        6 => {
            if let Command::Reserve { tenant, charges, ttl_ms, .. } = reserve {
                let ttl_ms = ttl_ms + 1;
                let other = Command::Reserve { tenant, id, charges, ttl_ms, wait: false };
                client.execute(other, NO_WAIT, timeout).await;
            }
        }
        _ => {}
    }
    // As gateways do it, whose answers do not wait for this.
    let wait = if client.rng.percent(50) { client.rng.millis(1, 100) } else { NO_WAIT };
    if client.rng.percent(15) {
        client.execute(Command::Release { tenant, id }, wait, timeout).await;
        return;
    }
    let tenths = if client.rng.percent(10) { client.rng.between(11, 14) } else { client.rng.between(0, 10) };
    let part = |amount: Amount| Amount::from_micros(amount.micros() / 10 * tenths).unwrap_or(amount);
    let actual = grant.balances.iter().map(|balance| part(balance.amount)).collect();
    let settle = Command::Settle { tenant, id, actual, estimated: client.rng.percent(10) };
    if client.rng.percent(20) {
        again(client, settle.clone(), wait, timeout);
    }
    client.execute(settle, wait, timeout).await;
}

/// Puts the first policy, then changes limits now and then.
pub(super) async fn operator(mut client: Client, plan: Plan, until: Instant) {
    while Instant::now() < until {
        let pause = client.rng.millis(300, 4_000);
        tokio::time::sleep(pause).await;
        let command = match client.rng.below(3) {
            0 => policy(&mut client.rng),
            _ => {
                let (budget, adjustment) = match client.rng.below(5) {
                    0 | 1 => ("user", Adjustment::TopUp(tokens(client.rng.between(1, 50)))),
                    2 => ("team", Adjustment::Reset),
                    3 => ("team", Adjustment::OverrideLimit(tokens(client.rng.between(80, 300)))),
                    _ => ("team", Adjustment::ClearOverride),
                };
                let (tenant, id) = (tenant(client.rng.below(plan.tenants)), client.new_id());
                let subject = (*client.rng.pick(&["alice", "bob"])).to_owned();
                let (budget, by) = (budget.to_owned(), String::new());
                Command::AdjustAccount { tenant, id, budget, subject, adjustment, by }
            }
        };
        client.execute(command, NO_WAIT, PATIENCE / 2).await;
    }
}

/// Everything of one account of a tenant.
pub(super) fn whole(tenant: &str, id: ReservationId, budget: &str, amount: Amount) -> Command {
    let charge = Charge { budget: budget.to_owned(), subject: "alice".to_owned(), amount, at_least: amount };
    Command::Reserve { tenant: tenant.to_owned(), id, charges: vec![charge], ttl_ms: 60_000, wait: false }
}
