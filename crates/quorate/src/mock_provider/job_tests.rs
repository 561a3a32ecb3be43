//! The shape of every dialect's answers, and what each refuses.

use hyper::body::Bytes;
use serde_json::{Value, json};

use super::behaviour::Behaviour;
use super::dialect::Route;
use super::error::Refusal;
use super::job::Job;
use super::output::{Content, Output};
use super::read;

const SCHEMA: &str = r#"{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}"#;
const CHAT: &str = "/v1/chat/completions";
const AZURE: &str = "/openai/deployments/m/chat/completions";
const RESPONSES: &str = "/v1/responses";
const MESSAGES: &str = "/v1/messages";
const CONVERSE: &str = "/model/m/converse";
const INVOKE: &str = "/model/m/invoke";

fn schema() -> Value {
    serde_json::from_str(SCHEMA).unwrap()
}

fn read_job(path: &str, body: &Value) -> Result<Job, Refusal> {
    let job = Job::read(&Route::of(path).unwrap(), "application/json", &body.to_string().into())?;
    let behaviour = job.behaviour(Behaviour::default())?;
    assert_eq!(behaviour.status(), 200);
    Ok(job)
}

fn output(path: &str, body: &Value) -> Output {
    let job = read_job(path, body).unwrap();
    let behaviour = job.behaviour(Behaviour::default()).unwrap();
    job.output(&behaviour, 2, (0, 0))
}

fn answer(path: &str, body: &Value) -> Value {
    let Content::Whole(bytes) = output(path, body).body else { panic!("a stream") };
    serde_json::from_slice(&bytes).unwrap()
}

fn events(path: &str, body: &Value) -> Vec<(Bytes, u64)> {
    match output(path, body).body {
        Content::Events(events) => events,
        Content::Whole(_) => panic!("no stream"),
    }
}

/// The data of SSE events that are JSON.
fn data(path: &str, body: &Value) -> Vec<Value> {
    let line = |(bytes, _): &(Bytes, u64)| {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let (_, data) = text.trim_end().split_once("data: ").unwrap();
        serde_json::from_str(data).ok()
    };
    events(path, body).iter().filter_map(line).collect()
}

fn message(path: &str, body: &Value) -> String {
    read_job(path, body).expect_err("it was taken").message
}

/// The same question in each dialect.
fn asking(text: &str) -> Vec<(&'static str, Value)> {
    let messages = json!([{"role": "user", "content": text}]);
    vec![
        (CHAT, json!({"model": "m", "messages": messages})),
        (AZURE, json!({"messages": messages})),
        (RESPONSES, json!({"model": "m", "input": text})),
        (MESSAGES, json!({"model": "m", "max_tokens": 99, "messages": messages})),
        (INVOKE, json!({"anthropic_version": "bedrock-2023-05-31", "max_tokens": 99, "messages": messages})),
        (CONVERSE, json!({"messages": [{"role": "user", "content": [{"text": text}]}]})),
    ]
}

fn said(path: &str, answer: &Value) -> Value {
    match path {
        CHAT | AZURE => answer["choices"][0]["message"]["content"].clone(),
        RESPONSES => answer["output"][0]["content"][0]["text"].clone(),
        CONVERSE => answer["output"]["message"]["content"][0]["text"].clone(),
        _ => answer["content"][0]["text"].clone(),
    }
}

#[test]
fn every_dialect_says_the_same() {
    for (text, expected) in
        [("Hello!", "ok ok "), ("count to 3", "1 2 3"), ("refused? no: mock:tokens=3", "ok ok ok ")]
    {
        for (path, body) in asking(text) {
            let answer = answer(path, &body);
            if text.starts_with("refused") {
                // Refusals come first, in each dialect's own way.
                assert_ne!(said(path, &answer), json!(expected), "{path}");
            } else {
                assert_eq!(said(path, &answer), json!(expected), "{path}");
            }
        }
    }
}

#[test]
fn events_carry_the_tokens_that_usage_counts() {
    for text in ["Hello!", "count to 7", "please refuse"] {
        for (path, mut body) in asking(text) {
            let path = match path {
                CONVERSE => "/model/m/converse-stream",
                INVOKE => "/model/m/invoke-with-response-stream",
                path => {
                    body["stream"] = true.into();
                    path
                }
            };
            let output = output(path, &body);
            let Content::Events(events) = &output.body else { panic!("no stream: {path}") };
            let tokens: u64 = events.iter().map(|(_, tokens)| tokens).sum();
            assert_eq!(tokens, output.usage.output, "{path} {text}");
            assert!(tokens > 0);
        }
    }
}

#[test]
fn openai_chat_has_its_shape() {
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "Hello!"}]});
    let usage = json!({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5});
    let choice = json!({"index": 0, "message": {"role": "assistant", "content": "ok ok ", "refusal": null}, "finish_reason": "stop", "logprobs": null});
    assert_eq!(
        answer(CHAT, &body),
        json!({"id": "chatcmpl-mock", "object": "chat.completion", "created": 1_700_000_000, "model": "m", "choices": [choice], "usage": usage})
    );
    let mut streamed = body.clone();
    streamed["stream"] = true.into();
    streamed["stream_options"] = json!({"include_usage": true});
    let events = data(CHAT, &streamed);
    let deltas: Vec<&Value> =
        events.iter().filter_map(|event| event["choices"].get(0)).map(|choice| &choice["delta"]).collect();
    assert_eq!(
        deltas,
        [
            &json!({"role": "assistant", "content": "", "refusal": null}),
            &json!({"content": "ok "}),
            &json!({"content": "ok "}),
            &json!({})
        ]
    );
    assert_eq!(events.last().unwrap()["usage"], usage);
    let filtered = answer(AZURE, &body);
    assert_eq!(filtered["prompt_filter_results"][0]["content_filter_results"]["hate"]["filtered"], false);
}

#[test]
fn metadata_steers_as_before() {
    let body = json!({
        "model": "m", "messages": [{"role": "user", "content": "Hi"}],
        "metadata": {"mock_input_tokens": "10", "mock_tokens": "90", "mock_cached_tokens": "4", "mock_reasoning_tokens": "5"},
    });
    let usage = answer(CHAT, &body)["usage"].clone();
    assert_eq!((usage["prompt_tokens"].as_u64(), usage["completion_tokens"].as_u64()), (Some(10), Some(90)));
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 4);
    assert_eq!(usage["completion_tokens_details"]["reasoning_tokens"], 5);
}

#[test]
fn responses_have_their_events_in_order() {
    let tools = json!([{"type": "function", "name": "get_time", "parameters": schema()}]);
    let body = json!({"model": "m", "input": "call get_time", "tools": tools, "stream": true});
    let events = data(RESPONSES, &body);
    let mut kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    kinds.dedup();
    assert_eq!(
        kinds,
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    let numbers: Vec<u64> = events.iter().map(|event| event["sequence_number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..events.len() as u64).collect::<Vec<_>>());
    let call = &events.last().unwrap()["response"]["output"][0];
    assert_eq!(call["arguments"], "{\"city\":\"Paris\"}");
}

#[test]
fn anthropic_has_its_shape() {
    let tools = json!([{"name": "get_time", "input_schema": schema()}]);
    let body = json!({"model": "m", "max_tokens": 99, "tools": tools, "messages": [{"role": "user", "content": "call get_time"}]});
    let whole = answer(MESSAGES, &body);
    assert_eq!(whole["stop_reason"], "tool_use");
    assert_eq!(
        whole["content"],
        json!([{"type": "tool_use", "id": "toolu_mock_1_0", "name": "get_time", "input": {"city": "Paris"}}])
    );
    let thinking = json!({"type": "enabled", "budget_tokens": 1_024});
    let body = json!({"model": "m", "max_tokens": 2_000, "thinking": thinking, "stream": true, "messages": [{"role": "user", "content": "Hello!"}]});
    let events = data(MESSAGES, &body);
    let mut kinds: Vec<String> = events
        .iter()
        .map(|event| event["delta"]["type"].as_str().or(event["type"].as_str()).unwrap().to_owned())
        .collect();
    kinds.dedup();
    assert_eq!(
        kinds,
        [
            "message_start",
            "ping",
            "content_block_start",
            "thinking_delta",
            "signature_delta",
            "content_block_stop",
            "content_block_start",
            "text_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]
    );
    let usage = &events[events.len() - 2]["usage"];
    assert_eq!((usage["input_tokens"].as_u64(), usage["output_tokens"].as_u64()), (Some(3), Some(4)));
}

#[test]
fn caches_are_counted_apart_from_the_input() {
    let phrase = "mock:input-tokens=100 mock:cached-tokens=60 mock:cache-write-tokens=30";
    let usage = |path: &str, body: &Value| answer(path, body)["usage"].clone();
    for (path, body) in asking(phrase) {
        let usage = usage(path, &body);
        let counts = |names: [&str; 3]| names.map(|name| usage[name].as_u64().unwrap());
        match path {
            CHAT | AZURE => assert_eq!(usage["prompt_tokens"], 100),
            RESPONSES => assert_eq!(usage["input_tokens_details"]["cached_tokens"], 60),
            CONVERSE => assert_eq!(
                counts(["inputTokens", "cacheReadInputTokens", "cacheWriteInputTokens"]),
                [10, 60, 30]
            ),
            _ => assert_eq!(
                counts(["input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"]),
                [10, 60, 30]
            ),
        }
    }
}

#[test]
fn converse_has_its_shape() {
    let tools = json!([{"toolSpec": {"name": "get_time", "inputSchema": {"json": schema()}}}]);
    let body = json!({"toolConfig": {"tools": tools}, "messages": [{"role": "user", "content": [{"text": "call get_time"}]}]});
    let call =
        json!({"toolUse": {"toolUseId": "tooluse_mock_1_0", "name": "get_time", "input": {"city": "Paris"}}});
    let whole = answer(CONVERSE, &body);
    assert_eq!(whole["output"], json!({"message": {"role": "assistant", "content": [call]}}));
    assert_eq!(whole["stopReason"], "tool_use");
}

#[test]
fn the_filter_ends_answers_in_each_dialects_words() {
    for (path, body) in asking("mock:filter") {
        let answer = answer(path, &body);
        let (found, expected) = match path {
            CHAT | AZURE => (&answer["choices"][0]["finish_reason"], "content_filter"),
            RESPONSES => (&answer["incomplete_details"]["reason"], "content_filter"),
            CONVERSE => (&answer["stopReason"], "content_filtered"),
            _ => (&answer["stop_reason"], "refusal"),
        };
        assert_eq!(found, expected, "{path}");
    }
}

#[test]
fn wrong_requests_are_refused_as_the_real_ones_do() {
    let user = json!({"role": "user", "content": "Hi"});
    let anthropic = |messages: Value| json!({"model": "m", "max_tokens": 9, "messages": messages});
    let result =
        json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "x"}]});
    let call =
        json!({"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]});
    let said = |text: &str| json!({"role": "user", "content": [{"text": text}]});
    let unsigned =
        json!({"role": "assistant", "content": [{"type": "thinking", "thinking": "a", "signature": "b"}]});
    let table = [
        (MESSAGES, json!({"model": "m", "messages": [user]}), "max_tokens: Field required"),
        (MESSAGES, anthropic(json!([])), "at least one message"),
        (MESSAGES, anthropic(json!([{"role": "system", "content": "x"}])), "Unexpected role"),
        (
            MESSAGES,
            anthropic(json!([{"role": "user", "content": [{"type": "text", "text": ""}]}])),
            "must be non-empty",
        ),
        (
            MESSAGES,
            anthropic(json!([{"role": "user", "content": "x", "name": "y"}])),
            "messages.0.name: Extra inputs are not permitted",
        ),
        (
            MESSAGES,
            json!({"model": "m", "max_tokens": 9, "messages": [user], "n": 1}),
            "n: Extra inputs are not permitted",
        ),
        (MESSAGES, anthropic(json!([user, result])), "unexpected `tool_use_id`"),
        (MESSAGES, anthropic(json!([user, call, user])), "without `tool_result` blocks"),
        (MESSAGES, anthropic(json!([user, unsigned, user])), "Invalid `signature`"),
        (
            MESSAGES,
            json!({"model": "m", "max_tokens": 9, "messages": [user], "system": vec![json!({"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}); 5]}),
            "maximum of 4 blocks",
        ),
        (INVOKE, json!({"max_tokens": 9, "messages": [user]}), "anthropic_version"),
        (
            INVOKE,
            json!({"anthropic_version": "bedrock-2023-05-31", "model": "m", "max_tokens": 9, "messages": [user]}),
            "model: Extra inputs",
        ),
        (CONVERSE, json!({"messages": [said("a"), said("b")]}), "alternate"),
        (CONVERSE, json!({"messages": [said("")]}), "is blank"),
        (
            CONVERSE,
            json!({"messages": [{"role": "assistant", "content": [{"text": "x"}]}]}),
            "start with a user message",
        ),
        (CONVERSE, json!({"messages": [said("a")], "max_tokens": 1}), "extraneous key [max_tokens]"),
        (
            CONVERSE,
            json!({"messages": [{"role": "user", "content": [{"toolResult": {"toolUseId": "t", "content": [{"text": "x"}]}}]}]}),
            "toolConfig field must be defined",
        ),
        (CONVERSE, json!({"messages": [{"role": "user", "content": "text"}]}), "is empty"),
        (CHAT, json!({"model": "m", "messages": [user], "max_token": 1}), "Unrecognized request argument"),
        (
            CHAT,
            json!({"model": "m", "messages": [{"role": "tool", "tool_call_id": "t", "content": "x"}]}),
            "must be a response",
        ),
        (
            CHAT,
            json!({"model": "m", "messages": [user], "response_format": {"type": "json_object"}}),
            "the word 'json'",
        ),
        (CHAT, json!({"messages": [user]}), "model parameter"),
        (RESPONSES, json!({"model": "m", "input": "x", "messages": []}), "Unknown parameter"),
        (
            RESPONSES,
            json!({"model": "m", "input": [{"type": "function_call_output", "call_id": "t", "output": "x"}]}),
            "No tool call found",
        ),
    ];
    for (path, body, part) in table {
        let message = message(path, &body);
        assert!(message.contains(part), "{path} {body}: {message}");
    }
}

#[test]
fn phrases_that_mean_nothing_are_refused() {
    for (path, body) in asking("mock:sloww=10") {
        let job = Job::read(&Route::of(path).unwrap(), "", &body.to_string().into()).unwrap();
        assert_eq!(job.behaviour(Behaviour::default()).unwrap_err().status, 400);
    }
}

#[test]
fn embeddings_come_as_floats_or_base64() {
    let floats = answer("/v1/embeddings", &json!({"model": "m", "input": ["a", "b"]}));
    assert_eq!(floats["data"][1]["embedding"], json!([0.25, -0.5, 0.125]));
    let coded = answer("/v1/embeddings", &json!({"model": "m", "input": "a", "encoding_format": "base64"}));
    assert_eq!(read::decode(coded["data"][0]["embedding"].as_str().unwrap()).unwrap().len(), 12);
}

proptest::proptest! {
    #[test]
    fn no_body_makes_a_reader_panic(path in 0_usize..6, cut in 0_usize..400, put in "[\\PC\"{}\\[\\]]{0,6}") {
        let (path, body) = asking("call x and mock:slow=2").swap_remove(path);
        let mut text = body.to_string();
        let at = (0..=cut.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.insert_str(at, &put);
        let _ = Job::read(&Route::of(path).unwrap(), "", &text.into());
    }
}
