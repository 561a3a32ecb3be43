//! Tells the cluster how the backends do: what changed, and at most once a second. Best effort: a report that is lost is
//! made again with the next change.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use quorate_ledger::{Command, ProviderReport, ProviderState};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::budget::BudgetKeeper;

/// As many as the ledger keeps an opinion of.
const BACKENDS_MAX: usize = 1_024;
const INTERVAL: Duration = Duration::from_secs(1);
const REPORT_WITHIN: Duration = Duration::from_secs(5);
/// A state other than healthy that goes on is reported again after this long, with its newest retry delay.
const REPEAT: Duration = Duration::from_secs(10);

/// What a call showed about a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sighting {
    pub(crate) state: ProviderState,
    /// Never anything from a body: no secrets, no user data.
    pub(crate) reason: String,
    pub(crate) retry_after_ms: u64,
}

impl Sighting {
    pub(crate) fn healthy() -> Self {
        Self { state: ProviderState::Healthy, reason: String::new(), retry_after_ms: 0 }
    }

    pub(crate) fn failing(reason: impl Into<String>) -> Self {
        Self { state: ProviderState::Failing, reason: reason.into(), retry_after_ms: 0 }
    }
}

/// One watched cell for each backend: only the newest sighting matters. Backends come and go with the policy.
#[derive(Debug)]
pub(crate) struct Health {
    cells: Mutex<HashMap<String, watch::Sender<Option<Sighting>>>>,
    reporter: String,
    keeper: Arc<dyn BudgetKeeper>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Health {
    pub(crate) fn new(
        reporter: &str,
        keeper: &Arc<dyn BudgetKeeper>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        Self {
            cells: Mutex::default(),
            reporter: reporter.to_owned(),
            keeper: Arc::clone(keeper),
            tasks: tasks.clone(),
            stop: stop.clone(),
        }
    }

    /// Cheap when nothing changed.
    pub(crate) fn saw(&self, backend: &str, sighting: Sighting) {
        let mut cells = self.cells.lock();
        if !cells.contains_key(backend) {
            if cells.len() >= BACKENDS_MAX {
                // Those of policies that are gone; each cell's task ends with it, and the living ones come back.
                cells.clear();
            }
            cells.insert(backend.to_owned(), self.start(backend));
        }
        let Some(cell) = cells.get(backend) else { return };
        cell.send_if_modified(|seen| {
            let changed = seen.as_ref() != Some(&sighting) || sighting.state != ProviderState::Healthy;
            if changed {
                *seen = Some(sighting);
            }
            changed
        });
    }

    fn start(&self, backend: &str) -> watch::Sender<Option<Sighting>> {
        let (cell, sightings) = watch::channel(None);
        let reporting = Reporting {
            backend: backend.to_owned(),
            reporter: self.reporter.clone(),
            keeper: Arc::clone(&self.keeper),
            sightings,
        };
        self.tasks.spawn(reporting.run(self.stop.clone()));
        cell
    }
}

struct Reporting {
    backend: String,
    reporter: String,
    keeper: Arc<dyn BudgetKeeper>,
    sightings: watch::Receiver<Option<Sighting>>,
}

impl Reporting {
    async fn run(mut self, stop: CancellationToken) {
        let mut reported: Option<(ProviderState, Instant)> = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = self.sightings.changed() => if changed.is_err() { return },
            }
            let Some(sighting) = self.sightings.borrow_and_update().clone() else { continue };
            let known = reported.is_some_and(|(state, at)| {
                state == sighting.state && (state == ProviderState::Healthy || at.elapsed() < REPEAT)
            });
            if known {
                continue;
            }
            if self.report(&sighting).await {
                reported = Some((sighting.state, Instant::now()));
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep_until(Instant::now() + INTERVAL) => {}
            }
        }
    }

    async fn report(&self, sighting: &Sighting) -> bool {
        tracing::info!(backend = self.backend, state = ?sighting.state, reason = sighting.reason, "provider health");
        let command = Command::ReportProvider(ProviderReport {
            backend: self.backend.clone(),
            state: sighting.state,
            reason: sighting.reason.clone(),
            retry_after_ms: sighting.retry_after_ms,
            reporter: self.reporter.clone(),
        });
        match self.keeper.execute(command, REPORT_WITHIN).await {
            Ok(_) => true,
            Err(error) => {
                tracing::debug!(backend = self.backend, %error, "provider report not delivered");
                false
            }
        }
    }
}
