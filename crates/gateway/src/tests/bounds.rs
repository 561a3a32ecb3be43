//! Estimates against the tokenizer, for arbitrary requests.

use proptest::prelude::*;

use crate::{
    estimate,
    provider::{Endpoint, Facts, facts},
    tokenizer::{Overheads, Tokenizer},
};

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC{0,80}",
        "[a-z ]{0,200}",
        "[ \\t\\r\\n]{0,40}",
        "(\u{1F600}|é|가|\\\\|\"|\u{0}|<\\|endoftext\\|>){0,30}"
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// The bytes of a body bound the tokens of each of its texts together, whatever is in them.
    #[test]
    fn the_bound_is_never_below_the_exact_count(texts in proptest::collection::vec(text(), 1..5), model in 0usize..3) {
        let model = ["gpt-4o", "gpt-4", "llama"][model];
        let (tokenizer, overheads) = (Tokenizer::for_model(model), Overheads::for_model(model));
        let messages: Vec<serde_json::Value> = texts
            .iter()
            .map(|text| serde_json::json!({"role": "user", "content": [{"type": "text", "text": text}]}))
            .collect();
        let body = serde_json::json!({"model": model, "messages": messages}).to_string();
        let facts = Facts::decode(Endpoint::Chat, body.as_bytes()).unwrap();
        let measured = facts::measure_input(Endpoint::Chat, body.as_bytes(), |text| tokenizer.count(text)).unwrap();
        let exact = estimate::input_exact(&facts, overheads, &measured);
        let bound = estimate::input_bound(&facts, overheads);
        let plain: u64 = texts.iter().map(|text| tokenizer.count(text) + 3).sum();
        prop_assert!(plain <= exact, "{plain} > {exact}");
        prop_assert!(exact <= bound, "{exact} > {bound}");
    }

    /// The same for Responses, with text for input or items, and the instructions beside them.
    #[test]
    fn the_bound_of_a_response_is_never_below_the_exact_count(texts in proptest::collection::vec(text(), 1..5), items: bool) {
        let (model, endpoint) = ("gpt-5", Endpoint::Responses);
        let (tokenizer, overheads) = (Tokenizer::for_model(model), Overheads::for_model(model));
        let items_of = |text: &String| serde_json::json!({"role": "user", "content": [{"type": "input_text", "text": text}]});
        let input = if items { texts.iter().map(items_of).collect() } else { serde_json::json!(texts[0]) };
        let instructions = &texts[texts.len() - 1];
        let body = serde_json::json!({"model": model, "input": input, "instructions": instructions}).to_string();
        let facts = Facts::decode(endpoint, body.as_bytes()).unwrap();
        let measured = facts.measure(body.as_bytes(), |text| tokenizer.count(text)).unwrap();
        let exact = estimate::input_exact(&facts, overheads, &measured);
        let bound = estimate::input_bound(&facts, overheads);
        let shown = if items { &texts[..] } else { &texts[..1] };
        let plain: u64 = shown.iter().chain([instructions]).map(|text| tokenizer.count(text) + 3).sum();
        prop_assert!(plain <= exact, "{plain} > {exact}");
        prop_assert!(exact <= bound, "{exact} > {bound}");
    }

    /// Escapes of any kind change nothing.
    #[test]
    fn a_prompt_is_measured_as_it_reads(text in text()) {
        let body = serde_json::json!({"model": "babbage-002", "prompt": text}).to_string();
        let facts = Facts::decode(Endpoint::Completions, body.as_bytes()).unwrap();
        prop_assert_eq!(facts.input.text, text.len() as u64);
    }
}
