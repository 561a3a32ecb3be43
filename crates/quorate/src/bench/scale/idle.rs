//! `quorate bench idle`: what processes take that have nothing to do, freshly started and after work.
//!
//! Memory is told apart by what is behind it: a process's own, or files (the program's, mostly), which processes on one
//! machine share and the kernel takes back when it needs them. What one more of anything costs is in `memory.rs`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use comfy_table::Table;
use serde::Serialize;

use crate::bench::cluster::{BUDGET, Cluster};
use crate::bench::http::ChatWork;
use crate::bench::load::{self, Load, Watched};
use crate::bench::process::{Process, Resident};
use crate::bench::report::Machine;
use crate::bench::scale::walk::Walk;
use crate::bench::scale::{Findings, memory, mib, watch};
use crate::output;

const CHAT_CLIENTS: usize = 64;
const SESSION_CLIENTS: u64 = 2_048;
const SESSIONS: usize = 4;
const TENANTS: u64 = 64;
/// The allocator gives back what has been free for a while, and looks when it is asked for something.
const REST: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy)]
pub struct Idle {
    /// Of the chat requests.
    pub duration: Duration,
    /// 0: no look after them, which saves the wait.
    pub reservations: u64,
}

#[derive(Debug, Default, Serialize)]
pub struct IdleFound {
    pub machine: Machine,
    pub resting: Vec<Resting>,
    pub seconds: f64,
}

/// One process at one time.
#[derive(Debug, Clone, Serialize)]
pub struct Resting {
    pub after: &'static str,
    pub process: String,
    pub resident: Resident,
}

impl Idle {
    /// # Errors
    /// The cluster does not start, an operation fails, or memory cannot be read here.
    pub async fn run(self, progress: impl Fn(&str)) -> Result<IdleFound> {
        let started = Instant::now();
        progress("starting three nodes, a gateway and a simulated provider");
        let cluster = Cluster::start().await?;
        let mut resting = look(&cluster, "the start").await?;
        progress(&format!("chat requests of {CHAT_CLIENTS} clients"));
        let load = Load {
            clients: CHAT_CLIENTS,
            rate: None,
            duration: self.duration,
            warm_up: Duration::ZERO,
            operations_max: None,
        };
        let chat = ChatWork::new(&cluster.gateways[0], false, CHAT_CLIENTS)?;
        load::run(Arc::new(chat), load, &Watched::default()).await?;
        resting.extend(look(&cluster, "chat requests").await?);
        if self.reservations > 0 {
            let (count, clients) = (self.reservations, SESSION_CLIENTS);
            progress(&format!("{count} reservations of {clients} clients, until they are forgotten"));
            let work = Arc::new(Walk::new(&cluster, SESSIONS, vec![BUDGET.to_owned()]).over(TENANTS, 1));
            work.touch_all(0..count, clients).await?;
            work.wait_until_forgotten(count).await?;
            resting.extend(look(&cluster, "reservations").await?);
        }
        cluster.stop().await;
        Ok(IdleFound { machine: Machine::default(), resting, seconds: started.elapsed().as_secs_f64() })
    }
}

async fn look(cluster: &Cluster, after: &'static str) -> Result<Vec<Resting>> {
    tokio::time::sleep(REST).await;
    let Watched { gateways, nodes, .. } = cluster.watched();
    let mut names = vec!["gateway".to_owned(); gateways.len()];
    names.extend(memory::names(cluster).await?);
    let weigh = |(process, name): (&Process, String)| {
        let resident =
            process.resident().with_context(|| format!("the memory of a {name} cannot be read"))?;
        Ok(Resting { after, process: name, resident })
    };
    watch::resident_at_rest(&nodes).await?;
    gateways.iter().chain(&nodes).zip(names).map(weigh).collect()
}

impl IdleFound {
    /// Bytes of all processes at this time.
    fn total(&self, after: &str) -> u64 {
        self.resting.iter().filter(|one| one.after == after).map(|one| one.resident.all_bytes).sum()
    }
}

impl Findings for IdleFound {
    const NAME: &'static str = "idle";

    fn table(&self) -> Table {
        let mut table = output::table(&["AFTER", "PROCESS", "RESIDENT", "ITS OWN", "OF FILES"]);
        let shown = |bytes: u64| format!("{:.1} MiB", mib(bytes as f64));
        for Resting { after, process, resident } in &self.resting {
            let Resident { all_bytes, own_bytes, file_bytes } = resident;
            let bytes = [all_bytes, own_bytes, file_bytes].map(|bytes| shown(*bytes));
            table.add_row([(*after).to_owned(), process.clone()].into_iter().chain(bytes));
        }
        table
    }

    fn notes(&self) -> Vec<String> {
        let mut times: Vec<&str> = self.resting.iter().map(|one| one.after).collect();
        times.dedup();
        let total = |after: &str| format!("after {after} {:.0} MiB", mib(self.total(after) as f64));
        let totals: Vec<String> = times.into_iter().map(total).collect();
        vec![
            format!("all of them: {}", totals.join(", ")),
            format!("{} CPUs, {}; took {:.0} s", self.machine.cpus, self.machine.model, self.seconds),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_of_one_time() {
        let resting = |after, all_bytes| Resting {
            after,
            process: "leader".to_owned(),
            resident: Resident { all_bytes, own_bytes: all_bytes, file_bytes: 0 },
        };
        let found = IdleFound {
            resting: vec![resting("a", 1 << 20), resting("a", 2 << 20), resting("b", 1 << 22)],
            ..IdleFound::default()
        };
        assert_eq!(found.total("a"), 3 << 20);
        assert!(found.notes()[0].ends_with("after a 3 MiB, after b 4 MiB"), "{:?}", found.notes());
    }
}
