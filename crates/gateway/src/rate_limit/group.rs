//! Lines as the charges of one operation, and where they stand by what the ledger says of it.

use quorate_ledger::{Amount, Balance, Charge, Enforcement, TimestampMs};

use super::question::Line;

/// Where one account stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    pub over: bool,
    /// In force for this account: top-ups and overrides included.
    pub limit: Amount,
    /// After this call.
    pub left: Amount,
    pub resets_at: Option<TimestampMs>,
}

impl Standing {
    /// In millionths of the limit: what is left of tokens and of dollars can be compared.
    pub(super) fn share_left(&self) -> u64 {
        let share = u128::from(self.left.micros()) * 1_000_000 / u128::from(self.limit.micros().max(1));
        u64::try_from(share).unwrap_or(u64::MAX)
    }
}

/// Lines of one operation, by their numbers, and the charges that they make: lines of one account share a charge.
pub(super) struct Group<'a> {
    lines: Vec<(usize, &'a Line)>,
    pub charges: Vec<Charge>,
    /// The charge of each line.
    of_line: Vec<usize>,
}

impl<'a> Group<'a> {
    pub(super) fn new(lines: Vec<(usize, &'a Line)>, whole: bool) -> Self {
        let mut charges: Vec<Charge> = Vec::with_capacity(lines.len());
        let mut of_line = Vec::with_capacity(lines.len());
        for (_, line) in &lines {
            let name = &line.budget.rule.name;
            let known =
                charges.iter().position(|charge| charge.budget == *name && charge.subject == line.subject);
            let at = known.unwrap_or_else(|| {
                charges.push(Charge {
                    budget: name.clone(),
                    subject: line.subject.clone(),
                    amount: Amount::ZERO,
                    at_least: Amount::ZERO,
                });
                charges.len() - 1
            });
            let charge = &mut charges[at];
            charge.amount = charge.amount.checked_add(line.amount).unwrap_or(Amount::MAX);
            // A budget that never denies counts there what it would have denied.
            if whole || (line.budget.rule.enforcement == Enforcement::Shadow && line.limit.is_none()) {
                charge.at_least = charge.amount;
            }
            of_line.push(at);
        }
        Self { lines, charges, of_line }
    }

    /// Where the lines stand, in their order, from what a Reserve saw.
    pub(super) fn standings(&self, balances: &[Balance], standings: &mut [Option<Standing>]) {
        let mut used = vec![Amount::ZERO; self.charges.len()];
        for ((number, line), at) in self.lines.iter().zip(&self.of_line) {
            let Some(balance) = balances.get(*at) else { continue };
            let limit = line.limit.unwrap_or(balance.limit);
            let others = balance.reserved.saturating_sub(balance.amount);
            let room = limit.saturating_sub(balance.spent).saturating_sub(others).saturating_sub(used[*at]);
            let over = if line.amount.is_zero() { room.is_zero() } else { line.amount > room };
            used[*at] = used[*at].checked_add(line.amount).unwrap_or(Amount::MAX);
            standings[*number] = Some(Standing {
                over,
                limit,
                left: room.saturating_sub(line.amount),
                resets_at: balance.resets_at,
            });
        }
    }

    pub(super) fn denied(&self, account: &Balance, standings: &mut [Option<Standing>]) {
        for (number, line) in &self.lines {
            if line.budget.rule.name == account.budget && line.subject == account.subject {
                let left = account.limit.saturating_sub(account.spent).saturating_sub(account.reserved);
                standings[*number] =
                    Some(Standing { over: true, limit: account.limit, left, resets_at: account.resets_at });
            }
        }
    }
}
