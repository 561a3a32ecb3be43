//! Alerts: an account has reached a share of its limit. Each share at most once for each account and window.

use serde::{Deserialize, Serialize};

use crate::account_key::AccountKey;
use crate::booking::Effect;
use crate::cow_map::CowMap;
use crate::{ALERTS_MAX, Amount, TimestampMs, Unit, WindowSpan};

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Alert {
    /// Ascending from 1.
    pub seq: u64,
    pub at: TimestampMs,
    pub tenant: String,
    pub budget: String,
    pub subject: String,
    pub unit: Unit,
    /// In percent of `limit`.
    pub share: u8,
    /// As the charge left it.
    pub spent: Amount,
    pub limit: Amount,
    /// The window that was charged.
    pub window: WindowSpan,
}

/// Those that nobody has acknowledged yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Alerts {
    pub given: u64,
    pub kept: CowMap<u64, Alert>,
    pub dropped: u64,
}

impl Alerts {
    pub fn give(&mut self, now: TimestampMs, tenant: &str, key: &AccountKey, effect: &Effect) {
        let Some(standing) = &effect.standing else { return };
        for share in &effect.shares {
            self.given += 1;
            let alert = Alert {
                seq: self.given,
                at: now,
                tenant: tenant.to_owned(),
                budget: key.budget().to_owned(),
                subject: key.subject().to_owned(),
                unit: standing.unit,
                share: *share,
                spent: standing.spent,
                limit: standing.limit,
                window: standing.span,
            };
            self.kept.insert(alert.seq, alert);
            if self.kept.len() > ALERTS_MAX && self.drop_first() {
                self.dropped += 1;
            }
        }
    }

    pub fn ack(&mut self, up_to: u64) {
        while self.first().is_some_and(|first| first <= up_to) {
            self.drop_first();
        }
    }

    fn first(&self) -> Option<u64> {
        self.kept.first_key_value().map(|(seq, _)| *seq)
    }

    fn drop_first(&mut self) -> bool {
        self.first().is_some_and(|first| self.kept.remove(&first).is_some())
    }
}
