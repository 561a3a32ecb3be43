//! What the fleet believes of each backend: the last report counts.

use crate::{Ledger, Outcome, ProviderReport, ProviderState, ProviderView, Refusal, TimestampMs, check};

/// A longer reason is cut.
const REASON_MAX_BYTES: usize = 512;
/// Backends the ledger keeps an opinion of. They come from config files, never from clients.
const PROVIDERS_MAX: usize = 1_024;
/// No provider is left alone for longer on its own word.
const RETRY_AFTER_MAX_MS: u64 = 86_400_000;

impl Ledger {
    pub(crate) fn report_provider(&mut self, now: TimestampMs, report: &ProviderReport) -> Outcome {
        if let Err(message) = self.acceptable(report) {
            return Outcome::Refused(Refusal::Invalid(message));
        }
        let known = self.providers.get(&report.backend);
        let same_state = known.filter(|known| known.state == report.state);
        let wait_ms = report.retry_after_ms.min(RETRY_AFTER_MAX_MS);
        let asked_for_rest = report.state != ProviderState::Healthy && wait_ms > 0;
        let until = asked_for_rest.then(|| now.saturating_add(wait_ms));
        let view = ProviderView {
            backend: report.backend.clone(),
            state: report.state,
            since: same_state.map_or(now, |known| known.since),
            // While the state lasts, a later report never shortens the rest that an earlier one asked for.
            until: until.max(same_state.and_then(|known| known.until)),
            reason: cut(&report.reason),
            reporter: report.reporter.clone(),
        };
        let changed = known != Some(&view);
        if changed {
            self.providers.insert(report.backend.clone(), view);
        }
        Outcome::ProviderReported { changed }
    }

    fn acceptable(&self, report: &ProviderReport) -> Result<(), String> {
        check::name("backend", &report.backend)?;
        if !report.reporter.is_empty() {
            check::name("reporter", &report.reporter)?;
        }
        if self.providers.len() >= PROVIDERS_MAX && !self.providers.contains_key(&report.backend) {
            return Err(format!("the ledger keeps at most {PROVIDERS_MAX} backends"));
        }
        Ok(())
    }
}

fn cut(reason: &str) -> String {
    let end =
        (0..=reason.len().min(REASON_MAX_BYTES)).rev().find(|end| reason.is_char_boundary(*end)).unwrap_or(0);
    reason[..end].to_owned()
}
