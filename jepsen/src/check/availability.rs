//! How soon clients were served again when a fault was healed and no other was there: each workload, each gateway by the
//! requests of each workload, and each node by what it was asked to decide. Service is a decision, or a request that was
//! served or refused for a limit: what is only read is none, nor is an error of a gateway.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::faults::{Spell, spells};
use super::{Verdict, Violation, words};
use crate::history::{Event, History, Kind, NEMESIS};

/// As promised.
pub const RECOVERY_MAX_US: u64 = 5_000_000;
const PROPERTY: &str = "availability within 5 s of a healed fault";
/// The nemesis's event when the time of the clients is up: what comes after it are last reads.
pub const CLIENTS_STOP: &str = "clients-stop";
/// From here on a status says that a gateway, or what is behind it, could not serve. A limit (429) is a decision.
const ERROR_STATUS: u64 = 500;
/// Except this: the backends fail on purpose, and a gateway that says so has heard of it.
const RESTING: (u64, &str) = (503, "backends_resting");
/// Who is not asked towards the end of the time has not failed to answer in it.
const ASKED_AFTER_US: u64 = 3_000_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    pub fault: String,
    pub workload: String,
    /// The gateway or node; empty: whoever answered first.
    pub who: String,
    /// From the healing to the end of the first operation that was answered; `None`: none was before the next fault, or
    /// the end.
    pub took_us: Option<u64>,
    /// How long clients were there, to the next fault or the end of the workload.
    pub watched_us: u64,
    pub event: u64,
}

/// An operation that wants service. `ended_us` is `u64::MAX` without an end.
#[derive(Debug)]
struct Attempt {
    invoked_us: u64,
    ended_us: u64,
    is_served: bool,
}

#[derive(Debug, Default)]
struct Service {
    /// Ends of operations that were served, by anybody.
    served: Vec<u64>,
    /// The last event.
    end_us: u64,
    /// By the name of who was asked.
    asked: BTreeMap<String, Vec<Attempt>>,
}

/// Of each fault that was healed while no other was there, and each workload; and each server that was asked meanwhile.
pub fn recoveries(history: &History) -> Vec<Recovery> {
    let spells = spells(history);
    let stop = history.faults().find(|event| event.f == CLIENTS_STOP).map(|event| event.time_us);
    let services = services(history, stop.unwrap_or(u64::MAX));
    let is_alone = |spell: &&Spell| {
        let mut others = spells.iter().filter(|other| other.event != spell.event);
        spell.to_us < u64::MAX && !others.any(|other| other.overlaps(spell.to_us, spell.to_us))
    };
    let of = |spell: &Spell| {
        let next = spells.iter().map(|other| other.from_us).filter(|from| *from > spell.to_us).min();
        let recovery = |(workload, service): (&&str, &Service)| {
            // Clients that all hang leave no events.
            let end = stop.unwrap_or(service.end_us);
            let until = next.unwrap_or(end).min(end);
            let first = |served: &mut dyn Iterator<Item = u64>| {
                served.filter(|at| (spell.to_us..=until).contains(at)).min().map(|at| at - spell.to_us)
            };
            let recovery = |who: &str, took_us| Recovery {
                fault: spell.fault.clone(),
                workload: (*workload).to_owned(),
                who: who.to_owned(),
                took_us,
                watched_us: until.saturating_sub(spell.to_us),
                event: spell.event,
            };
            let all = recovery("", first(&mut service.served.iter().copied()));
            let by_server = service.asked.iter().filter_map(|(who, attempts)| {
                let served = attempts.iter().filter(|attempt| attempt.is_served);
                let took_us = first(&mut served.map(|attempt| attempt.ended_us));
                let soon = took_us.is_some_and(|took| took <= RECOVERY_MAX_US);
                (soon || attempts.iter().any(|attempt| attempt.waited(spell.to_us)))
                    .then(|| recovery(who, took_us))
            });
            std::iter::once(all).chain(by_server).collect::<Vec<_>>()
        };
        services.iter().flat_map(recovery).collect::<Vec<_>>()
    };
    spells.iter().filter(is_alone).flat_map(of).collect()
}

impl Attempt {
    /// It was made after the healing, and was not served in time though there was time.
    fn waited(&self, healed_us: u64) -> bool {
        let (after_us, until_us) = (healed_us + ASKED_AFTER_US, healed_us + RECOVERY_MAX_US);
        let in_time = self.is_served && self.ended_us <= until_us;
        (healed_us..=until_us).contains(&self.invoked_us)
            && self.ended_us >= after_us
            && !in_time
            // Made so late that it may well be served, only not in time.
            && !(self.is_served && self.invoked_us > after_us)
    }
}

/// By workload, until the clients stop.
fn services(history: &History, stop_us: u64) -> BTreeMap<&str, Service> {
    let mut services: BTreeMap<&str, Service> = BTreeMap::new();
    let mut open: HashMap<(&str, u64), (String, u64)> = HashMap::new();
    let of_clients = |event: &&Event| {
        // What was not asked for, such as a provider's record, may be written down late.
        let is_asked = event.process != u64::MAX;
        event.workload != NEMESIS && is_asked && event.time_us <= stop_us && !is_last(event)
    };
    for event in history.events.iter().filter(of_clients) {
        let service = services.entry(&event.workload).or_default();
        service.end_us = event.time_us;
        let is_served = is_service(event);
        if is_served {
            service.served.push(event.time_us);
        }
        let process = (event.workload.as_str(), event.process);
        if event.kind == Kind::Invoke {
            open.extend(server(event).map(|who| (process, (who, event.time_us))));
        } else if let Some((who, invoked_us)) = open.remove(&process) {
            let attempt = Attempt { invoked_us, ended_us: event.time_us, is_served };
            service.asked.entry(who).or_default().push(attempt);
        }
    }
    for ((workload, _), (who, invoked_us)) in open {
        let attempt = Attempt { invoked_us, ended_us: u64::MAX, is_served: false };
        services.entry(workload).or_default().asked.entry(who).or_default().push(attempt);
    }
    services
}

/// Who is asked for service, if the call says so. Clients ask none but members.
fn server(event: &Event) -> Option<String> {
    if event.f == words::CHAT {
        let number = event.value.as_u64().or_else(|| event.value.get("gateway")?.as_u64())?;
        return Some(format!("gateway-{}", number + 1));
    }
    let node = event.value.get("node").filter(|_| words::DECISIONS.contains(&event.f.as_str()))?.as_u64()?;
    Some(format!("node {node}"))
}

/// Made when nobody else asks anything.
fn is_last(event: &Event) -> bool {
    [words::FINAL_READ, words::INVARIANTS, words::FINAL_ACCOUNTS].contains(&event.f.as_str())
}

/// The end of an operation with an answer that is of use.
fn is_service(event: &Event) -> bool {
    if event.kind != Kind::Ok || event.f != words::CHAT {
        return event.kind == Kind::Ok && words::DECISIONS.contains(&event.f.as_str());
    }
    let status = event.value.get("status").and_then(Value::as_u64);
    let code = event.value.get("code").and_then(Value::as_str).unwrap_or_default();
    status.is_some_and(|status| status < ERROR_STATUS || (status, code) == RESTING)
}

/// The longest that any workload waited, in microseconds; `None`: nothing was healed, or nobody was served.
pub fn slowest_us(history: &History) -> Option<u64> {
    let recoveries = recoveries(history);
    recoveries.iter().filter(|recovery| recovery.who.is_empty()).filter_map(|recovery| recovery.took_us).max()
}

pub fn check(history: &History) -> Verdict {
    let mut verdict = Verdict::default();
    let recoveries = recoveries(history);
    // Where the next fault came too soon, nothing was shown.
    let decided = |one: &&Recovery| one.took_us.is_some() || one.watched_us >= RECOVERY_MAX_US;
    let (all, by_server): (Vec<_>, Vec<_>) =
        recoveries.iter().filter(decided).partition(|one| one.who.is_empty());
    verdict.checked.push((PROPERTY.to_owned(), all.len() as u64));
    // Some workloads do not say whom they ask.
    if history.events.iter().any(|event| server(event).is_some()) {
        verdict.checked.push((format!("{PROPERTY}: gateways and nodes"), by_server.len() as u64));
    }
    for Recovery { fault, workload, who, took_us, watched_us, event } in recoveries {
        let ms = |us: u64| us / 1_000;
        let by = if who.is_empty() { who } else { format!(" of {who}") };
        let detail = match took_us {
            Some(took) if took <= RECOVERY_MAX_US => continue,
            Some(took) => format!("{workload}: first answer{by} {} ms after {fault} was healed", ms(took)),
            None if watched_us < RECOVERY_MAX_US => continue,
            None => {
                format!("{workload}: no answer{by} within {} ms after {fault} was healed", ms(watched_us))
            }
        };
        verdict.violations.push(Violation { property: PROPERTY.to_owned(), detail, events: vec![event] });
    }
    verdict
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::history::Event;

    fn history(events: &[(u64, &str, Kind, &str)]) -> History {
        let event = |(index, (time_ms, workload, kind, f)): (usize, &(u64, &str, Kind, &str))| Event {
            index: index as u64,
            time_us: time_ms * 1_000,
            workload: (*workload).to_owned(),
            process: 1,
            kind: *kind,
            f: (*f).to_owned(),
            value: Value::Null,
            error: None,
        };
        History { events: events.iter().enumerate().map(event).collect() }
    }

    #[test]
    fn the_first_answer_after_a_heal_counts() {
        let good = history(&[
            (0, NEMESIS, Kind::Info, "inject:kill-one"),
            (1_000, NEMESIS, Kind::Info, "heal:kill-one"),
            (1_500, "account", Kind::Ok, words::READ),
            (2_000, "account", Kind::Fail, "reserve"),
            (5_900, "account", Kind::Ok, "reserve"),
        ]);
        assert_eq!(recoveries(&good)[0].took_us, Some(4_900_000));
        assert!(check(&good).passed());
    }

    #[test]
    fn too_late_or_never_is_a_violation_and_too_short_a_look_is_neither() {
        let late = |f, at| {
            history(&[
                (0, NEMESIS, Kind::Info, "inject:kill-one"),
                (1_000, NEMESIS, Kind::Info, "heal:kill-one"),
                (at, "account", Kind::Ok, f),
            ])
        };
        assert!(!check(&late("settle", 6_001)).passed());
        assert!(!check(&late(words::STALE_READ, 6_001)).passed());
        assert!(check(&late(words::STALE_READ, 5_999)).passed());
    }

    #[test]
    fn while_another_fault_is_there_nothing_is_promised() {
        let both = history(&[
            (0, NEMESIS, Kind::Info, "inject:kill-one"),
            (500, NEMESIS, Kind::Info, "inject:partition-halves"),
            (1_000, NEMESIS, Kind::Info, "heal:kill-one"),
            (9_000, NEMESIS, Kind::Info, "heal:partition-halves"),
            (9_500, "account", Kind::Ok, "reserve"),
        ]);
        let recoveries = recoveries(&both);
        assert_eq!(recoveries.len(), 1);
        assert_eq!(
            (recoveries[0].fault.as_str(), recoveries[0].took_us),
            ("partition-halves", Some(500_000))
        );
    }

    #[test]
    fn errors_and_what_gateways_show_of_themselves_are_no_service() {
        let healed = |f: &str, status: u64| {
            let mut history = history(&[
                (0, NEMESIS, Kind::Info, "inject:kill-one"),
                (1_000, NEMESIS, Kind::Info, "heal:kill-one"),
                (1_500, "gateway", Kind::Ok, f),
                (6_500, "gateway", Kind::Fail, words::CHAT),
            ]);
            history.events[2].value = serde_json::json!({"status": status});
            check(&history)
        };
        for (f, status, is_served) in [
            (words::CHAT, 200, true),
            (words::CHAT, 429, true),
            (words::CHAT, 503, false),
            (words::SEEN, 200, false),
            (words::ROLLOUT, 200, false),
            (words::ACCOUNTS, 200, false),
            ("circuits", 200, false),
            ("versions", 200, false),
        ] {
            assert_eq!(healed(f, status).passed(), is_served, "{f} {status}");
        }
    }

    #[test]
    fn when_clients_have_stopped_nobody_waits() {
        let mut stopped = history(&[
            (0, NEMESIS, Kind::Info, "inject:kill-one"),
            (900, "account", Kind::Fail, "reserve"),
            (1_000, NEMESIS, Kind::Info, "heal:kill-one"),
            (2_000, NEMESIS, Kind::Info, CLIENTS_STOP),
            (9_000, "account", Kind::Ok, "reserve"),
        ]);
        assert!(check(&stopped).passed());
        // Until then they are there, also if they all hang.
        stopped.events[3].time_us = 8_000_000;
        assert!(!check(&stopped).passed());
    }

    #[test]
    fn what_the_next_fault_cut_short_has_shown_nothing() {
        let cut = history(&[
            (0, NEMESIS, Kind::Info, "inject:kill-one"),
            (1_000, NEMESIS, Kind::Info, "heal:kill-one"),
            (3_000, NEMESIS, Kind::Info, "begin:kill-one"),
            (9_000, "account", Kind::Fail, "reserve"),
        ]);
        assert_eq!(check(&cut).checked[0].1, 0);
    }

    #[test]
    fn each_workload_has_to_be_served_again() {
        let one_only = history(&[
            (0, "account", Kind::Ok, "reserve"),
            (0, "policy", Kind::Ok, "settle"),
            (0, NEMESIS, Kind::Info, "begin:kill-one"),
            (1_000, NEMESIS, Kind::Info, "heal:kill-one"),
            (1_100, "account", Kind::Ok, "reserve"),
            (6_500, "policy", Kind::Fail, "settle"),
        ]);
        assert_eq!(slowest_us(&one_only), Some(100_000));
        let verdict = check(&one_only);
        assert_eq!(verdict.checked[0].1, 2);
        assert_eq!(verdict.violations.len(), 1);
        assert!(verdict.violations[0].detail.starts_with("policy: no answer"), "{verdict:?}");
    }
    /// After a heal at 1 s, requests of which each took a tenth of a second, to a gateway or a node: who, when, and its status.
    fn asked(calls: &[(&str, u64, u64, u64)]) -> Verdict {
        let mut events = vec![
            (0, NEMESIS, Kind::Info, "inject:kill-gateway"),
            (1_000, NEMESIS, Kind::Info, "heal:kill-gateway"),
        ];
        for (f, _, at, status) in calls {
            let end = if *status < ERROR_STATUS { Kind::Ok } else { Kind::Info };
            events.extend([(*at, "gateway", Kind::Invoke, *f), (*at + 100, "gateway", end, *f)]);
        }
        events.push((9_000, NEMESIS, Kind::Info, CLIENTS_STOP));
        let mut history = history(&events);
        for (place, (f, who, _, status)) in calls.iter().enumerate() {
            let key = if *f == words::CHAT { "gateway" } else { "node" };
            history.events[2 + 2 * place].value = serde_json::json!({key: who});
            history.events[3 + 2 * place].value = serde_json::json!({"status": status});
        }
        check(&history)
    }

    #[test]
    fn who_does_not_serve_is_not_hidden_by_those_who_do() {
        for (f, name) in [(words::CHAT, "gateway-1"), (words::SETTLE, "node 0")] {
            let good = [(f, 0, 1_200, 503), (f, 0, 5_800, 200), (f, 1, 1_100, 200)];
            let verdict = asked(&good);
            assert!(verdict.passed(), "{verdict:?}");
            assert_eq!(verdict.checked[1].1, 2, "{verdict:?}");
            // The other serves, and so does the workload.
            for (second, said) in
                [((f, 0, 5_950, 503), "no answer of"), ((f, 0, 6_500, 200), "first answer of")]
            {
                let verdict = asked(&[(f, 0, 4_500, 503), second, (f, 1, 1_100, 200)]);
                assert_eq!(verdict.violations.len(), 1, "{verdict:?}");
                assert!(verdict.violations[0].detail.contains(&format!("{said} {name}")), "{verdict:?}");
            }
        }
    }

    #[test]
    fn who_is_not_asked_has_not_failed_to_answer() {
        let other = (words::CHAT, 1, 1_100, 200);
        for calls in [
            &[other][..],
            // Only at once, when it may not have been there yet.
            &[other, (words::CHAT, 0, 1_200, 503)],
            // Only at the end of the time.
            &[other, (words::CHAT, 0, 5_950, 200)],
            &[other, (words::CHAT, 0, 7_000, 503)],
        ] {
            assert!(asked(calls).passed(), "{calls:?}: {:?}", asked(calls));
        }
    }

    #[test]
    fn a_gateway_whose_backends_rest_has_answered() {
        let said = |code: &str| {
            let mut history = history(&[(0, "health", Kind::Ok, words::CHAT)]);
            history.events[0].value = serde_json::json!({"status": 503, "code": code});
            is_service(&history.events[0])
        };
        assert!(said("backends_resting") && !said("unavailable"));
    }
}
