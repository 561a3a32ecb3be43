//! Tells the cluster what this gateway saw: successes once a second, failures sooner, signals and verdicts at once. One
//! report of a circuit is on its way at a time.

use std::{sync::Arc, time::Duration};

use quorate_ledger::{Command, Outcome, ProviderReport};
use tokio::time::{Instant, sleep, sleep_until};

use super::Health;

/// The client repeats a report inside of this.
pub(super) const REPORT_WITHIN: Duration = Duration::from_secs(5);
/// How long a report may still take when the gateway stops.
const AFTER_STOP: Duration = Duration::from_secs(1);
/// Nothing is pending.
const LONG: Duration = Duration::from_secs(3_600);

/// Until the gateway stops. What is pending then is lost; a probe's lease runs out.
pub(super) async fn run(health: Arc<Health>) {
    loop {
        let next = send_due(&health);
        tokio::select! {
            () = health.stop.cancelled() => {
                send_due(&health);
                return;
            }
            () = health.wake.notified() => {}
            () = sleep_until(next) => {}
        }
    }
}

/// Sends what is due; when to look again.
fn send_due(health: &Arc<Health>) -> Instant {
    let now = Instant::now();
    let mut next = now + LONG;
    let mut reports = Vec::new();
    for (backend, model, local) in health.locals.lock().iter_mut() {
        match local.due(now) {
            Some(due) if due <= now => {
                let mut report = local.take(now);
                report.backend = backend.to_owned();
                report.model = model.to_owned();
                report.reporter.clone_from(&health.reporter);
                reports.push(report);
            }
            Some(due) => next = next.min(due),
            None => {}
        }
    }
    for report in reports {
        health.tasks.spawn(send(Arc::clone(health), report));
    }
    next
}

/// A gateway that stops does not wait for a cluster that is away.
async fn stopped(health: &Health) {
    health.stop.cancelled().await;
    sleep(AFTER_STOP).await;
}

async fn send(health: Arc<Health>, report: ProviderReport) {
    let sending = health.keeper.execute(Command::ReportProvider(report.clone()), REPORT_WITHIN);
    let answer = tokio::select! {
        answer = sending => answer,
        () = stopped(&health) => return,
    };
    let now = health.keeper.now();
    let mut locals = health.locals.lock();
    // Never dropped while a report is on its way.
    let Some(local) = locals.get_mut(&report.backend, &report.model) else { return };
    match answer {
        Ok(Outcome::ProviderReported { revision }) => local.delivered(&report, revision),
        Ok(other) => {
            tracing::warn!(backend = report.backend, model = report.model, ?other, "report refused");
            local.refused(&report);
        }
        Err(error) => {
            tracing::debug!(backend = report.backend, model = report.model, %error, "report not delivered");
            local.lost(report, now);
        }
    }
    drop(locals);
    health.wake.notify_one();
}
