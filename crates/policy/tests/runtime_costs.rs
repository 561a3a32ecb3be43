//! Costs: expressions, prices, bounds. Tables of what they give; properties of what always holds.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

use proptest::prelude::*;
use quorate_ledger::{Amount, BudgetRule, Unit, Window};
use quorate_policy::runtime::{
    Budget, CelCost, Cost, CostContext, CostError, Price, Prices, TokenKind, Usage,
};

const AT: CostContext<'_> = CostContext { model: "gpt-4o", backend: "ns/openai", route: "ns/llm" };

fn units(text: &str) -> Amount {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let micros: u64 = format!("{whole}{fraction:0<6}").parse().unwrap();
    Amount::from_micros(micros).unwrap()
}

fn usage(input: u64, cached_input: u64, cache_creation_input: u64, output: u64, reasoning: u64) -> Usage {
    Usage { input, cached_input, cache_creation_input, output, reasoning, total: input + output }
}

#[test]
fn expressions_give_costs() {
    let used = usage(1000, 400, 100, 200, 50);
    for (expression, cost) in [
        ("input_tokens * 0.25 + output_tokens * 1.0", "450"),
        ("input_tokens * 0.25 + output_tokens", "450"),
        ("0.1 * 3.0", "0.3"),
        ("0.1 * input_tokens + 0.2 * input_tokens", "300"),
        ("input_tokens / 3u", "333"),
        ("input_tokens / 3.0", "333.333334"),
        ("input_tokens % 7", "6"),
        ("total_tokens", "1200"),
        ("(input_tokens - cached_input_tokens) * 2 + cached_input_tokens / 2", "1400"),
        ("(output_tokens - reasoning_tokens) * 1 + reasoning_tokens * 2 - 50 + 50", "250"),
        ("cache_creation_input_tokens * 1.25", "125"),
        ("-1 * -5", "5"),
        ("-(-5)", "5"),
        ("model == 'gpt-4o' ? total_tokens * 2 : total_tokens", "2400"),
        ("model.startsWith('gpt') && route_name == 'ns/llm' ? 7 : 8", "7"),
        ("model.matches('^gpt-4.') ? 7.5 : 8.0", "7.5"),
        ("matches(backend, 'openai') ? 7 : 8", "7"),
        ("model in ['gpt-4o', 'gpt-4'] ? 7 : 8", "7"),
        // The official form of a backend's name, our own, and the one by which manifests refer to it.
        ("backend == 'openai.ns' ? 7 : 8", "7"),
        ("backend == 'ns/openai' && 'openai' == backend ? 7 : 8", "7"),
        ("backend != 'openai.other' && backend != 'other/openai' && backend != 'openai-2' ? 7 : 8", "7"),
        ("backend != 'openai' ? 7 : 8", "8"),
        ("backend in ['anthropic.ns', 'openai.ns'] && !(backend in ['open', 'openai.n']) ? 7 : 8", "7"),
        ("route_name == 'llm' && route_name == 'llm.ns' ? 7 : 8", "7"),
        ("backend.startsWith('openai') && backend.endsWith('.ns') ? 7 : 8", "7"),
        ("(model in {'gpt-4o': 2.5} ? {'gpt-4o': 2.5}[model] : 1.0) * input_tokens", "2500"),
        ("{'gpt-4o': 2.5}[model] * input_tokens", "2500"),
        ("input_tokens == 1000 && input_tokens > 999.5 && input_tokens <= 1000u ? 1 : 2", "1"),
        ("double(input_tokens) * 0.5", "500"),
        ("size(model) * input_tokens", "6000"),
        ("0", "0"),
        ("0.0000001", "0.000001"),
    ] {
        let compiled = CelCost::new(expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
        assert_eq!(compiled.of(&used, &AT).unwrap(), units(cost), "{expression}");
    }
}

#[test]
fn expressions_that_cannot_be_costs_are_refused() {
    let deep = format!("{}1{}", "(".repeat(200), ")".repeat(200));
    let long = format!("1{}", "+1".repeat(1023));
    let nested = format!("{}1{}", "(".repeat(40), ")".repeat(40));
    let chain: String = (0..44).map(|n| format!("model == 'm{n}' ? {n}.5 : ")).collect();
    let sum = format!("1{}", "+1".repeat(46));
    let negated = format!("{}1", "- ".repeat(44));
    for expression in [nested, format!("{chain} 1.0"), sum, negated] {
        assert!(CelCost::new(&expression).is_ok(), "{expression}");
    }
    let nots = format!("{}true ? 1 : 2", "!".repeat(500));
    let conditions = format!("{}1", "true?1:".repeat(200));
    for (expression, says) in [
        ("", ""),
        ("input_tokens *", ""),
        ("input_tokns * 2", "there is no variable input_tokns (did you mean input_tokens?); there are"),
        ("request.headers", "there is no field headers"),
        ("'text'", "string"),
        ("input_tokens > 5", "bool"),
        ("true ? 1 : nope", "there is no variable nope"),
        ("frobnicate(1)", "there is no function frobnicate"),
        ("[1, 2].map(x, x * 2).size()", "loops"),
        ("[1].all(x, x > 0) ? 1 : 2", "loops"),
        ("input_tokens - 100", "0 or more"),
        ("100.0 - output_tokens", "0 or more"),
        ("output_tokens - input_tokens", "0 or more"),
        ("model == 'free' ? -1 : 1", "0 or more"),
        ("output_tokens / (output_tokens - reasoning_tokens)", "ivision by zero"),
        ("0.0 / 0.0", "no number"),
        ("1.0 / 0.0", "more than 10^12"),
        ("input_tokens * 10000000000", "more than 10^12"),
        ("input_tokens * input_tokens * input_tokens * input_tokens", ""),
        ("model + 1", "do not go together"),
        ("model.matches('(a')", ""),
        ("model.matches(backend) ? 1 : 2", "written out"),
        ("@add(1, 2)", ""),
        (&deep, ""),
        (&long, "too deep"),
        (&nots, ""),
        (&conditions, ""),
        (&" ".repeat(3000), "3000 bytes"),
    ] {
        let error = CelCost::new(expression).expect_err(expression).to_string();
        assert!(error.contains(says), "{expression}: {error}");
        assert!(!error.contains('\n') && error.len() < 400, "{error}");
    }
}

#[test]
fn bounds_are_the_dearest_way() {
    let prices = Prices::none();
    let other = CostContext { model: "gpt-4o-mini", ..AT };
    for (expression, bound) in [
        // Read from the cache, written to it, or neither: written is dearest. Not both at once.
        ("input_tokens - cached_input_tokens * 0.9 + cache_creation_input_tokens * 0.25", "1250"),
        ("input_tokens * 2 - cached_input_tokens + output_tokens * 8 + reasoning_tokens", "3800"),
        ("model == 'gpt-4o' ? total_tokens : total_tokens * 3", "3600"),
        ("total_tokens > 1000 ? 1 : total_tokens * 2", "2000"),
        ("input_tokens < 500 ? 9000 : 1", "9000"),
        ("model == 'gpt-4o' ? 10 / (output_tokens + 1) : 1", "10"),
    ] {
        let cost = CelCost::new(expression).unwrap();
        let bound_of = Cost::Cel(cost).bound(1000, 200, &[AT, other], &prices, None);
        assert_eq!(bound_of.unwrap(), units(bound), "{expression}");
    }
    for (kind, most) in
        [(TokenKind::Total, "1200"), (TokenKind::Input, "1000"), (TokenKind::Reasoning, "200")]
    {
        assert_eq!(Cost::Tokens(kind).bound(1000, 200, &[], &prices, None).unwrap(), units(most));
    }
    assert_eq!(Cost::Dollars.bound(1, 1, &[], &prices, None), Err(CostError::NoBackend));
}

#[test]
fn dollars_are_exact() {
    let prices = Prices::builtin();
    for (model, used, dollars) in [
        ("gpt-4o-mini", usage(1, 0, 0, 0, 0), "0.000001"),
        ("gpt-4o-mini", usage(20, 0, 0, 0, 0), "0.000003"),
        ("gpt-4o-mini", usage(1_000_000, 0, 0, 0, 0), "0.15"),
        ("gpt-4o-mini-2024-07-18", usage(1_000_000, 1_000_000, 0, 1_000_000, 0), "0.675"),
        ("gpt-4o", usage(1_000_000, 400_000, 0, 100_000, 90_000), "3"),
        ("gpt-4o-2024-05-13", usage(1_000_000, 0, 0, 0, 0), "5"),
        ("gpt-4o-2024-08-06", usage(1_000_000, 0, 0, 0, 0), "2.5"),
        ("claude-sonnet-4-5-20250929", usage(1_000_000, 500_000, 100_000, 10_000, 0), "1.875"),
        ("claude-opus-4-1@20250805", usage(1_000_000, 0, 0, 0, 0), "15"),
        ("claude-3-5-haiku-latest", usage(1_000_000, 0, 0, 0, 0), "0.8"),
        ("us.anthropic.claude-sonnet-4-20250514-v1:0", usage(1_000_000, 0, 0, 0, 0), "3"),
        ("eu.anthropic.claude-sonnet-4-5-20250929-v1:0", usage(1_000_000, 0, 0, 0, 0), "3.3"),
        ("global.anthropic.claude-sonnet-4-5-20250929-v1:0", usage(1_000_000, 0, 0, 0, 0), "3"),
        ("amazon.nova-pro-v1:0", usage(1_000_000, 0, 0, 0, 0), "0.8"),
        ("text-embedding-3-small", usage(1_000_000, 0, 0, 0, 0), "0.02"),
        ("gpt-5-nano", usage(1_000, 1_000, 0, 0, 0), "0.000005"),
    ] {
        let cost = Cost::Dollars.of(&used, &CostContext { model, ..AT }, &prices, None);
        assert_eq!(cost.unwrap(), units(dollars), "{model}");
    }
    for (name, listed) in prices.iter() {
        assert!(listed.builtin && listed.as_of.len() == 10, "{name}");
        assert!(listed.price.cached_input <= listed.price.input, "{name}");
        assert!(listed.price.input <= listed.price.cache_write, "{name}");
        assert_eq!(prices.find(name).unwrap().0, name);
    }
}

#[test]
fn models_without_a_price() {
    let mut prices = Prices::builtin();
    for model in [
        "gpt-4o-audio-preview",
        "gpt-4o-mini-audio",
        "claude-opus-4-9",
        "gpt-9",
        "",
        "-",
        "gpt",
        "ft:gpt-4o-mini-2024-07-18:org::id",
        "gpt-4oé-2024",
    ] {
        let error = Cost::Dollars.of(&usage(1, 0, 0, 1, 0), &CostContext { model, ..AT }, &prices, None);
        assert_eq!(error, Err(CostError::NoPrice { model: model.to_owned() }));
    }
    let fallback = Price::new(units("10"), units("20"));
    let at = CostContext { model: "gpt-9", ..AT };
    let used = usage(1_000_000, 1_000_000, 0, 1_000_000, 0);
    assert_eq!(Cost::Dollars.of(&used, &at, &prices, Some(&fallback)).unwrap(), units("30"));
    prices.set("gpt-9", Price::new(units("1"), units("2")), "2026-01-01");
    assert_eq!(Cost::Dollars.of(&used, &at, &prices, Some(&fallback)).unwrap(), units("3"));
    let huge = usage(u64::MAX, 0, 0, 0, 0);
    assert_eq!(Cost::Dollars.of(&huge, &at, &prices, None), Err(CostError::TooLarge));
    assert_eq!(
        Cost::Tokens(TokenKind::Total).of(&Usage { total: u64::MAX, ..huge }, &at, &prices, None),
        Err(CostError::TooLarge)
    );
}

#[test]
fn the_cost_of_the_request_comes_on_top() {
    let limit = Amount::from_units(100).unwrap();
    let mut budget = Budget::new(
        BudgetRule::new("calls", Unit::Cost, limit, Window::Hour),
        Cost::Tokens(TokenKind::Output),
    );
    budget.request_cost = units("1.5");
    let prices = Prices::none();
    assert_eq!(budget.charge(&usage(9, 0, 0, 2, 0), &AT, &prices).unwrap(), units("3.5"));
    assert_eq!(budget.bound(9, 10, &[AT], &prices).unwrap(), units("11.5"));
}

/// Usages within a bound, as providers report them.
fn usages(input: u64, output: u64) -> impl Strategy<Value = Usage> {
    (0..=input, 0..=output).prop_flat_map(|(input, output)| {
        (0..=input, 0..=output).prop_flat_map(move |(cached, reasoning)| {
            (0..=input - cached).prop_map(move |written| usage(input, cached, written, output, reasoning))
        })
    })
}

/// Sums of products of different counts times constants of either sign, kept above zero by a constant.
fn multilinear() -> impl Strategy<Value = String> {
    let names = [
        "input_tokens",
        "cached_input_tokens",
        "cache_creation_input_tokens",
        "output_tokens",
        "total_tokens",
        "reasoning_tokens",
    ];
    // Small, so that products of a million by a hundred thousand stay within what a cost may be.
    let factor = prop_oneof![
        (-50i32..50).prop_map(|number| format!("{:?}", f64::from(number) / 16e5)),
        (0i32..3).prop_map(|number| number.to_string()),
    ];
    let term = (factor, proptest::sample::subsequence(names.to_vec(), 0..=2))
        .prop_map(|(factor, names)| [vec![factor.as_str()], names].concat().join(" * "));
    proptest::collection::vec(term, 1..5).prop_map(|terms| format!("100000000 + {}", terms.join(" + ")))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_bound_of_a_multilinear_expression_holds(
        expression in multilinear(),
        used in usages(20_000, 5_000),
    ) {
        // Those that may go below zero are refused.
        if let Ok(cost) = CelCost::new(&expression) {
            let actual = cost.of(&used, &AT).unwrap();
            let bound = cost.bound(20_000, 5_000, &AT).unwrap();
            prop_assert!(bound >= actual, "{expression}: {bound} < {actual}");
        }
    }

    #[test]
    fn the_bound_of_a_step_holds(
        variable in proptest::sample::select(vec!["input_tokens", "total_tokens", "output_tokens", "cached_input_tokens"]),
        operator in proptest::sample::select(vec!["<", "<=", ">", ">=", "==", "!="]),
        (at, below, above) in (0u64..30_000, 0u64..40, 0u64..40),
        used in usages(20_000, 5_000),
    ) {
        let expression = format!("{variable} {operator} {at} ? {variable} * {below} : {variable} * {above} + 0.5");
        let cost = CelCost::new(&expression).unwrap();
        let (bound, actual) = (cost.bound(20_000, 5_000, &AT).unwrap(), cost.of(&used, &AT).unwrap());
        prop_assert!(bound >= actual, "{expression}: {bound} < {actual}");
    }

    #[test]
    fn the_bound_of_a_price_holds(
        prices in [0u64..100_000_000, 0..100_000_000, 0..100_000_000, 0..100_000_000],
        used in usages(1_000_000, 100_000),
    ) {
        let [input, cached_input, cache_write, output] = prices.map(|micros| Amount::from_micros(micros).unwrap());
        let price = Price { input, cached_input, cache_write, output };
        prop_assert!(price.bound(1_000_000, 100_000).unwrap() >= price.of(&used).unwrap());
    }

    #[test]
    fn any_text_is_an_expression_or_an_error(text in "\\PC{0,60}") {
        let _ = CelCost::new(&text);
    }

    #[test]
    fn any_words_are_an_expression_or_an_error(words in proptest::collection::vec(proptest::sample::select(vec![
        "input_tokens", "output_tokens", "model", "0.25", "1", "7u", "'a'", "+", "-", "*", "/", "%", "(", ")", "[", "]",
        "{", "}", "?", ":", ",", ".", "==", "<", "&&", "||", "!", "in", "size", "has", "map", "true", "null", "\"", "b'x'",
        "9223372036854775807", "-9223372036854775808", "18446744073709551615u", "1e308", "matches", "int", "string",
    ]), 0..14)) {
        if let Ok(cost) = CelCost::new(&words.join(" ")) {
            let _ = cost.bound(u64::MAX, u64::MAX, &AT);
            let _ = cost.of(&usage(0, 0, 0, 0, 0), &AT);
        }
    }

    #[test]
    fn any_model_has_a_price_or_none(model in "\\PC{0,40}", suffix in "[-@:v0-9]{0,16}") {
        let prices = Prices::builtin();
        let _ = prices.find(&model);
        let longer = format!("gpt-4o{suffix}");
        prop_assert!(prices.find(&longer).is_none_or(|(name, _)| name.starts_with("gpt-4o")));
    }
}
