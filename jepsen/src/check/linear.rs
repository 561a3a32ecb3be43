//! Linearizable per tenant, and alike when replayed in the order of the log: see `search.rs` for how that is decided.
//! A search that gives up is neither a pass nor a violation.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::accounts::{Asked, Life};
use super::search::{By, Found, Step, Told, search};
use super::tenant::{Ask, Tenant};
use super::words::{self, Answer, Snapshot};
use super::{Verdict, Violation, plain};
use crate::history::Outcome;

/// Answers compared with states, for one tenant in one pass: a minute at most.
pub const TRIES: u64 = 60_000;
/// The search goes as deep as a tenant has operations.
const STACK_BYTES: usize = 256 << 20;
const THREADS: usize = 2;

pub fn check(lives: &[Life], tries: u64) -> Verdict {
    let (next, answers) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let verdict = Mutex::new(Verdict::default());
    let work = || {
        while let Some(life) = lives.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (one, answered) = check_life(life, tries);
            answers.fetch_add(answered, Ordering::Relaxed);
            verdict.lock().merge(one);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            let spawned = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work);
            if let Err(error) = spawned {
                verdict.lock().not_shown.push(format!("no thread to search in: {error}"));
            }
        }
    });
    let mut verdict = verdict.into_inner();
    verdict.checked = vec![
        ("linearizable: tenants".to_owned(), lives.len() as u64),
        ("replayed in log order: tenants".to_owned(), lives.len() as u64),
        ("linearizable: answers".to_owned(), answers.into_inner() as u64),
    ];
    verdict
}

/// And how many answers had to be explained.
fn check_life(life: &Life, tries: u64) -> (Verdict, usize) {
    let mut verdict = Verdict::default();
    let start = Tenant::new(&life.limits);
    let mut steps = Vec::with_capacity(life.operations.len());
    for asked in &life.operations {
        match step(asked) {
            Some(step) => steps.extend(step),
            None => verdict.not_shown.push(format!(
                "tenant {}, event {}: an answer of an unknown kind",
                life.tenant, asked.operation.index
            )),
        }
    }
    date(&mut steps);
    once(&mut steps);
    let answers = steps.iter().filter(|step| step.told != Told::Nothing).count();
    // An order that follows the log and real time is one that follows real time: no more is to be shown.
    let by_log = search(&start, &steps, By::Log, tries);
    if matches!(by_log, Found::Order) {
        return (verdict, answers);
    }
    report(&mut verdict, life, "replayed in log order", &by_log, &steps);
    // Stale reads are bound to the log only.
    steps.retain(|step| step.ask != Ask::Read || step.invoked_us > 0);
    let by_time = search(&start, &steps, By::RealTime, tries);
    report(&mut verdict, life, "linearizable", &by_time, &steps);
    (verdict, answers)
}

/// What was told of the ledger's time before an operation began is true of it.
fn date(steps: &mut [Step]) {
    let mut told: Vec<(u64, u64)> =
        steps.iter().filter_map(|step| Some((step.completed_us, step.time_ms()?))).collect();
    told.sort_unstable();
    let mut latest = 0;
    for (_, time) in &mut told {
        latest = latest.max(*time);
        *time = latest;
    }
    for step in steps {
        let before = told.partition_point(|(completed_us, _)| *completed_us < step.invoked_us);
        step.since_ms = before.checked_sub(1).map_or(0, |last| told[last].1);
    }
}

/// Of the same operation sent again and again without an answer, the first stands for all: it may take effect at any time
/// after it began, and where it has, the others change nothing. Not so an extension: each moves the deadline to another time.
fn once(steps: &mut Vec<Step>) {
    let mut known = HashSet::new();
    steps.retain(|step| {
        let changes_again = matches!(step.ask, Ask::Extend { .. });
        step.told != Told::Nothing || changes_again || known.insert((step.id.clone(), step.ask.clone()))
    });
}

/// `None`: not understood. No step: it did not happen, or changed nothing and saw nothing.
fn step(asked: &Asked) -> Option<Option<Step>> {
    let Asked { operation, call } = asked;
    let Some(ask) = Ask::of(&operation.f, call) else { return Some(None) };
    let mut step = Step {
        event: operation.index,
        id: call.id.clone(),
        ask,
        told: Told::Nothing,
        invoked_us: operation.invoked_us.max(1),
        completed_us: operation.completed_us,
        index: None,
        since_ms: 0,
    };
    match (&operation.outcome, &step.ask) {
        (Outcome::Fail, _) | (Outcome::Unknown, Ask::Read) => return Some(None),
        (Outcome::Unknown, _) => {}
        (Outcome::Ok(_), Ask::Read) => {
            let seen: Snapshot = words::answer(operation)?;
            step.index = Some(seen.index);
            step.told = Told::Seen(seen);
            if operation.f != words::READ {
                // It may be as old as it likes; it saw nothing of what began after its end.
                step.invoked_us = 0;
            }
        }
        (Outcome::Ok(_), _) => {
            let answer: Answer = words::answer(operation)?;
            step.index = (answer.index > 0).then_some(answer.index);
            step.told = Told::Answer(answer);
        }
    }
    Some(Some(step))
}

fn report(verdict: &mut Verdict, life: &Life, property: &str, found: &Found, steps: &[Step]) {
    let (state, next, is_sure) = match found {
        Found::Order => return,
        Found::Contradiction { state, next } => (state, next, true),
        Found::GaveUp { state, next } => (state, next, false),
    };
    let stuck: Vec<&Step> = next.iter().filter_map(|step| steps.get(*step)).collect();
    let words = stuck.first().map_or_else(String::new, |step| plain::parted(step, state));
    let tenant = &life.tenant;
    if is_sure {
        verdict.violations.push(Violation {
            property: property.to_owned(),
            detail: format!("tenant {tenant}: no order explains every answer; {words}"),
            events: stuck.iter().map(|step| step.event).collect(),
        });
    } else {
        verdict.undecided.push(format!(
            "{property}: tenant {tenant}, {} operations: no order found before the search ran out of tries; {words}",
            steps.len()
        ));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, to_value};

    use super::super::words::{Account, Call, Charge, Decision, Limit, Line};
    use super::*;
    use crate::history::Operation;

    const USER: &str = "user/a";

    /// One after the other, each an entry of its own.
    fn life(asked: Vec<(&str, Call, Option<Value>)>) -> Life {
        let operation = |(place, (f, call, answer)): (usize, (&str, Call, Option<Value>))| {
            let at = 10 * place as u64 + 1;
            let operation = Operation {
                index: place as u64,
                process: place as u64,
                f: f.to_owned(),
                call: Value::Null,
                invoked_us: at,
                completed_us: if answer.is_some() { at + 5 } else { u64::MAX },
                outcome: answer.map_or(Outcome::Unknown, Outcome::Ok),
            };
            Asked { operation, call }
        };
        Life {
            tenant: "t".to_owned(),
            limits: vec![Limit { account: USER.to_owned(), limit: 100 }],
            operations: asked.into_iter().enumerate().map(operation).collect(),
        }
    }

    #[test]
    fn an_extension_that_is_sent_again_may_take_effect_again() {
        let id = "01900000-0000-7000-8000-000000000001";
        let call = |ttl_ms| Call { id: id.to_owned(), ttl_ms, ..Call::default() };
        let answer = |index, decision| to_value(Answer { decision, term: 1, index }).ok();
        let line = Line { account: USER.to_owned(), limit: 100, spent: 0, reserved: 10, amount: 10 };
        let granted = Decision::Granted { deadline_ms: 11_000, balances: vec![line] };
        let charge = Charge { account: USER.to_owned(), amount: 10, at_least: 10 };
        let account = Account {
            account: USER.to_owned(),
            limit: 100,
            reserved: 10,
            available: 90,
            ..Account::default()
        };
        let seen =
            Snapshot { accounts: vec![account], time_ms: 11_600, term: 1, index: 9, node: 1, connection: 1 };
        let until = |deadline_ms| Decision::Extended { deadline_ms };
        let history = |last_ms| {
            life(vec![
                (
                    words::RESERVE,
                    Call { charges: vec![charge.clone()], ..call(1_000) },
                    answer(5, granted.clone()),
                ),
                // At 10,000: until 12,000, as the next one shows.
                (words::EXTEND, call(2_000), None),
                (words::EXTEND, call(100), answer(6, until(12_000))),
                // At 11,500.
                (words::EXTEND, call(2_000), None),
                (words::EXTEND, call(100), answer(8, until(last_ms))),
                (words::READ, Call::read("t", 1), to_value(&seen).ok()),
            ])
        };
        let verdict = check(&[history(13_500)], TRIES);
        assert!(verdict.passed(), "{verdict:?}");
        // Nobody has asked for less than it had.
        assert!(!check(&[history(11_900)], TRIES).passed());
    }
}
