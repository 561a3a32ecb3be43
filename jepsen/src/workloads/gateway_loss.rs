//! When the end of a request can have been lost with its gateway, so that what was held is charged. A gateway that is killed
//! loses what it has not settled yet; one that is stopped in good order settles everything, unless it cannot reach the nodes
//! for as long as it waits. Slices (workload `leases`) are lost in the same way.

use crate::check::counts::NONE;
use crate::check::faults::Spell;
use crate::deploy::SETTLES_BEHIND;
use crate::history::Operation;

/// What ends a gateway without a word, and in good order.
const KILLS: [&str; 2] = ["kill-gateway", "kill-gateways"];
const STOP: &str = "restart-gateway";
/// `settle_ms` of the gateways: an answer that did not wait for its settlement is settled by then.
const SETTLES_US: u64 = 5_000_000;
/// With `total_ms`: while the nodes are away, a settlement is tried until the reservation ends.
const ENDS_US: u64 = 15_000_000;
/// An answer waits so long for its settlement (`settle_wait_ms`): with the nodes away, any may come before it.
const WAITS_US: u64 = 1_000_000;
/// Until the nodes decide again after a fault of theirs.
const RECOVERS_US: u64 = 5_000_000;

/// A gateway, or all of them, and from when to when it was being ended.
#[derive(Debug)]
struct End {
    /// From 0; empty: any.
    gateways: Vec<u64>,
    is_kill: bool,
    from_us: u64,
    to_us: u64,
}

#[derive(Debug, Default)]
pub struct Losses {
    ends: Vec<End>,
    /// From when to when faults of the nodes may be felt, without a break.
    away: Vec<(u64, u64)>,
}

impl Losses {
    pub fn new(spells: &[Spell]) -> Self {
        let is_kill = |spell: &Spell| KILLS.contains(&&*spell.fault);
        let (ends, others): (Vec<&Spell>, Vec<&Spell>) =
            spells.iter().partition(|spell| is_kill(spell) || spell.fault == STOP);
        let end = |spell: &&Spell| End {
            gateways: gateways(&spell.done),
            is_kill: is_kill(spell),
            from_us: spell.from_us,
            to_us: spell.to_us,
        };
        let mut away: Vec<(u64, u64)> = Vec::new();
        let mut others: Vec<&Spell> = others.into_iter().filter(|spell| spell.fault != NONE).collect();
        others.sort_by_key(|spell| spell.from_us);
        for spell in others {
            let to_us = spell.to_us.saturating_add(RECOVERS_US);
            match away.last_mut() {
                Some((_, last_us)) if spell.from_us <= *last_us => *last_us = to_us.max(*last_us),
                _ => away.push((spell.from_us, to_us)),
            }
        }
        Self { ends: ends.iter().map(end).collect(), away }
    }

    /// A client has all of this answer; may its settlement have been lost?
    pub fn may_lose(&self, operation: &Operation, gateway: u64) -> bool {
        let from_us = operation.invoked_us;
        let until = |us: u64| operation.completed_us.saturating_add(us);
        let is_behind = gateway == SETTLES_BEHIND as u64;
        self.ends.iter().filter(|end| end.gateways.is_empty() || end.gateways.contains(&gateway)).any(|end| {
            let met = |until_us: u64| end.from_us <= until_us && from_us <= end.to_us;
            // From the answer to the end of its gateway: else it was settled meanwhile.
            let mut away =
                self.away.iter().filter(|(from, to)| *from <= until(WAITS_US) && end.from_us <= *to);
            (met(until(ENDS_US)) && away.any(|(_, to)| from_us <= *to))
                || (end.is_kill && is_behind && met(until(SETTLES_US)))
        })
    }

    /// From when to when gateways were ended that could not return their slices.
    pub fn of_slices(&self) -> Vec<(u64, u64)> {
        let away = |end: &End| self.away.iter().any(|(from, to)| *from <= end.to_us && end.from_us <= *to);
        let lost = |end: &&End| end.is_kill || away(end);
        self.ends.iter().filter(lost).map(|end| (end.from_us, end.to_us)).collect()
    }

    /// From when to when what a gateway was told may be lost: while any is ended, and while the nodes are away for longer than
    /// `away_us` without a break.
    pub fn of_told(&self, away_us: u64) -> Vec<(u64, u64)> {
        let ends = self.ends.iter().map(|end| (end.from_us, end.to_us));
        ends.chain(self.away.iter().copied().filter(|(from, to)| to - from > away_us)).collect()
    }
}

/// From what the fault says that it did: `killed gateway 1 and 2`.
fn gateways(done: &str) -> Vec<u64> {
    let names = ["killed gateway ", "stopped gateway "].iter().find_map(|did| done.strip_prefix(did));
    let numbers = names.unwrap_or_default().split(|letter: char| !letter.is_ascii_digit());
    numbers.filter_map(|number| number.parse::<u64>().ok()?.checked_sub(1)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::history::Outcome;

    fn spell(fault: &str, done: &str, from_s: u64, to_s: u64) -> Spell {
        let (fault, done) = (fault.to_owned(), done.to_owned());
        Spell { fault, done, from_us: from_s * 1_000_000, to_us: to_s * 1_000_000, event: 0 }
    }

    /// An answer after 10 s, and what came to pass: (the first gateway's may be lost, the second's).
    fn lost(spells: &[Spell]) -> (bool, bool) {
        let operation = Operation {
            index: 0,
            process: 0,
            f: String::new(),
            call: Value::Null,
            invoked_us: 9_900_000,
            completed_us: 10_000_000,
            outcome: Outcome::Unknown,
        };
        let losses = Losses::new(spells);
        (losses.may_lose(&operation, 0), losses.may_lose(&operation, SETTLES_BEHIND as u64))
    }

    #[test]
    fn a_kill_soon_after_an_answer_that_did_not_wait_loses_its_settlement() {
        for (what, done, from_s, expected) in [
            ("kill-gateway", "killed gateway 2", 12, (false, true)),
            ("kill-gateways", "killed gateway 1 and 2", 12, (false, true)),
            // Half-way: nobody knows which.
            ("kill-gateway", "failed half-way: nothing said", 12, (false, true)),
            ("kill-gateway", "killed gateway 1", 12, (false, false)),
            ("kill-gateway", "killed gateway 2", 16, (false, false)),
            ("kill-gateway", "killed gateway 2", 3, (false, false)),
            ("restart-gateway", "stopped gateway 2", 12, (false, false)),
            ("kill-leader", "killed node 2", 12, (false, false)),
        ] {
            assert_eq!(lost(&[spell(what, done, from_s, from_s + 2)]), expected, "{what} {done} {from_s}");
        }
    }

    #[test]
    fn with_the_nodes_away_any_end_of_a_gateway_does() {
        let away = |from_s| spell("kill-all", "killed node 1, 2 and 3", from_s, from_s + 6);
        let end =
            |what, gateway, from_s| spell(what, &format!("stopped gateway {gateway}"), from_s, from_s + 4);
        for what in ["kill-gateway", "restart-gateway"] {
            for (spells, is_lost) in [
                (vec![away(8), end(what, 1, 19)], true),
                // They were back before.
                (vec![away(8), end(what, 1, 20)], false),
                // Away all the time, by two faults; and when the reservation has expired.
                (vec![away(18), away(8), end(what, 1, 24)], true),
                (vec![away(18), away(8), end(what, 1, 26)], false),
                // It was settled before they went.
                (vec![away(12), end(what, 1, 13)], false),
            ] {
                assert_eq!(lost(&spells), (is_lost, false), "{spells:?}");
            }
        }
        assert_eq!(lost(&[spell("none", "", 0, 99), end("restart-gateway", 1, 11)]), (false, false));
    }

    #[test]
    fn slices_are_lost_by_kills_and_by_a_stop_without_the_nodes() {
        let stop = |from_s| spell("restart-gateway", "stopped gateway 1", from_s, from_s + 2);
        let kill = spell("kill-gateway", "killed gateway 1", 50, 52);
        let losses = Losses::new(&[stop(10), kill, spell("loss", "", 80, 82), stop(81)]);
        let lost: Vec<u64> = losses.of_slices().iter().map(|(from_us, _)| from_us / 1_000_000).collect();
        assert_eq!(lost, [50, 81]);
    }
}
