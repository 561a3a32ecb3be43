//! How a rule chooses among its backends, as people write it, right and wrong.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

use quorate_policy::manifests::{ManifestSet, Mode, Source};

fn parsed(text: &str) -> Result<(), String> {
    let parsed = ManifestSet::parse(&[Source { name: "f.yaml", text }], Mode::Strict);
    parsed.map(drop).map_err(|errors| errors.to_string())
}

const ROUTE: &str = "\
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIGatewayRoute
metadata: {name: chat}
spec:
  rules:
    - backendRefs: [{name: a}, {name: b}]
      routing:
        strategy: Cheapest
        sticky: {header: x-conversation-id}
";

#[test]
fn mistakes_in_how_a_rule_chooses_name_their_place() {
    assert_eq!(parsed(ROUTE), Ok(()));
    for (right, wrong, place, remedy) in [
        (
            "Cheapest",
            "Cheapst",
            "f.yaml, line 8, column 19, spec.rules[0].routing.strategy: unknown value `Cheapst`",
            "did you mean Cheapest?",
        ),
        ("Cheapest", "Fastest", "line 8, column 19", "expected one of Weighted, Cheapest, LowestLatency"),
        (
            "strategy:",
            "stratgy:",
            "line 8, column 9, spec.rules[0].routing.stratgy",
            "did you mean strategy?",
        ),
        (
            "{header: x-conversation-id}",
            "Conversaton",
            "line 9, column 17, spec.rules[0].routing.sticky: unknown value `Conversaton`",
            "did you mean Conversation?",
        ),
        ("{header: x", "{heder: x", "line 9, column 18", "did you mean header?"),
        ("{header: x-conversation-id}", "{}", "line 9, column 17", "field header is missing"),
        ("x-conversation-id", "authorization", "line 9, column 26", "carries keys"),
    ] {
        let refused = parsed(&ROUTE.replace(right, wrong)).unwrap_err();
        assert!(refused.contains(place) && refused.contains(remedy), "{wrong}: {refused}");
    }
}
