//! The order of a rule's backends: each strategy with its reasons, shares by weight, and what moves when a sticky rule
//! changes.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

mod support;

use std::collections::BTreeMap;

use proptest::prelude::*;
use quorate_ledger::Amount;
use quorate_policy::runtime::{
    BackendRef, CompiledPolicy, PolicyParts, Price, Prices, Routing, Signals, Sticky, Strategy as By,
};
use support::{backend, headers, identity, request, route, rule, signals};

fn policy(routing: Routing, backends: Vec<BackendRef>, prices: Prices) -> CompiledPolicy {
    let mut rule = rule(&[], backends);
    rule.routing = routing;
    let routes = vec![route("r", &[], vec![rule])];
    CompiledPolicy::new(PolicyParts { routes, prices, ..PolicyParts::default() }).unwrap()
}

/// Names in their order, without the namespace.
fn order(policy: &CompiledPolicy, sent: &str, signals: &Signals<'_>) -> Vec<String> {
    let (sent, who) = (headers(sent), identity());
    let request = request(&sent, &who);
    let ordered = policy.route(&request).unwrap().ordered(&request, signals);
    ordered.iter().map(|one| one.backend.backend.trim_start_matches("ns/").to_owned()).collect()
}

/// `name rank reason` of each.
fn reasons(policy: &CompiledPolicy, signals: &Signals<'_>) -> Vec<String> {
    let (sent, who) = (headers(""), identity());
    let ranks = policy.route(&request(&sent, &who)).unwrap().ranks("gpt-4o", signals);
    ranks.iter().map(|one| format!("{} {} {}", one.backend.backend, one.rank, one.reason)).collect()
}

fn strategy(strategy: By) -> Routing {
    Routing { strategy, sticky: None }
}

fn sticky() -> Routing {
    Routing { strategy: By::Weighted, sticky: Some(Sticky::Header("x-conversation-id".into())) }
}

fn serving(name: &str, model: &str) -> BackendRef {
    BackendRef { model_override: Some(model.into()), ..backend(name, 0, 1) }
}

#[test]
fn the_cheapest_depends_on_the_request_and_priorities_still_come_first() {
    let mut prices = Prices::none();
    let dollars = |units| Amount::from_units(units).unwrap();
    for (model, input, output) in [("reader", 1, 20), ("writer", 10, 2), ("early", 100, 100)] {
        prices.set(model, Price::new(dollars(input), dollars(output)), "2026-01-01");
    }
    let mut backends = vec![serving("none", "unlisted"), serving("a", "reader"), serving("b", "writer")];
    backends.push(BackendRef { priority: 1, ..serving("late", "reader") });
    backends.push(serving("twin", "reader"));
    let policy = policy(strategy(By::Cheapest), backends, prices);
    let asked = |tokens| reasons(&policy, &signals(0, tokens, policy.prices()));
    assert_eq!(
        asked((1_000_000, 10_000)),
        [
            "ns/a 0 costs up to $1.2",
            "ns/twin 0 costs up to $1.2",
            "ns/b 1 costs up to $10.02",
            "ns/none 2 no known price: comes last",
            "ns/late 3 costs up to $1.2",
        ]
    );
    assert!(asked((1_000, 100_000))[0].starts_with("ns/b 0"));
    // Equal prices are drawn by weight.
    let firsts: Vec<String> = (0..64)
        .map(|draw| order(&policy, "", &signals(draw, (1_000_000, 10_000), policy.prices())).remove(0))
        .collect();
    assert!(firsts.contains(&"a".to_owned()) && firsts.contains(&"twin".to_owned()));
    assert!(!firsts.contains(&"b".to_owned()));
}

#[test]
fn the_lowest_latency_counts_a_tenth_more_as_equal() {
    let names = ["slow", "best", "close", "new"];
    let backends = names.iter().map(|name| backend(name, 0, 1)).collect();
    let policy = policy(strategy(By::LowestLatency), backends, Prices::none());
    let latency = |backend: &str, model: &str| {
        assert_eq!(model, "gpt-4o");
        BTreeMap::from([("ns/slow", 231), ("ns/best", 200), ("ns/close", 220)]).get(backend).copied()
    };
    let known = |draw| Signals { latency_ms: &latency, ..signals(draw, (0, 0), policy.prices()) };
    assert_eq!(
        reasons(&policy, &known(0)),
        [
            "ns/best 0 first byte after 200 ms",
            "ns/close 0 first byte after 220 ms",
            "ns/slow 1 first byte after 231 ms",
            "ns/new 2 not measured lately: comes last, but for 5 % of the requests",
        ]
    );
    let mut firsts: BTreeMap<String, usize> = BTreeMap::new();
    for draw in 0..20_000 {
        let order = order(&policy, "", &known(draw));
        assert_eq!(order.len(), 4);
        *firsts.entry(order[0].clone()).or_default() += 1;
    }
    assert!((800..1_200).contains(&firsts["new"]), "{firsts:?}");
    assert!((9_000..10_000).contains(&firsts["best"]) && (9_000..10_000).contains(&firsts["close"]));
    assert_eq!(firsts.get("slow"), None);
    // Where nothing is known, weights decide.
    let blind = signals(0, (0, 0), policy.prices());
    assert!(reasons(&policy, &blind).iter().all(|reason| reason.contains(" 0 not measured")));
}

#[test]
fn one_conversation_stays_and_many_share_by_weight() {
    let backends = vec![backend("a", 0, 1), backend("b", 0, 3), backend("later", 1, 9)];
    let policy = policy(sticky(), backends, Prices::none());
    let of = |conversation: &str, draw| {
        let sent = format!("x-conversation-id={conversation}");
        order(&policy, &sent, &signals(draw, (0, 0), policy.prices()))
    };
    let mut at_a = 0;
    for number in 0..4_000 {
        let conversation = format!("c-{number}");
        assert_eq!(of(&conversation, 1), of(&conversation, number));
        at_a += usize::from(of(&conversation, 1)[0] == "a");
        assert_eq!(of(&conversation, 1)[2], "later");
    }
    assert!((900..1_100).contains(&at_a), "{at_a}");
    // Without the header it is drawn.
    let drawn: Vec<String> =
        (0..64).map(|draw| order(&policy, "", &signals(draw, (0, 0), policy.prices())).remove(0)).collect();
    assert!(drawn.contains(&"a".to_owned()) && drawn.contains(&"b".to_owned()));
}

#[test]
fn the_beginning_of_a_conversation_is_a_key_too() {
    let routing = Routing { strategy: By::Weighted, sticky: Some(Sticky::Conversation) };
    let policy = policy(routing, vec![backend("a", 0, 1), backend("b", 0, 1)], Prices::none());
    let of = |conversation, draw| {
        let signals = Signals { conversation, ..signals(draw, (0, 0), policy.prices()) };
        order(&policy, "", &signals)
    };
    let firsts: Vec<String> = (0..64).map(|digest| of(Some(digest), 7).remove(0)).collect();
    assert!(firsts.contains(&"a".to_owned()) && firsts.contains(&"b".to_owned()));
    assert!((0..64).all(|draw| of(Some(5), draw) == of(Some(5), 0)));
}

/// Where each of a number of conversations goes first.
fn places(weights: &[u32]) -> Vec<String> {
    let backends = weights.iter().enumerate().map(|(at, weight)| backend(&format!("b{at}"), 0, *weight));
    let policy = policy(sticky(), backends.collect(), Prices::none());
    let place = |number: u64| {
        let sent = format!("x-conversation-id={number}");
        order(&policy, &sent, &signals(0, (0, 0), policy.prices())).remove(0)
    };
    (0..300).map(place).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// More weight only takes conversations, less only gives them, and nobody else's move. Weight 0 is as good as gone.
    #[test]
    fn only_the_share_that_must_move_moves(
        weights in prop::collection::vec(1_u32..6, 2..6),
        at in any::<prop::sample::Index>(),
        changed in 0_u32..12,
    ) {
        let at = at.index(weights.len());
        let (name, before) = (format!("b{at}"), places(&weights));
        let mut other = weights.clone();
        other[at] = changed;
        let after = places(&other);
        for (before, after) in before.iter().zip(&after) {
            if before != after {
                let (gives, takes) = if changed > weights[at] { (after, before) } else { (before, after) };
                prop_assert!(*gives == name && *takes != name, "{before} -> {after}, {name} to {changed}");
            }
        }
        prop_assert!(changed > 0 || !after.contains(&name));
    }

    /// The whole order, not the first alone: a backend that falls away leaves the others in theirs.
    #[test]
    fn a_backend_that_goes_leaves_the_others_in_their_order(
        weights in prop::collection::vec(1_u32..6, 2..6),
        at in any::<prop::sample::Index>(),
        key in any::<u64>(),
    ) {
        let at = at.index(weights.len());
        let refs = |gone: Option<usize>| -> Vec<BackendRef> {
            let kept = (0..weights.len()).filter(|number| Some(*number) != gone);
            kept.map(|number| backend(&format!("b{number}"), 0, weights[number])).collect()
        };
        let sent = format!("x-conversation-id={key}");
        let of = |refs| {
            let policy = policy(sticky(), refs, Prices::none());
            order(&policy, &sent, &signals(0, (0, 0), policy.prices()))
        };
        let mut whole = of(refs(None));
        whole.retain(|name| *name != format!("b{at}"));
        prop_assert_eq!(whole, of(refs(Some(at))));
    }
}
