//! Checks the workload `proxies`: each user is charged what its proxies said was used; where nobody said it, or it may have
//! been lost with a gateway, at least that and at most what was held.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::gateway_check::{COVERED, OVERSPENT, RESOLVED, Range, accounts};
use super::gateway_loss::Losses;
use super::proxies::NAME;
use super::tally::Tally;
use crate::check::Verdict;
use crate::check::faults::spells;
pub use crate::check::words::CHAT as HOLD;
use crate::history::{History, Operation, Outcome};

pub const TELL: &str = "tell";
/// The budget of each user that never starts again: everything is in it.
pub const LIFE: &str = "proxies-life";

/// What was told is on its way to the ledger for so long at most, as long as nodes answer.
const SETTLES_US: u64 = 25_000_000;
/// While they do not for so long, it may be given up.
const AWAY_US: u64 = 10_000_000;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    pub marker: String,
    pub user: String,
    pub gateway: u64,
    /// In tokens.
    pub held: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// 200, or 429.
    pub status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tell {
    pub marker: String,
    pub gateway: u64,
    pub used: u64,
}

pub fn check(history: &History) -> Verdict {
    let mut tally = Tally::new([COVERED, OVERSPENT, RESOLVED]);
    let operations = history.operations(NAME);
    let mut told: HashMap<String, (&Operation, Tell)> = HashMap::new();
    for operation in operations.iter().filter(|operation| operation.f == TELL) {
        if let Some(tell) = tally.read::<Tell>(&operation.call, operation.index) {
            told.insert(tell.marker.clone(), (operation, tell));
        }
    }
    let losses = Losses::new(&spells(history));
    let unquiet = losses.of_told(AWAY_US);
    let mut users: BTreeMap<String, Vec<(u64, Range)>> = BTreeMap::new();
    for operation in operations.iter().filter(|operation| operation.f == HOLD) {
        let Some(hold) = tally.read::<Hold>(&operation.call, operation.index) else { continue };
        let range = match &operation.outcome {
            Outcome::Fail => Range::default(),
            // Whoever did not hear of it does not tell its end.
            Outcome::Unknown => Range { least: 0, most: hold.held },
            Outcome::Ok(value) => match tally.read::<Answer>(value, operation.index) {
                Some(Answer { status: 200 }) => {
                    let told = told.get(&hold.marker).map(|(tell, said)| (*tell, said));
                    held(operation, &hold, told, &unquiet)
                }
                Some(_) => Range::default(),
                None => continue,
            },
        };
        users.entry(hold.user).or_default().push((operation.index, range));
    }
    accounts(&mut tally, &operations, &users, LIFE, &losses.of_slices());
    tally.verdict()
}

/// What may have been charged for a reservation that was made.
fn held(
    operation: &Operation,
    hold: &Hold,
    told: Option<(&Operation, &Tell)>,
    unquiet: &[(u64, u64)],
) -> Range {
    let Some((tell, said)) = told else { return Range::exactly(hold.held) };
    let until_us = tell.completed_us.saturating_add(SETTLES_US);
    let is_quiet = !unquiet.iter().any(|(from, to)| *from <= until_us && operation.invoked_us <= *to);
    let is_heard = matches!(tell.outcome, Outcome::Ok(_));
    // Another gateway can only settle what its own has handed over, for which there may be no room.
    if is_heard && is_quiet && said.gateway == hold.gateway {
        return Range::exactly(said.used);
    }
    Range { least: said.used, most: hold.held }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::counts::NONE;
    use crate::check::faults::Spell;
    use crate::history::Kind;
    use crate::workloads::account_reads::{FINAL, Seen, Span, WindowSnapshot};
    use crate::workloads::script::{Script, violated};

    const MICROS: u64 = 1_000_000;

    fn hold(marker: &str) -> Hold {
        Hold { marker: marker.to_owned(), user: "proxies-0".to_owned(), gateway: 0, held: 100 }
    }

    fn tell(marker: &str, gateway: u64) -> Tell {
        Tell { marker: marker.to_owned(), gateway, used: 30 }
    }

    /// One that is told, one that is told elsewhere, one that never is, one that is refused, and one that nobody heard of.
    fn script() -> Script {
        let mut script = Script::new(NAME);
        for marker in ["a", "b", "c"] {
            script.ok(HOLD, &hold(marker), &Answer { status: 200 });
        }
        script.ok(HOLD, &hold("d"), &Answer { status: 429 });
        let lost = script.invoke(HOLD, &hold("e"));
        script.end(lost, Kind::Info, HOLD, &());
        script.ok(TELL, &tell("a", 0), &());
        script.ok(TELL, &tell("b", 1), &());
        script
    }

    fn charged(mut script: Script, spent: u64, reserved: u64, fault: Option<&str>) -> Verdict {
        let (spent, reserved, limit) = (spent * MICROS, reserved, 1_000 * MICROS);
        let present = Span { start_ms: 0, end_ms: 0, limit, spent, reserved, overdraft: 0 };
        let (budget, subject) = (LIFE.to_owned(), "proxies-0".to_owned());
        let accounts = vec![Seen { budget, subject, present, closed: Vec::new() }];
        script.ok(FINAL, &1, &WindowSnapshot { log_index: 9, time_ms: 9, accounts });
        let mut history = script.history();
        if let Some(fault) = fault {
            let mut event = history.events[0].clone();
            (event.workload, event.f) = (crate::history::NEMESIS.to_owned(), format!("inject:{fault}"));
            history.events.push(event);
        }
        check(&history)
    }

    #[test]
    fn what_is_charged_is_what_was_told_or_held() {
        // 30, 30 to 100, 100, nothing, and up to 100.
        for spent in [160, 230, 330] {
            let verdict = charged(script(), spent, 0, None);
            assert!(verdict.passed(), "{spent}: {verdict:?}");
            assert!(verdict.checked.iter().all(|(_, count)| *count > 0), "{:?}", verdict.checked);
        }
        for spent in [159, 331] {
            assert_eq!(violated(&charged(script(), spent, 0, None)), [COVERED], "{spent}");
        }
        assert_eq!(violated(&charged(script(), 200, 1, None)), [RESOLVED]);
        assert_eq!(violated(&charged(script(), 1_001, 0, None)), [COVERED, OVERSPENT]);
    }

    #[test]
    fn what_was_told_may_be_lost_while_gateways_end_or_nodes_are_away_for_long() {
        for (fault, most) in [("restart-gateway", 400), ("kill-all", 400), (NONE, 330)] {
            assert!(charged(script(), most, 0, Some(fault)).passed(), "{fault}");
            assert_eq!(violated(&charged(script(), most + 1, 0, Some(fault))), [COVERED], "{fault}");
        }
        let spell = |fault: &str, from_s: u64, to_s: u64| Spell {
            fault: fault.to_owned(),
            done: String::new(),
            from_us: from_s * 1_000_000,
            to_us: to_s * 1_000_000,
            event: 0,
        };
        let of = |spells: &[Spell]| {
            let unquiet = Losses::new(spells).of_told(AWAY_US);
            unquiet.iter().map(|(from, to)| (from / 1_000_000, to / 1_000_000)).collect::<Vec<_>>()
        };
        assert_eq!(of(&[spell("kill-one", 10, 15), spell("kill-gateway", 30, 31)]), [(30, 31)]);
        assert_eq!(of(&[spell("loss", 10, 16)]), [(10, 21)]);
        // One after the other.
        assert_eq!(of(&[spell("kill-one", 18, 22), spell("loss", 10, 14)]), [(10, 27)]);
    }
}
