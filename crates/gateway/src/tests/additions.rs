//! Bounds of the input that cover more than the text: what providers add to it, and what translation does.

use crate::{
    estimate,
    provider::{Api, Endpoint, Facts, body_mutation},
    tokenizer::{Overheads, Tokenizer},
};

/// The most input that a request can have at a backend of `api`, with the text in tokens where that is a bound.
fn most(api: Api, model: &str, endpoint: Endpoint, body: &str) -> (u64, u64) {
    let facts = Facts::decode(endpoint, body.as_bytes()).unwrap();
    let tokenizer = Tokenizer::at(api, model);
    let measured = facts.measure(body.as_bytes(), |text| tokenizer.count(text)).unwrap();
    (estimate::input_exact(&facts, Overheads::at(api, model), &measured), facts.input.unbounded)
}

#[test]
fn only_what_speaks_openais_api_counts_like_openais_models() {
    let body = r#"{"messages":[{"role":"user","content":"Hello Hello Hello Hello"}]}"#;
    for model in ["claude-sonnet-4-5", "gpt-4o", "anthropic.claude-opus-4-8"] {
        for api in [Api::Anthropic, Api::InvokeAnthropic, Api::Converse] {
            let (bytes, _) = most(api, model, Endpoint::Chat, body);
            assert!(bytes >= "userHello Hello Hello Hello".len() as u64, "{api:?} {model}: {bytes}");
        }
    }
    assert!(most(Api::OpenAI, "gpt-4o", Endpoint::Chat, body).0 < 15);
    assert!(most(Api::OpenAI, "claude-sonnet-4-5", Endpoint::Messages, body).0 > 26);
}

#[test]
fn the_bound_covers_what_providers_and_translation_add() {
    let tokens = |text: &str| Tokenizer::O200k.count(text);
    let openai = |body: &str| most(Api::OpenAI, "gpt-4o", Endpoint::Messages, body).0;
    // A prompt of its own becomes a message: 3 and a role for each, and 3 for the answer.
    let system = r#"{"system":"Be brief.","messages":[{"role":"user","content":"Hi"}]}"#;
    assert!(openai(system) >= tokens("Be brief.") + tokens("Hi") + 4 * 2 + 3, "{}", openai(system));
    // So does each result of a tool.
    let result = r#"{"type":"tool_result","tool_use_id":"t","is_error":true,"content":""}"#;
    let results = format!(r#"{{"messages":[{{"role":"user","content":[{}]}}]}}"#, [result; 9].join(","));
    assert!(openai(&results) >= 9 * (4 + tokens("Error")) + 3, "{}", openai(&results));
    // What a tool was called with is shown as JSON.
    let input = r#"{"a":"\n\"\n\"\n\"\u0001\u0001"}"#;
    let called = format!(
        r#"{{"messages":[{{"role":"assistant","content":[{{"type":"tool_use","id":"t","name":"f","input":{input}}}]}}]}}"#
    );
    assert!(openai(&called) >= tokens(input) + tokens("f") + 7, "{}", openai(&called));

    let claude = |endpoint, body: &str| most(Api::Converse, "claude", endpoint, body).0;
    // Tools that are only named in the turns are defined by the gateway, and Anthropic adds its prompt.
    assert!(claude(Endpoint::Messages, &called) > 1_000);
    let calls = r#"{"messages":[{"role":"assistant","tool_calls":[{"id":"t","function":{"name":"f","arguments":"{}"}}]}]}"#;
    assert!(
        claude(Endpoint::Chat, calls) > 1_000 && most(Api::OpenAI, "gpt-4o", Endpoint::Chat, calls).0 < 100
    );
    // A prompt that asks for JSON, and the schema by any of its names.
    for (field, least) in [
        (r#""response_format":{"type":"json_object"}"#, 100),
        (r#""output_config":{"format":{"type":"json_schema","schema":{"a":"0123456789"}}}"#, 500),
        (r#""output_format":{"type":"json_schema","schema":{"a":"0123456789"}}"#, 500),
    ] {
        let body = format!(r#"{{"messages":[],{field}}}"#);
        assert!(claude(Endpoint::Messages, &body) > least, "{field}");
    }
    // Tools that the model was trained on cost more than their definition says.
    for kind in ["text_editor_20250124", "bash_20250124", "computer_20250124", "memory_20250818"] {
        let body = format!(r#"{{"messages":[],"tools":[{{"type":"{kind}","name":"x"}}]}}"#);
        let (bound, unbounded) = most(Api::Anthropic, "claude-opus-4", Endpoint::Messages, &body);
        assert!(bound >= 804 + 735 + 499 && unbounded == 0, "{kind}: {bound}");
    }
    assert!(most(Api::Anthropic, "claude", Endpoint::Messages, r#"{"messages":[],"tools":[]}"#).0 > 804);
    // Three times 1,600 for an image, also within a tool's result.
    let image = r#"{"type":"image","source":{"type":"url","url":"u"}}"#;
    let shown = format!(
        r#"{{"messages":[{{"role":"user","content":[{{"type":"tool_result","tool_use_id":"t","content":[{image}]}}]}}]}}"#
    );
    assert!((4_800..10_000).contains(&claude(Endpoint::Messages, &shown)));
    // A summary of all of it is written first.
    let compacts = r#"{"messages":[],"context_management":{"edits":[{"type":"compact_20260112"}]}}"#;
    assert_eq!(most(Api::Anthropic, "claude", Endpoint::Messages, compacts).1, 1);
    let clears = r#"{"messages":[],"context_management":{"edits":[{"type":"clear_tool_uses_20250919"}]}}"#;
    assert_eq!(most(Api::Anthropic, "claude", Endpoint::Messages, clears).1, 0);
}

#[test]
fn a_route_changes_nothing_that_costs_tokens() {
    for field in [
        "max_tokens",
        "max_completion_tokens",
        "messages",
        "system",
        "tools",
        "inferenceConfig",
        "toolConfig",
        "additionalModelRequestFields",
        "output_config",
        "output_format",
        "outputConfig",
        "context_management",
        "mcp_servers",
        "container",
        "stream",
        "stream_options",
        "n",
        "response_format",
    ] {
        assert!(!body_mutation::is_allowed(field), "{field}");
    }
}

#[test]
fn only_max_tokens_limits_a_message() {
    let named = |body: &str| Facts::decode(Endpoint::Messages, body.as_bytes()).unwrap().output_named;
    assert_eq!(named(r#"{"max_tokens":9,"max_completion_tokens":50,"n":3}"#), Some(9));
    assert_eq!(named(r#"{"max_completion_tokens":1,"best_of":2}"#), None);
    let facts = Facts::decode(Endpoint::Messages, br#"{"max_tokens":9,"n":3}"#).unwrap();
    assert_eq!(facts.answers, 1);
}
