//! Manifests as people write them, right and wrong.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

use quorate_policy::manifests::{ManifestSet, Mode, Source};

const GOOD: &str = "\
apiVersion: quorate.dev/v1alpha1
kind: Budget
metadata: {name: user-hourly}
spec:
  tenant: acme
  subject:
    - header: X-User-Id
    - model
  limit: {tokens: 250}
  window: Hour
---
apiVersion: quorate.dev/v1alpha1
kind: Budget
metadata:
  name: team-daily
spec:
  limit:
    tokens: 1000
  window: Day
  output: {default: 64, floor: 8}
";

const TRAFFIC: &str = "\
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: BackendTrafficPolicy
metadata:
  name: limits
  namespace: ai
spec:
  targetRefs:
    - kind: HTTPRoute
      name: chat
  rateLimit:
    type: Global
    global:
      rules:
        - clientSelectors:
            - headers:
                - name: x-user-id
                  type: Distinct
          limit:
            requests: 100
            unit: Hour
          cost:
            request: {from: Number, number: 0}
            response:
              from: Metadata
              metadata: {namespace: io.envoy.ai_gateway, key: llm_total_token}
";

fn parse(text: &str, mode: Mode) -> Result<(ManifestSet, Vec<String>), String> {
    ManifestSet::parse(&[Source { name: "f.yaml", text }], mode).map_err(|errors| errors.to_string())
}

fn refusal(text: &str) -> String {
    match parse(text, Mode::Strict) {
        Err(error) => error,
        Ok((set, _)) => set.compile().unwrap_err().to_string(),
    }
}

fn warnings(text: &str) -> Vec<String> {
    let (set, mut warnings) = parse(text, Mode::Strict).unwrap();
    warnings.extend(set.compile().unwrap().1);
    warnings
}

#[test]
fn mistakes_in_a_budget_name_their_place() {
    let cases = [
        (
            "window: Hour",
            "windw: Hour",
            "f.yaml, line 10, column 3, spec.windw: unknown field `windw`",
            "did you mean window?",
        ),
        (
            "window: Day",
            "window: Dya",
            "line 19, column 11, spec.window: unknown value `Dya`",
            "did you mean Day?",
        ),
        (
            "kind: Budget\n",
            "kind: Budgte\n",
            "line 2, column 7, kind: unknown kind `Budgte`",
            "did you mean Budget?",
        ),
        ("v1alpha1", "v1alpha2", "line 1, column 13, apiVersion", "expected quorate.dev/v1alpha1"),
        ("- model", "- modle", "line 8, column 7, spec.subject[1]", "did you mean model?"),
        (
            "- header: X",
            "- heder: X",
            "line 7, column 7, spec.subject[0].heder: unknown field",
            "did you mean header?",
        ),
        ("- model", "- header: 'x y'", "line 8, column 15, spec.subject[1].header", "no header name"),
        ("- model", "- header", "line 8, column 7, spec.subject[1]", "header needs a name"),
        ("- model", "- [model]", "line 8, column 7, spec.subject[1]", "expected a word such as model"),
        ("- model", "- header: x-user-id", "line 8, column 7, spec.subject[1]", "stands twice"),
        (
            "X-User-Id",
            "Authorization",
            "spec.subject[0].header: header authorization carries keys",
            "x-user-id",
        ),
        ("tokens: 250", "tokens: 0", "line 9, column 19, spec.limit.tokens", "from 1 to 1000000000000"),
        ("tokens: 250", "tokens: -3", "line 9, column 19, spec.limit.tokens", "from 1 to"),
        ("tokens: 250", "tokens: 2.5", "line 9, column 19, spec.limit.tokens", "found a number `2.5`"),
        ("tokens: 250", "tokens: many", "line 9, column 19, spec.limit.tokens", "found a text `many`"),
        ("tokens: 250", "tokens: 1000000000001", "line 9, column 19, spec.limit.tokens", "from 1 to"),
        (
            "tokens: 250",
            "euros: 250",
            "line 9, column 11, spec.limit.euros: unknown field `euros`",
            "dollars",
        ),
        ("tokens: 250", "cost: 250", "line 9, column 10, spec.limit", "field expression is missing"),
        (
            "tokens: 250",
            "cost: 5, expression: input_tokns",
            "line 9, column 32, spec.limit.expression",
            "input_tokns",
        ),
        ("name: user-hourly", "name: ''", "line 3, column 18, metadata.name", "1 to 128 bytes"),
        (
            "name: user-hourly",
            "name: a/b",
            "line 3, column 18, metadata.name",
            "separates namespace and name",
        ),
        ("name: user-hourly", "nmae: a", "line 3, column 12, metadata.nmae", "did you mean name?"),
        ("tenant: acme", "tenant: \"a\\tb\"", "line 5, column 11, spec.tenant", "control characters"),
        ("tenant: acme", "tenant: 12", "line 5, column 11, spec.tenant", "put it in quotes"),
        ("tenant: acme", "tenant: [a]", "line 5, column 11, spec.tenant", "expected a text, found a list"),
        ("tenant: acme", "tenant: a\n  tenant: b", "line 6, column 3: field `tenant` stands twice", ""),
        (
            "team-daily",
            "user-hourly",
            "line 12, metadata.name: Budget default/user-hourly stands twice, first in f.yaml from line 1",
            "",
        ),
        ("default: 64", "default: 4", "line 20, column 11, spec.output", "1 <= floor <= default"),
        ("floor: 8", "floor: 0", "line 20, column 32, spec.output.floor", "from 1 to"),
        (
            "spec:\n  tenant: acme",
            "spac:\n  tenant: acme",
            "line 4, column 1, spac: unknown field",
            "did you mean spec?",
        ),
        ("  window: Hour", "  window: {sliding: 1y}", "spec.window.sliding: `1y` is no duration", "7d"),
        (
            "  window: Hour",
            "  window: Hour\n  timeZone: Europe/Berln",
            "line 11, column 13, spec.timeZone",
            "did you mean Europe/Berlin?",
        ),
        (
            "  window: Hour",
            "  window: Lifetime\n  carryOver: {max: 5}",
            "spec.carryOver: needs a window with an end",
            "",
        ),
        (
            "  window: Hour",
            "  window: Hour\n  tiers: [{above: 5, model: a}, {above: 6, model: b}]",
            "spec.tiers[1]: tiers stand in descending",
            "",
        ),
        (
            "  window: Hour",
            "  window: Hour\n  alerts: {shares: [101]}",
            "spec.alerts.shares[0]",
            "from 1 to 100",
        ),
        (
            "  window: Hour",
            "  window: Hour\n  onClusterLoss: FailOpen",
            "spec.onClusterLoss: FailOpen needs an amount",
            "",
        ),
        (
            "  window: Hour",
            "  window: Hour\n  levels: [{name: team, limit: {tokens: 5}, window: Day}]",
            "spec.limit: belongs to each of the levels",
            "",
        ),
        ("window: Hour", "window: Hour\n bad", "f.yaml, line 1", "no YAML"),
        ("window: Hour", "window: !mine Hour", "line 10, column 11", "a tag"),
    ];
    for (right, wrong, place, message) in cases {
        assert!(GOOD.contains(right), "{right} is not in the example");
        let error = refusal(&GOOD.replacen(right, wrong, 1));
        assert!(error.contains(place) && error.contains(message), "{wrong}: {error}");
    }
}

#[test]
fn mistakes_in_a_traffic_policy_name_their_place() {
    let rule = "spec.rateLimit.global.rules[0]";
    let cases = [
        (
            "unit: Hour",
            "unti: Hour",
            format!("line 20, column 13, {rule}.limit.unti: unknown field `unti` (did you mean unit?)"),
        ),
        ("unit: Hour", "unit: Huor", format!("line 20, column 19, {rule}.limit.unit: unknown value `Huor`")),
        ("kind: HTTPRoute", "kind: HTTPRote", "spec.targetRefs[0].kind: unknown value `HTTPRote`".to_owned()),
        (
            "type: Distinct",
            "type: Distnct",
            format!("{rule}.clientSelectors[0].headers[0].type: unknown value `Distnct`"),
        ),
        (
            "type: Distinct",
            "type: Exact",
            format!("{rule}.clientSelectors[0].headers[0]: field value is missing"),
        ),
        (
            "type: Distinct",
            "type: Distinct\n                  invert: true",
            "Distinct cannot be inverted".to_owned(),
        ),
        (
            "type: Distinct",
            "type: RegularExpression\n                  value: 'a('",
            format!("{rule}.clientSelectors[0].headers[0].value"),
        ),
        ("requests: 100\n", "requests: -1\n", format!("line 19, column 23, {rule}.limit.requests")),
        (
            "{from: Number, number: 0}",
            "{from: Number}",
            format!("{rule}.cost.request: field number is missing"),
        ),
        (
            "io.envoy.ai_gateway",
            "io.envoy",
            format!("{rule}.cost.response.metadata.namespace: unknown value `io.envoy`"),
        ),
        (
            "llm_total_token",
            "llm_totl",
            format!(
                "line 1, {rule}.cost.response.metadata.key: unknown metadata key `llm_totl`, none is defined"
            ),
        ),
        ("    type: Global\n    global", "    local", "spec.rateLimit.local: is not supported".to_owned()),
        (
            "spec:\n",
            "spec:\n  rateLimt: {}\n",
            "line 7, column 3, spec.rateLimt: unknown field `rateLimt` (did you mean rateLimit?)".to_owned(),
        ),
        (
            "gateway.envoyproxy.io/v1alpha1",
            "gateway.envoyproxy.io/v1",
            "line 1, column 13, apiVersion: unknown value".to_owned(),
        ),
    ];
    for (right, wrong, message) in cases {
        assert!(TRAFFIC.contains(right), "{right} is not in the example");
        let error = refusal(&TRAFFIC.replacen(right, wrong, 1));
        assert!(error.contains(&message), "{wrong}: {error}");
    }
}

#[test]
fn mistakes_about_certificates_name_their_place() {
    let policy = "
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: t}
spec:
  targetRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: b}]
  validation:
    hostname: llm.internal
    caCertificateRefs: [{kind: ConfigMap, name: ca}]
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: b}
spec:
  endpoints: [{fqdn: {hostname: h, port: 8443}}]
  tls: {caCertificateRefs: [{kind: Secret, name: ca}]}
";
    assert!(parse(policy, Mode::Strict).is_ok());
    for (from, to, place, said) in [
        ("hostname: llm.internal", "hostname: 'a b'", "spec.validation.hostname", "the name that the"),
        (
            "hostname: llm.internal",
            "hostname: h\n    wellKnownCACertificates: System",
            "spec.validation.wellKnownCACertificates",
            "keep one of them",
        ),
        (
            "kind: ConfigMap",
            "kind: Service",
            "spec.validation.caCertificateRefs[0].kind",
            "ConfigMap, Secret",
        ),
        ("name: ca}]\n---", "nmae: ca}]\n---", "spec.validation.caCertificateRefs[0]", "name is missing"),
        ("tls: {", "tls: {insecureSkipVerify: true, ", "spec.tls", "caCertificateRefs"),
        ("tls: {", "tls: {wellKnownCACertificates: System, ", "spec.tls", "keep one of them"),
    ] {
        let error = refusal(&policy.replacen(from, to, 1));
        assert!(error.contains(place) && error.contains(said), "{to}: {error}");
    }
}

#[test]
fn several_mistakes_are_shown_at_once() {
    let broken = GOOD.replace("window: Hour", "windw: Hour").replace("tokens: 1000", "tokns: 1000");
    let broken = format!("{broken}---\nkind: [\n---\n{}", TRAFFIC.replace("unit: Hour", "unit: Huor"));
    let error = refusal(&broken);
    for part in
        ["spec.windw", "field window is missing", "spec.limit.tokns", "line 23", "unknown value `Huor`"]
    {
        assert!(error.contains(part), "{part}: {error}");
    }
    let first = Source { name: "a.yaml", text: "kind: 5" };
    let second = Source { name: "b.yaml", text: "apiVersion: v1\nkind: Secrt\n" };
    let error = ManifestSet::parse(&[first, second], Mode::Strict).unwrap_err().to_string();
    assert!(error.contains("a.yaml, line 1") && error.contains("b.yaml, line 2"), "{error}");
}

#[test]
fn lenient_takes_unknown_fields_and_nothing_else() {
    let unknown = GOOD.replace("window: Hour", "window: Hour\n  windoww: Day");
    assert!(parse(&unknown, Mode::Strict).is_err());
    let (set, said) = parse(&unknown, Mode::Lenient).unwrap();
    assert!(
        said.len() == 1 && said[0].contains("line 11") && said[0].contains("did you mean window?"),
        "{said:?}"
    );
    assert!(ManifestSet::from_document(&set.to_document()).unwrap() == set);
    assert!(parse(&GOOD.replace("Hour", "Huor"), Mode::Lenient).is_err());
    assert!(parse(&GOOD.replace("kind: Budget", "kind: Bugdet"), Mode::Lenient).is_err());
}

#[test]
fn neighbours_are_passed_over_by_name() {
    let neighbours = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {anything: [1]}\n---\napiVersion: gateway.envoyproxy.io/v1alpha1\nkind: SecurityPolicy\nmetadata: {name: auth}\n---\n";
    let said = warnings(&format!("{neighbours}{}", GOOD.replace("250", "2500")));
    assert!(said[0].contains("Deployment web is passed over"), "{said:?}");
    assert!(said[1].contains("SecurityPolicy auth") && said[1].contains("not enforced"), "{said:?}");
}

#[test]
fn what_kubectl_exports_applies() {
    let list = "\
apiVersion: v1
kind: List
metadata: {resourceVersion: ''}
items:
- apiVersion: quorate.dev/v1alpha1
  kind: Budget
  metadata:
    name: a
    uid: 1-2
    creationTimestamp: 2026-01-01T00:00:00Z
    annotations: {kubectl.kubernetes.io/last-applied-configuration: '{}'}
  spec: {limit: {tokens: 5000}, window: Day}
  status: {conditions: []}
";
    let (set, _) = parse(list, Mode::Strict).unwrap();
    let plain = "apiVersion: quorate.dev/v1alpha1\nkind: Budget\nmetadata: {name: a}\nspec: {limit: {tokens: 5000}, window: Day}";
    assert_eq!(set.to_document(), parse(plain, Mode::Strict).unwrap().0.to_document());
}

#[test]
fn documents_begin_at_every_kind_of_marker() {
    let (first, second) = GOOD.split_once("---\n").unwrap();
    for marker in ["---\n", "--- # the second\n", "---\r\n", "---  \n# a word\n\n---\n", "...\n---\n"] {
        let text = format!("---\n# mine\n---\n{first}{marker}{second}---\n");
        assert_eq!(parse(&text, Mode::Strict).unwrap().0.objects().count(), 2, "{marker:?}");
    }
    let broken = format!("---\n{first}--- # the second\n{}", second.replace("Day", "Dy"));
    assert!(refusal(&broken).contains("line 20, column 11"), "{}", refusal(&broken));
    assert!(parse(&GOOD.replace('\n', "\r\n"), Mode::Strict).is_ok());
}

#[test]
fn what_is_probably_not_meant_is_a_warning() {
    let fine = GOOD.replace("tokens: 250", "tokens: 2500");
    assert_eq!(warnings(&fine), Vec::<String>::new());
    let expect = |text: &str, part: &str| {
        let warnings = warnings(text);
        assert!(warnings.len() == 1 && warnings[0].contains(part), "{part}: {warnings:?}");
    };
    expect("# nothing\n", "no budgets");
    expect(GOOD, "user-hourly: the limit is below output.default");
    expect(&fine.replace("tokens: 1000", "tokens: 7"), "team-daily: the limit is below output.floor");
    expect(&fine.replace("window: Hour", "window: Second"), "user-hourly: a request usually runs for more");
    let again = fine.split("---").nth(1).unwrap().replace("team-daily", "team-again");
    expect(&format!("{fine}---{again}"), "count the same requests in the same window");
}

#[test]
fn objects_that_do_not_fit_together_are_refused() {
    let identity = "apiVersion: quorate.dev/v1alpha1\nkind: Identity\nmetadata: {name: N}\nspec: {tenant: {header: x-team}}\n";
    let two = format!("{}---\n{}", identity.replace('N', "a"), identity.replace('N', "b"));
    assert!(refusal(&two).contains("line 6, metadata.name: a second Identity"), "{}", refusal(&two));
    let price = "apiVersion: quorate.dev/v1alpha1\nkind: ModelPrice\nmetadata: {name: N}\nspec: {model: m, input: 1, output: 2}\n";
    let two = format!("{}---\n{}", price.replace('N', "a"), price.replace('N', "b"));
    assert!(refusal(&two).contains("model m has a price in ModelPrice default/a too"), "{}", refusal(&two));
    let same_name =
        format!("{TRAFFIC}---\n{}", GOOD.replace("{name: user-hourly}", "{name: limits, namespace: ai}"));
    assert!(refusal(&same_name).contains("has the name of one of"), "{}", refusal(&same_name));
}

#[test]
fn a_rule_keeps_its_name_when_another_comes_before_it() {
    let names = |text: &str| -> Vec<String> {
        let (policy, _) = parse(text, Mode::Strict).unwrap().0.compile().unwrap();
        policy.rules().into_iter().map(|rule| rule.name).collect()
    };
    assert_eq!(names(TRAFFIC), ["ai/limits"]);
    let before = "      rules:\n        - limit: {requests: 5, unit: Minute}\n        - clientSelectors: [{headers: [{name: x-plan, value: gold}]}]\n          limit: {requests: 5, unit: Minute}\n";
    assert_eq!(
        names(&TRAFFIC.replace("      rules:\n", before)),
        ["ai/limits/requests", "ai/limits/gold/requests", "ai/limits"]
    );
}

#[test]
fn the_examples_of_the_documentation_apply() {
    let text = include_str!("../../../docs/manifests.md");
    let examples: Vec<&str> = text
        .split("```yaml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .filter(|example| example.starts_with("apiVersion"))
        .collect();
    assert!(examples.len() >= 4);
    for example in examples {
        let (set, _) = parse(example, Mode::Strict).unwrap_or_else(|error| panic!("{error}\n{example}"));
        set.compile().unwrap();
    }
}

#[test]
fn two_selectors_may_say_the_same() {
    let user = "{headers: [{name: x-user-id, type: Distinct}]}";
    let rules = format!(
        "      rules:\n        - clientSelectors: [{user}, {user}]\n          limit: {{requests: 5, unit: Hour}}\n"
    );
    let text = format!(
        "apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: BackendTrafficPolicy\nmetadata: {{name: p}}\nspec:\n  rateLimit:\n    global:\n{rules}"
    );
    assert_eq!(parse(&text, Mode::Strict).unwrap().0.compile().unwrap().0.rules().len(), 1);
    let refused = refusal(&text.replace(user, "{}"));
    assert!(refused.contains("selects nothing"), "{refused}");
}

#[test]
fn a_budget_of_backends_names_at_least_one() {
    let with =
        |backends: &str| GOOD.replacen("  tenant: acme", &format!("  selector: {{backends: {backends}}}"), 1);
    assert!(refusal(&with("[]")).contains("line 5, column 24, spec.selector.backends: wanted: one or more"));
    assert!(refusal(&with("openai")).contains("spec.selector.backends: expected a list"));
    let said = warnings(&with("[openai]"));
    assert!(
        said.iter().any(|one| one.contains("no route sends requests to backend default/openai")),
        "{said:?}"
    );
}
