//! Lines as the charges of one operation, and where they stand by what the ledger says of it.

use quorate_ledger::{Amount, Balance, Charge, Enforcement, TimestampMs};
use quorate_rpc::lease::Want;

use super::question::Line;

/// The least that there is of anything.
pub(super) const LEAST: Amount = match Amount::from_micros(1) {
    Ok(amount) => amount,
    Err(_) => Amount::ZERO,
};

/// Where one account stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    pub over: bool,
    /// In force for this account: top-ups and overrides included.
    pub limit: Amount,
    /// After this call.
    pub left: Amount,
    /// The part of what was counted that there was room for, where it is over.
    pub within: Amount,
    pub resets_at: Option<TimestampMs>,
}

impl Standing {
    /// In millionths of the limit: what is left of tokens and of dollars can be compared.
    pub(super) fn share_left(&self) -> u64 {
        let share = u128::from(self.left.micros()) * 1_000_000 / u128::from(self.limit.micros().max(1));
        u64::try_from(share).unwrap_or(u64::MAX)
    }

    /// Of a line that cannot have an account: nothing was counted.
    pub(super) fn without_account(line: &Line) -> Self {
        Self {
            over: line.binds(),
            limit: line.limit.unwrap_or(line.budget.rule.limit),
            left: Amount::ZERO,
            within: Amount::ZERO,
            resets_at: None,
        }
    }
}

/// What an operation does with its lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// Charges all of each, whether there is room or not.
    Count,
    /// Charges all of all lines, or nothing.
    Whole,
    /// Holds all of all lines, or nothing; at least a little, so that there is something to settle.
    Hold,
    /// Holds what there is room for, and at most what was asked.
    HoldSome,
    /// Charges nothing.
    Look,
}

/// Lines of one operation, by their numbers, and the charges that they make: lines of one account share a charge.
pub(super) struct Group<'a> {
    lines: &'a [(usize, &'a Line)],
    how: How,
    pub charges: Vec<Charge>,
    /// The charge of each line.
    of_line: Vec<usize>,
}

impl<'a> Group<'a> {
    pub(super) fn new(lines: &'a [(usize, &'a Line)], how: How) -> Self {
        let mut charges: Vec<Charge> = Vec::with_capacity(lines.len());
        let mut of_line = Vec::with_capacity(lines.len());
        for (_, line) in lines {
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
            of_line.push(at);
            if how == How::Look {
                continue;
            }
            let charge = &mut charges[at];
            charge.amount = charge.amount.checked_add(line.amount).unwrap_or(Amount::MAX);
            let is_whole = matches!(how, How::Whole | How::Hold);
            // A budget that never denies counts there what it would have denied.
            if is_whole || (line.budget.rule.enforcement == Enforcement::Shadow && line.limit.is_none()) {
                charge.at_least = charge.amount;
            }
        }
        if matches!(how, How::Hold | How::HoldSome) {
            for charge in charges.iter_mut().filter(|charge| charge.amount.is_zero()) {
                charge.amount = LEAST;
                charge.at_least = if how == How::Hold { LEAST } else { Amount::ZERO };
            }
        }
        Self { lines, how, charges, of_line }
    }

    /// The charges, as slices are asked for them.
    pub(super) fn wants(&self) -> Vec<Want<'_>> {
        let first_line = |at: usize| self.of_line.iter().position(|of| *of == at);
        let want = |(at, charge): (usize, &Charge)| {
            let (_, line) = self.lines.get(first_line(at)?)?;
            Some(Want { rule: &line.budget.rule, subject: &line.subject, amount: charge.amount })
        };
        self.charges.iter().enumerate().filter_map(want).collect()
    }

    /// Where the lines stand, in their order, from what a Reserve saw.
    pub(super) fn standings(&self, balances: &[Balance], standings: &mut [Option<Standing>]) {
        let mut used = vec![Amount::ZERO; self.charges.len()];
        for ((number, line), at) in self.lines.iter().zip(&self.of_line) {
            let Some(balance) = balances.get(*at) else { continue };
            let limit = line.limit.unwrap_or(balance.limit);
            let others = balance.reserved.saturating_sub(balance.amount);
            let all = limit.saturating_sub(balance.spent).saturating_sub(others);
            let room = all.saturating_sub(used[*at]);
            let over = if line.amount.is_zero() { room.is_zero() } else { line.amount > room };
            used[*at] = used[*at].checked_add(line.amount).unwrap_or(Amount::MAX);
            let looks = self.how == How::Look;
            standings[*number] = Some(Standing {
                over,
                limit,
                left: if looks { all } else { room.saturating_sub(line.amount) },
                within: if looks { Amount::ZERO } else { room.min(line.amount) },
                resets_at: balance.resets_at,
            });
        }
    }

    /// The same where slices hold all of it, whatever is known of the accounts.
    pub(super) fn held(&self, balances: &[Balance], standings: &mut [Option<Standing>]) {
        self.standings(balances, standings);
        for (number, _) in self.lines {
            if let Some(standing) = &mut standings[*number] {
                standing.over = false;
            }
        }
    }

    pub(super) fn denied(&self, account: &Balance, standings: &mut [Option<Standing>]) {
        for (number, line) in self.lines {
            if line.budget.rule.name == account.budget && line.subject == account.subject {
                let left = account.limit.saturating_sub(account.spent).saturating_sub(account.reserved);
                standings[*number] = Some(Standing {
                    over: true,
                    limit: account.limit,
                    left,
                    within: Amount::ZERO,
                    resets_at: account.resets_at,
                });
            }
        }
    }
}
