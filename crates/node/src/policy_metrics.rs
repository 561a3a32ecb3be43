//! What a node measures of policies, keys and alerts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use quorate_ledger::{Outcome, Refusal};
use quorate_replica::Replica;

use crate::metrics::signed;

#[derive(Debug, Default)]
pub(crate) struct PolicyMetrics {
    pub unreadable: Gauge,
    pub alerts_raised: Counter,
    pub alerts_delivered: Counter,
    pub alerts_failed: Counter,
    pub alerts_given_up: Counter,
    shadow_denials: Counter,
    accounts_refused: Counter,
    version: Gauge,
    keys: Gauge,
    alerts_waiting: Gauge,
    alerts_dropped: Gauge,
}

impl PolicyMetrics {
    pub fn register(&self, registry: &mut Registry) {
        let counters = [
            ("alerts_raised", "Alerts that this node took up while it led", &self.alerts_raised),
            ("alerts_delivered", "Webhooks that were accepted", &self.alerts_delivered),
            ("alerts_failed", "Tries of webhooks that failed", &self.alerts_failed),
            ("alerts_given_up", "Webhooks given up after a day", &self.alerts_given_up),
            (
                "shadow_denials",
                "Requests that a budget in shadow let through and would have denied",
                &self.shadow_denials,
            ),
            (
                "accounts_refused",
                "Reservations refused because a budget or a tenant has too many accounts",
                &self.accounts_refused,
            ),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        let gauges = [
            ("policy_version", "The policy version that this node has applied", &self.version),
            ("policy_unreadable", "1 while this release cannot read the policy in force", &self.unreadable),
            ("api_keys", "API keys, revoked and expired ones that are kept included", &self.keys),
            ("alerts_waiting", "Alerts in the ledger whose delivery is not done", &self.alerts_waiting),
            (
                "alerts_dropped",
                "Alerts that the ledger dropped because nobody took them",
                &self.alerts_dropped,
            ),
        ];
        for (name, help, gauge) in gauges {
            registry.register(name, help, gauge.clone());
        }
    }

    pub fn count(&self, outcome: &Outcome) {
        match outcome {
            // Nothing but a budget in shadow grants beyond its limit.
            Outcome::Granted(grant) => {
                let beyond = grant.balances.iter().any(|balance| {
                    balance.spent.checked_add(balance.reserved).is_none_or(|held| held > balance.limit)
                });
                if beyond {
                    self.shadow_denials.inc();
                }
            }
            Outcome::Refused(Refusal::TooManyAccounts { .. }) => {
                self.accounts_refused.inc();
            }
            _ => {}
        }
    }

    /// The figures of now.
    pub fn refresh(&self, replica: &Replica) {
        // On a copy, which is cheap: counting takes its time.
        let ledger = replica.read(|ledger, _| ledger.clone());
        self.version.set(signed(ledger.policy_version()));
        self.keys.set(i64::try_from(ledger.keys().count()).unwrap_or(i64::MAX));
        self.alerts_waiting.set(i64::try_from(ledger.alerts_waiting()).unwrap_or(i64::MAX));
        self.alerts_dropped.set(signed(ledger.alerts_dropped()));
    }
}
