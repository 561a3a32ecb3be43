//! Histories made by hand: a good one, and for each property one that breaks it.

use super::*;
use crate::history::Kind;
use crate::workloads::script::{Script, violated};

const BACKEND: &str = "default/health-a";

fn circuit(state: State, revision: u64, holder: &str) -> Circuits {
    let (backend, model, holder) = (BACKEND.to_owned(), "m".to_owned(), holder.to_owned());
    Circuits {
        log_index: revision,
        circuits: vec![Circuit { backend, model, state, revision, until_ms: 9, holder }],
    }
}

fn seen(life: u64, revision: u64) -> Seen {
    Seen {
        life,
        revisions: vec![SeenRevision { backend: BACKEND.to_owned(), model: "m".to_owned(), revision }],
    }
}

/// A request that is made at one moment and arrives at another.
#[derive(Clone, Copy)]
struct Request {
    gateway: u64,
    made_ms: u64,
    arrives_ms: u64,
}

fn request(gateway: u64, made_ms: u64, arrives_ms: u64) -> Request {
    Request { gateway, made_ms, arrives_ms }
}

/// Open (revision 5) from 100 to 500, probed by gateway-1 (revision 6) from 600 to 900, closed (revision 7) at 1,000. Both
/// gateways have seen the first at 200, the second at 700 and are looked at until 1,200.
fn history(requests: &[Request], change: impl Fn(&mut Script)) -> History {
    let mut script = Script::new(NAME);
    for (ms, state, revision) in [
        (100, State::Open, 5),
        (300, State::Open, 5),
        (500, State::Open, 5),
        (600, State::HalfOpen, 6),
        (900, State::HalfOpen, 6),
        (1_000, State::Closed, 7),
    ] {
        let holder = if state == State::HalfOpen { "gateway-1" } else { "" };
        script.at(ms).ok(CIRCUITS, &1, &circuit(state, revision, holder));
    }
    for gateway in 0..2 {
        for (ms, revision) in [(50, 4), (200, 5), (700, 6), (1_200, 7)] {
            script.at(ms).ok(SEEN, &gateway, &seen(1, revision));
        }
    }
    for (number, request) in requests.iter().enumerate() {
        let marker = format!("health-{number}");
        let process = script
            .at(request.made_ms)
            .invoke(CHAT, &Call { marker: marker.clone(), gateway: request.gateway });
        let at_us = request.arrives_ms * 1_000;
        let served = Served {
            backend: "health-a".to_owned(),
            marker,
            status: 200,
            input: 1,
            output: 1,
            at_us,
            ended_us: at_us,
        };
        script.at(2_000).info(SERVED, &served);
        script.end(process, Kind::Info, CHAT, &());
    }
    change(&mut script);
    script.info(COMPLETE, &"health-a");
    script.info(COMPLETE, &"health-b");
    script.history()
}

#[test]
fn who_did_not_know_and_the_probe_may_come() {
    let requests = [
        // Before it was open, and before the gateway had seen it.
        request(0, 60, 90),
        request(1, 150, 190),
        request(1, 150, 650),
        // The probe of gateway-1, made when it had seen that the circuit is open.
        request(0, 550, 650),
        // When it is closed again.
        request(1, 1_050, 1_060),
    ];
    // Of those who knew, this one went nowhere.
    let elsewhere = |script: &mut Script| {
        script.at(250).ok(CHAT, &Call { marker: "health-x".to_owned(), gateway: 1 }, &())
    };
    let verdict = check(&history(&requests, elsewhere));
    assert!(verdict.passed(), "{verdict:?}");
    let counts: HashMap<_, _> = verdict.checked.iter().cloned().collect();
    assert!(counts[PROBE] == 1 && counts[OPEN] > 0, "{counts:?}");
    assert!(counts[OPINION] > 0 && counts[MONOTONE] > 0, "{counts:?}");
}

#[test]
fn who_knew_may_not_come() {
    let table = [
        ("open, and known", vec![request(1, 250, 260)], vec![OPEN]),
        ("half-open, and known", vec![request(1, 750, 760)], vec![PROBE]),
        ("not the holder", vec![request(1, 550, 650)], vec![PROBE]),
        ("two probes", vec![request(0, 550, 650), request(0, 560, 660)], vec![PROBE]),
        ("sent when open, before anybody has seen the probe", vec![request(1, 450, 560)], vec![PROBE]),
        ("long after", vec![request(1, 250, 3_650)], vec![]),
        ("sent when open, and late", vec![request(1, 250, 800)], vec![PROBE]),
    ];
    for (name, requests, expected) in table {
        let verdict = check(&history(&requests, |_| ()));
        assert_eq!(violated(&verdict), expected, "{name}: {verdict:?}");
        assert!(verdict.not_shown.is_empty());
    }
}

#[test]
fn a_new_process_knows_nothing() {
    // The look at 700 is the last of its process.
    let other = |script: &mut Script| {
        for event in 0..4 {
            script.at(1_300 + event).ok(SEEN, &1, &seen(2, 7));
        }
    };
    let mut told = history(&[request(1, 750, 760)], other);
    for event in &mut told.events {
        if event.f == SEEN && event.value["life"] == 1 && event.time_us > 1_100_000 {
            event.value["life"] = 2.into();
        }
    }
    let verdict = check(&told);
    assert!(verdict.passed(), "{verdict:?}");
}

#[test]
fn opinions_are_one_and_go_forward() {
    let other = |script: &mut Script| script.ok(CIRCUITS, &1, &circuit(State::HalfOpen, 6, "gateway-2"));
    assert_eq!(violated(&check(&history(&[], other))), [OPINION]);
    let back = |script: &mut Script| script.ok(CIRCUITS, &1, &circuit(State::HalfOpen, 6, "gateway-1"));
    assert_eq!(violated(&check(&history(&[], back))), [OPINION]);
    let back = |script: &mut Script| script.ok(SEEN, &0, &seen(1, 6));
    assert_eq!(violated(&check(&history(&[], back))), [MONOTONE]);
}

#[test]
fn without_the_records_nothing_is_decided() {
    let mut history = history(&[], |_| ());
    history.events.retain(|event| event.f != COMPLETE);
    assert!(!check(&history).not_shown.is_empty());
}
