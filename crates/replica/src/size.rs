//! How large a batch becomes on disk, without encoding it.

use quorate_ledger::Command;

use crate::frame::ENTRY_MAX_BYTES;

/// Commands of one batch together, by [`size_bound`]. Leaves room for the log id and the batch's own head.
pub const BATCH_MAX_BYTES: usize = ENTRY_MAX_BYTES - 1024;

/// Numbers in bincode take at most 9 bytes, ids 17, the lengths of texts 9.
const FIXED: usize = 64;
const PER_CHARGE: usize = 40;
const PER_AMOUNT: usize = 9;
const PER_ID: usize = 17;
/// A moment and an offset.
const PER_ZONE: usize = 14;
/// Five counts, a signal and a verdict with a number each, the lengths of texts.
const PER_REPORT: usize = 96;
/// The hash, three moments and the lengths of texts.
const PER_KEY: usize = 128;

/// At least as many bytes as the command takes in the log.
pub fn size_bound(command: &Command) -> usize {
    FIXED
        + match command {
            Command::PutPolicy { rules, document, by, comment, .. } => {
                document.len() + rules.iter().map(rule).sum::<usize>() + by.len() + comment.len()
            }
            Command::StagePolicy { rules, document, .. } => {
                document.len() + rules.iter().map(rule).sum::<usize>()
            }
            Command::Reserve { tenant, charges, .. } => {
                let charge =
                    |charge: &quorate_ledger::Charge| PER_CHARGE + charge.budget.len() + charge.subject.len();
                tenant.len() + charges.iter().map(charge).sum::<usize>()
            }
            Command::Settle { tenant, actual, .. } => tenant.len() + PER_AMOUNT * actual.len(),
            Command::Extend { tenant, .. } | Command::Release { tenant, .. } => tenant.len(),
            Command::Expire { tenant, ids } => tenant.len() + PER_ID * ids.len(),
            Command::AdjustAccount { tenant, budget, subject, by, .. } => {
                tenant.len() + budget.len() + subject.len() + by.len()
            }
            Command::PutKey { key, by } => {
                let texts = [&key.id, &key.tenant, &key.user, &key.team, &key.by, &key.comment, by];
                let models = key.models.iter().map(|model| PER_AMOUNT + model.len());
                PER_KEY + texts.map(|text| text.len()).iter().sum::<usize>() + models.sum::<usize>()
            }
            Command::RevokeKey { id, by } => id.len() + by.len(),
            Command::AckAlerts { .. } => 0,
            Command::ReportProvider(report) => {
                let texts = [&report.backend, &report.model, &report.reason, &report.reporter];
                PER_REPORT + texts.map(String::len).iter().sum::<usize>()
            }
            Command::ClaimProbe { backend, model, holder, .. } => backend.len() + model.len() + holder.len(),
            Command::DrainProvider { backend, by, .. } => backend.len() + by.len(),
            Command::RecordChange { subject, detail, by, .. } => subject.len() + detail.len() + by.len(),
        }
}

fn rule(rule: &quorate_ledger::BudgetRule) -> usize {
    let lists = PER_ZONE * rule.zone.len() + PER_AMOUNT * rule.alerts.len();
    2 * FIXED + rule.name.len() + rule.tenant.as_ref().map_or(0, String::len) + lists
}
