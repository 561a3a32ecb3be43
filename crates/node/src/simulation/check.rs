//! What must hold of what clients were told, in their own eyes, once a run is over.

use std::collections::BTreeMap;

use quorate_ledger::{Adjustment, Amount, Command, Denial, Outcome, Refusal, TimestampMs};
use quorate_rpc::convert;

use super::history::{Operation, Told};
use super::plan::BUDGETS;
use super::world::World;

/// A client asks some twenty times in the time it has; a node may ask again for one that waits, when there is room.
const TIMES_MAX: usize = 60;

/// Adds what is wrong to the world's failures.
pub(super) fn history(world: &mut World, operations: &[Operation]) {
    let mut wrong = Vec::new();
    for operation in operations {
        match &operation.told {
            Told::Nothing => {}
            Told::Operation { outcome, result } if result.log_index == 0 => match outcome {
                Outcome::Denied(denial) if was_true(world, &since_first(operations, operation), denial) => {}
                Outcome::Refused(Refusal::Invalid(_)) => {}
                _ => wrong.push(format!("told from nowhere, and never true: {operation:?}")),
            },
            Told::Operation { result, .. } => {
                let told = |outcome: &Outcome| {
                    convert::result(outcome.clone(), result.log_term, result.log_index) == *result
                };
                wrong.extend(not_in_log(world, operation, result.log_term, result.log_index, told));
            }
            Told::Change { outcome, term, index } => {
                wrong.extend(not_in_log(world, operation, *term, *index, |there| there == outcome));
            }
        }
    }
    wrong.extend(overspent(world, operations));
    wrong.extend(asked_in_a_loop(world));
    wrong.into_iter().for_each(|what| world.fail(what));
}

/// Whether it may wait is no part of an operation.
fn asked(command: &Command) -> Command {
    let mut asked = command.clone();
    if let Command::Reserve { wait, .. } = &mut asked {
        *wait = false;
    }
    asked
}

/// What was told stands in the log where it was said to, after everything that was known before it was asked.
fn not_in_log(
    world: &World,
    operation: &Operation,
    term: u64,
    index: u64,
    told: impl Fn(&Outcome) -> bool,
) -> Option<String> {
    let place = usize::try_from(index).unwrap_or(usize::MAX);
    let entry = place.checked_sub(1).and_then(|place| world.log.get(place));
    let there = entry.is_some_and(|entry| {
        let pairs = || entry.commands.iter().zip(&entry.outcomes);
        entry.term == term
            && pairs().any(|(command, outcome)| asked(command) == asked(&operation.command) && told(outcome))
    });
    let in_time = place > operation.invoked_index && place <= operation.told_index;
    (!there || !in_time)
        .then(|| format!("told, but not so in the log at {index} (term {term}): {operation:?}"))
}

/// Asked twice at once, both get the answer of the first: it may have been true before the second was asked.
fn since_first(operations: &[Operation], operation: &Operation) -> Operation {
    let under_way = operations.iter().filter(|other| {
        let ends = if other.told == Told::Nothing { u64::MAX } else { other.told_ms };
        (other.invoked_ms..=ends).contains(&operation.invoked_ms)
            && asked(&other.command) == asked(&operation.command)
    });
    let first = under_way.min_by_key(|other| other.invoked_ms).unwrap_or(operation);
    Operation { invoked_ms: first.invoked_ms, invoked_index: first.invoked_index, ..operation.clone() }
}

/// A denial that is not in the log: at some point between question and answer, by what the node saw of its clock, the
/// ledger would have said so; or somebody else waited for the account already.
fn was_true(world: &World, operation: &Operation, denial: &Denial) -> bool {
    let Command::Reserve { tenant, charges, .. } = &operation.command else { return false };
    let reads = &world.nodes[operation.by].clock_reads;
    let times: Vec<TimestampMs> = reads
        .iter()
        .filter(|(at, _)| (operation.invoked_ms..=operation.told_ms).contains(at))
        .map(|(_, seen)| *seen)
        .collect();
    // One that was found short in the log, and did not wait any longer.
    let decided = world.log[operation.invoked_index..operation.told_index].iter().any(|entry| {
        let mut pairs = entry.commands.iter().zip(&entry.outcomes);
        pairs.any(|(command, outcome)| {
            asked(command) == asked(&operation.command)
                && matches!(outcome, Outcome::Denied(decided) if same(decided, denial))
        })
    });
    if decided {
        return true;
    }
    let states = &world.states[operation.invoked_index..=operation.told_index];
    let own = charges
        .iter()
        .find(|charge| charge.budget == denial.account.budget && charge.subject == denial.account.subject);
    let Some(own) = own.filter(|own| own.at_least == denial.asked) else { return false };
    let behind_another = denial.available.is_zero() && denial.held_by_reservations;
    states.iter().rev().any(|ledger| {
        times.iter().rev().any(|time| {
            if let Some(true_denial) = ledger.would_deny(*time, &operation.command) {
                return same(&true_denial, denial);
            }
            let view = ledger.account(*time, tenant, &own.budget, &own.subject);
            let (limit, spent, reserved) = view.map_or((Amount::ZERO, Amount::ZERO, Amount::ZERO), |view| {
                (view.limit, view.spent, view.reserved)
            });
            let account = &denial.account;
            behind_another && (account.limit, account.spent, account.reserved) == (limit, spent, reserved)
        })
    })
}

/// The wire says no wait of less than a millisecond.
fn same(left: &Denial, right: &Denial) -> bool {
    let mut left = left.clone();
    left.retry_after_ms = left.retry_after_ms.map(|ms| ms.max(1));
    left == *right
}

/// However often clients ask again, nobody fills the log with one reservation.
fn asked_in_a_loop(world: &World) -> Vec<String> {
    let mut asked: BTreeMap<_, usize> = BTreeMap::new();
    for command in world.log.iter().flat_map(|entry| &entry.commands) {
        if let Command::Reserve { tenant, id, .. } = command {
            *asked.entry((tenant.clone(), *id)).or_default() += 1;
        }
    }
    let often = asked.into_iter().filter(|(_, times)| *times > TIMES_MAX);
    often.map(|(id, times)| format!("{id:?} stands in the log {times} times")).collect()
}

/// For each account that reserves and whose windows are calendar ones: what clients know to be settled there, without
/// the overdraft that they were told, is at most the highest limit that ever was.
fn overspent(world: &World, operations: &[Operation]) -> Vec<String> {
    let mut granted = BTreeMap::new();
    for operation in operations {
        if let (Command::Reserve { tenant, id, .. }, Some(Outcome::Granted(grant))) =
            (&operation.command, operation.outcome())
        {
            granted.insert((tenant.clone(), *id), grant.clone());
        }
    }
    let mut spent: BTreeMap<_, u64> = BTreeMap::new();
    let mut counted = std::collections::BTreeSet::new();
    for operation in operations {
        let (Command::Settle { tenant, id, actual, .. }, Some(Outcome::Settled(settlement))) =
            (&operation.command, operation.outcome())
        else {
            continue;
        };
        let Some(grant) = granted.get(&(tenant.clone(), *id)) else { continue };
        if !counted.insert((tenant.clone(), *id)) {
            continue;
        }
        for ((balance, actual), over) in grant.balances.iter().zip(actual).zip(&settlement.overdraft) {
            if balance.budget == "user" || balance.budget == "org" {
                let key =
                    (tenant.clone(), balance.budget.clone(), balance.subject.clone(), balance.resets_at);
                *spent.entry(key).or_default() += actual.saturating_sub(*over).micros();
            }
        }
    }
    let above = spent.into_iter().filter_map(|((tenant, budget, subject, window), spent)| {
        let limit = highest_limit(world, &tenant, &budget, &subject);
        (spent > limit).then(|| {
            format!("{tenant} {budget} {subject} {window:?}: {spent} of {limit} micros, as clients know")
        })
    });
    above.collect()
}

fn highest_limit(world: &World, tenant: &str, budget: &str, subject: &str) -> u64 {
    let mut limit = BUDGETS.iter().filter(|known| known.0 == budget).map(|known| known.2 * 1_000_000).max();
    let mut topped_up = 0;
    for entry in &world.log {
        for command in &entry.commands {
            match command {
                Command::PutPolicy { rules, .. } => {
                    let here =
                        rules.iter().filter(|rule| rule.name == budget).map(|rule| rule.limit.micros());
                    limit = limit.into_iter().chain(here).max();
                }
                Command::AdjustAccount {
                    tenant: of,
                    budget: which,
                    subject: whose,
                    adjustment: Adjustment::TopUp(amount),
                    ..
                } if of == tenant && which == budget && whose == subject => topped_up += amount.micros(),
                _ => {}
            }
        }
    }
    limit.unwrap_or(0) + topped_up
}
