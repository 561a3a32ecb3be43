//! `quorate bench memory`: what one more of each costs: an open reservation, one that is remembered, an idle tenant, an
//! account, an open stream.
//!
//! Resident memory of the processes before and after many were made. Everything else is brought to its size first: the
//! log's tail in memory, the log's cache, buffers of connections. Of tenants and accounts it counts what stays when the
//! reservations that made them are forgotten.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use comfy_table::Table;
use parking_lot::Mutex;
use serde::Serialize;

use crate::bench::cluster::{Cluster, Shape};
use crate::bench::report::Machine;
use crate::bench::scale::fit::Line;
use crate::bench::scale::walk::{FORGOTTEN_AFTER, Held, Walk, for_each, policy};
use crate::bench::scale::{Findings, mib, streams, watch};
use crate::output;

const BUDGET: &str = "bench";
const AT_ONCE: u64 = 256;
const SESSIONS: usize = 4;
/// More than the tail of the log in memory holds: 8 MiB of extensions.
const WARM_UP: u64 = 150_000;

/// Whether little is made, for a try.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Reservations; tenants and accounts are twice as many.
    pub items: u64,
    pub streams: usize,
}

#[derive(Debug, Default, Serialize)]
pub struct MemoryFound {
    pub machine: Machine,
    pub weights: Vec<Weight>,
    pub seconds: f64,
}

/// One process before and after.
#[derive(Debug, Clone, Serialize)]
pub struct Weight {
    pub one: &'static str,
    pub process: String,
    pub count: u64,
    pub before_bytes: u64,
    pub after_bytes: u64,
    pub bytes_each: f64,
}

impl Weight {
    /// From the number that there were and the memory at each step.
    pub fn new(one: &'static str, process: String, steps: &[(u64, u64)]) -> Self {
        let points: Vec<(f64, f64)> =
            steps.iter().map(|(count, bytes)| (*count as f64, *bytes as f64)).collect();
        let (first, last) =
            (steps.first().copied().unwrap_or_default(), steps.last().copied().unwrap_or_default());
        Self {
            one,
            process,
            count: last.0,
            before_bytes: first.1,
            after_bytes: last.1,
            bytes_each: Line::through(&points).map_or(0.0, |line| line.slope),
        }
    }
}

impl Memory {
    /// # Errors
    /// A cluster does not start, an operation fails, or memory cannot be read here.
    pub async fn run(self, progress: impl Fn(&str)) -> Result<MemoryFound> {
        let started = Instant::now();
        progress(&format!("{} open reservations", self.items));
        let mut weights = self.reservations().await?;
        progress(&format!("{} open streams", self.streams));
        weights.extend(streams::weigh(self.streams).await?);
        let wait = FORGOTTEN_AFTER.as_secs();
        progress(&format!(
            "{0} tenants, and {0} accounts of one tenant; {wait} s until all is forgotten",
            2 * self.items
        ));
        let tenants = self.at_rest("idle tenant, one account each", 2 * self.items, 1);
        let accounts = self.at_rest("idle account", 1, 2 * self.items);
        let (tenants, accounts) = tokio::try_join!(tenants, accounts)?;
        weights.extend(tenants.into_iter().chain(accounts));
        Ok(MemoryFound { machine: Machine::default(), weights, seconds: started.elapsed().as_secs_f64() })
    }

    async fn reservations(self) -> Result<Vec<Weight>> {
        let cluster = start().await?;
        let work = Arc::new(Walk::new(&cluster, SESSIONS, vec![BUDGET.to_owned()]).over(64, 1));
        work.extend_one(self.warm_up()).await?;
        let nodes = cluster.watched().nodes;
        let names = names(&cluster).await?;
        let held: Arc<Mutex<Vec<Held>>> = Arc::default();
        let mut looks = vec![watch::resident_at_rest(&nodes).await?];
        for step in 1..=2 {
            let (from, to) = (self.items / 2 * (step - 1), self.items / 2 * step);
            let (work, held) = (work.clone(), held.clone());
            for_each(from..to, AT_ONCE, move |number| {
                let (work, held) = (work.clone(), held.clone());
                async move {
                    let one = work.hold(number).await?;
                    held.lock().push(one);
                    Ok(())
                }
            })
            .await?;
            looks.push(watch::resident_at_rest(&nodes).await?);
        }
        let open = std::mem::take(&mut *held.lock());
        let settled = Arc::new(Mutex::new(open.into_iter()));
        for_each(0..self.items, AT_ONCE, move |_| {
            let (work, next) = (work.clone(), settled.lock().next());
            async move {
                match next {
                    Some(held) => work.settle(held).await,
                    None => Ok(()),
                }
            }
        })
        .await?;
        let after = watch::resident_at_rest(&nodes).await?;
        cluster.stop().await;
        let mut weights = Vec::new();
        for (index, name) in names.iter().enumerate() {
            let at = |step: u64| (self.items / 2 * step, looks[usize::try_from(step).unwrap_or(0)][index]);
            weights.push(Weight::new("open reservation", name.clone(), &[at(0), at(1), at(2)]));
            weights.push(Weight::new(
                "settled reservation, remembered",
                name.clone(),
                &[at(0), (self.items, after[index])],
            ));
        }
        Ok(weights)
    }

    /// Tenants or accounts, when the reservations that made them are forgotten and the actors are gone.
    async fn at_rest(self, one: &'static str, tenants: u64, subjects: u64) -> Result<Vec<Weight>> {
        let count = tenants.max(subjects);
        let cluster = start().await?;
        let names = names(&cluster).await?;
        let work = Walk::new(&cluster, SESSIONS, vec![BUDGET.to_owned()]).over(tenants, subjects);
        let work = Arc::new(work);
        work.extend_one(self.warm_up()).await?;
        let nodes = cluster.watched().nodes;
        let before = watch::resident_at_rest(&nodes).await?;
        work.touch_all(1..count, AT_ONCE).await?;
        work.wait_until_forgotten(count).await?;
        let after = watch::resident_at_rest(&nodes).await?;
        cluster.stop().await;
        let steps = |index: usize| [(0, before[index]), (count, after[index])];
        Ok(names.into_iter().enumerate().map(|(index, name)| Weight::new(one, name, &steps(index))).collect())
    }

    fn warm_up(self) -> u64 {
        WARM_UP.min(self.items * 2)
    }
}

async fn start() -> Result<Cluster> {
    let policy = policy([BUDGET], "window: Year, accountsMax: 1000000");
    Cluster::start_as(&Shape { gateways: 0, policy, ..Shape::default() }).await
}

/// What each node does: `leader`, `follower`.
pub async fn names(cluster: &Cluster) -> Result<Vec<String>> {
    Ok(watch::nodes(cluster).await?.into_iter().map(|node| node.role).collect())
}

impl Findings for MemoryFound {
    const NAME: &'static str = "memory";

    fn table(&self) -> Table {
        let mut table = output::table(&["ONE", "PROCESS", "COUNT", "BEFORE", "AFTER", "BYTES EACH"]);
        for weight in &self.weights {
            table.add_row([
                weight.one.to_owned(),
                weight.process.clone(),
                weight.count.to_string(),
                format!("{:.1} MiB", mib(weight.before_bytes as f64)),
                format!("{:.1} MiB", mib(weight.after_bytes as f64)),
                format!("{:.0}", weight.bytes_each),
            ]);
        }
        table
    }

    fn notes(&self) -> Vec<String> {
        vec![format!("{} CPUs, {}; took {:.0} s", self.machine.cpus, self.machine.model, self.seconds)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_more_is_the_slope_of_all_steps() {
        let weight = Weight::new("x", "leader".to_owned(), &[(0, 1_000), (10, 2_000), (20, 3_000)]);
        assert!((weight.bytes_each - 100.0).abs() < 1e-9, "{weight:?}");
        assert_eq!((weight.count, weight.before_bytes, weight.after_bytes), (20, 1_000, 3_000));
    }
}
