//! A reservation holds all of its charges or none, and no reader sees a part of it: in every read of a hierarchy the levels
//! agree. Every reservation and settlement of the workload charges a user, the user's team and the organisation alike, and
//! so many dollars a token.

use std::collections::BTreeMap;

use super::words::{self, Account, Snapshot};
use super::{Verdict, Violation};
use crate::history::History;

/// The accounts of a hierarchy, as the workload names them.
#[derive(Debug, Clone)]
pub struct Levels {
    /// Each user's account, and the team's that it belongs to.
    pub team_of: BTreeMap<String, String>,
    pub organisation: String,
    pub dollars: String,
    pub dollars_per_token: u64,
}

type Part = (&'static str, fn(&Account) -> u64);

/// What adds up.
const PARTS: [Part; 4] = [
    ("spent", |account| account.spent),
    ("reserved", |account| account.reserved),
    ("overdraft", |account| account.overdraft),
    ("estimated", |account| account.estimated),
];

pub fn check(history: &History, workload: &str, levels: &Levels) -> Verdict {
    let mut verdict = Verdict::default();
    let mut reads = 0;
    for operation in history.operations(workload) {
        let Some(seen) = words::answer::<Snapshot>(&operation) else { continue };
        reads += 1;
        for (part, of) in PARTS {
            if let Some(detail) = disagreement(&seen, levels, of) {
                verdict.violations.push(Violation {
                    property: "all or nothing".to_owned(),
                    detail: format!("{part}, node {}, index {}: {detail}", seen.node, seen.index),
                    events: vec![operation.index],
                });
            }
        }
    }
    verdict.checked.push(("all or nothing: reads".to_owned(), reads));
    verdict
}

fn disagreement(seen: &Snapshot, levels: &Levels, of: fn(&Account) -> u64) -> Option<String> {
    let at = |name: &str| seen.accounts.iter().find(|account| account.account == name).map_or(0, of);
    let mut teams: BTreeMap<&str, u64> = BTreeMap::new();
    for (user, team) in &levels.team_of {
        let sum = teams.entry(team).or_default();
        *sum = sum.saturating_add(at(user));
    }
    for (team, users) in &teams {
        if at(team) != *users {
            return Some(format!("{team} has {}, its users together {users}", at(team)));
        }
    }
    let (all, together) = (at(&levels.organisation), teams.keys().map(|team| at(team)).sum::<u64>());
    if all != together {
        return Some(format!("the organisation has {all}, its teams together {together}"));
    }
    let (dollars, due) = (at(&levels.dollars), all.saturating_mul(levels.dollars_per_token));
    (dollars != due).then(|| format!("{dollars} dollar micros for {all} token micros, not {due}"))
}

#[cfg(test)]
mod tests {
    use serde_json::to_value;

    use super::*;
    use crate::history::{Event, Kind};

    fn levels() -> Levels {
        let users = [("u/0", "t/0"), ("u/1", "t/1"), ("u/2", "t/0")];
        Levels {
            team_of: users.map(|(user, team)| (user.to_owned(), team.to_owned())).into(),
            organisation: "o/".to_owned(),
            dollars: "d/".to_owned(),
            dollars_per_token: 2,
        }
    }

    fn passes(accounts: &[(&str, u64, u64)]) -> bool {
        let account = |(name, spent, reserved): &(&str, u64, u64)| Account {
            account: (*name).to_owned(),
            spent: *spent,
            reserved: *reserved,
            ..Account::default()
        };
        let seen = Snapshot { accounts: accounts.iter().map(account).collect(), ..Snapshot::default() };
        let event = |index, kind, value| Event {
            index,
            time_us: index,
            workload: "hierarchy".to_owned(),
            process: 1,
            kind,
            f: words::STALE_READ.to_owned(),
            value,
            error: None,
        };
        let events = vec![
            event(0, Kind::Invoke, to_value(words::Call::read("h", 1)).unwrap()),
            event(1, Kind::Ok, to_value(seen).unwrap()),
        ];
        check(&History { events }, "hierarchy", &levels()).passed()
    }

    #[test]
    fn levels_that_agree_pass() {
        assert!(passes(&[]));
        assert!(passes(&[("u/0", 3, 5), ("u/2", 1, 0), ("t/0", 4, 5), ("o/", 4, 5), ("d/", 8, 10)]));
    }

    #[test]
    fn a_part_of_a_reservation_is_found_at_every_level() {
        let whole = [("u/0", 3, 5), ("t/0", 3, 5), ("o/", 3, 5), ("d/", 6, 10)];
        assert!(passes(&whole));
        for part in 0..whole.len() {
            let mut without = whole;
            without[part].2 = 0;
            assert!(!passes(&without), "{without:?}");
            let mut more = whole;
            more[part].1 += 1;
            assert!(!passes(&more), "{more:?}");
        }
    }
}
