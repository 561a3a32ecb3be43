//! The clients of a workload on accounts: each acts at its own pace, on one hot tenant after the other. What they do there
//! is the workload's.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::player::Player;
use super::tenants::{Hot, Tenants};
use crate::client::Ids;
use crate::workloads::Context;

/// One client.
pub trait Act: Send + 'static {
    fn player(&mut self) -> &mut Player;

    /// Once; `None`: there was nothing to do.
    fn act(&mut self, tenant: &Hot) -> impl Future<Output = Option<()>> + Send;
}

/// `rate`: operations a second, of all clients together; `hot`: tenants at a time.
///
/// # Errors
/// A client panicked.
pub async fn drive<A: Act>(
    workload: &'static str,
    context: Context,
    tenants: Arc<Tenants>,
    (rate, hot): (u64, usize),
    client: impl Fn(Player, Arc<Ids>) -> A,
) -> Result<()> {
    let ids = Arc::new(Ids::follow(&context.deployment));
    let pause = Duration::from_micros(1_000_000 * context.clients as u64 / rate.max(1));
    let mut clients = JoinSet::new();
    for number in 0..context.clients as u64 {
        let client = client(Player::new(workload, &context, number), ids.clone());
        clients.spawn(run(client, context.clone(), tenants.clone(), hot, pause));
    }
    while let Some(ended) = clients.join_next().await {
        ended?;
    }
    Ok(())
}

async fn run(mut client: impl Act, context: Context, tenants: Arc<Tenants>, hot: usize, pause: Duration) {
    let mut ticks = interval(pause);
    // After a partition, clients do not make up for what they did not ask.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !context.stop.is_cancelled() {
        ticks.tick().await;
        let tenant = tenants.next(&context.recorder, &mut client.player().random, hot);
        client.act(&tenant).await;
    }
}
