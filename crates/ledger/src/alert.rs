//! Alerts: an account has reached a share of its limit. Each share at most once for each account and window.

use serde::{Deserialize, Serialize};

use crate::account_key::AccountKey;
use crate::booking::Effect;
use crate::cow_map::CowMap;
use crate::{ALERTS_MAX, ALERTS_SHOWN_MAX, Amount, TimestampMs, Unit, WindowSpan};

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

/// `kept`: nobody has acknowledged them yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Alerts {
    pub given: u64,
    pub kept: CowMap<u64, Alert>,
    pub dropped: u64,
    /// Acknowledged ones, for those who look; they go by themselves.
    pub delivered: CowMap<u64, Alert>,
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
        while let Some(first) = self.first().filter(|first| *first <= up_to) {
            let Some(alert) = self.kept.remove(&first) else { return };
            self.delivered.insert(first, alert);
            if self.delivered.len() > ALERTS_SHOWN_MAX {
                let oldest = self.delivered.first_key_value().map(|(seq, _)| *seq);
                oldest.map(|seq| self.delivered.remove(&seq));
            }
        }
    }

    fn first(&self) -> Option<u64> {
        self.kept.first_key_value().map(|(seq, _)| *seq)
    }

    fn drop_first(&mut self) -> bool {
        self.first().is_some_and(|first| self.kept.remove(&first).is_some())
    }
}
