//! Tests of requests: a whole one against golden text, and what each rule of Converse does to one.

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::provider::conversation::{Block, Cache, Content, Extra, Role, Source, Tool, Turn};

const CLAUDE: &str = "us.anthropic.claude-sonnet-4-5-20250929-v1:0";
const LLAMA: &str = "meta.llama3-1-8b-instruct-v1:0";
const NOVA: &str = "amazon.nova-pro-v1:0";

fn text(text: &str) -> Block {
    Content::Text(text.to_owned()).into()
}

fn turn(role: Role, blocks: Vec<Block>) -> Turn {
    Turn { role, blocks }
}

fn cached(content: Content, ttl: Option<&str>) -> Block {
    Block { content, cache: Some(Cache { ttl: ttl.map(str::to_owned) }) }
}

fn image(media_type: &str, data: &str) -> Block {
    let source = Source::Base64 { media_type: media_type.to_owned(), data: data.to_owned() };
    Content::Image { source, detail: None }.into()
}

fn tool_use(id: &str, name: &str, input: &str) -> Block {
    Content::ToolUse { id: id.to_owned(), name: name.to_owned(), input: input.to_owned() }.into()
}

fn result(id: &str, blocks: Vec<Block>, is_error: bool) -> Content {
    Content::ToolResult { id: id.to_owned(), blocks, is_error }
}

fn tool(name: &str, schema: Value) -> Tool {
    Tool { name: name.to_owned(), description: None, schema, strict: None, cache: None }
}

/// The user says "hi".
fn hi() -> Conversation {
    Conversation { turns: vec![turn(Role::User, vec![text("hi")])], ..Conversation::default() }
}

fn encoded(conversation: &Conversation, model: &str) -> (Value, Vec<String>) {
    let outgoing = encode(conversation, &Target { model, output_limit: None }).unwrap();
    (serde_json::from_slice(&outgoing.body).unwrap(), outgoing.dropped)
}

fn refusal(conversation: &Conversation, model: &str) -> String {
    let refused = encode(conversation, &Target { model, output_limit: None }).unwrap_err();
    assert!(refused.why.len() > 20, "{refused}");
    refused.to_string()
}

fn whole() -> Conversation {
    let pdf = Source::Base64 { media_type: "application/pdf".to_owned(), data: "JVBERi0=".to_owned() };
    let document = Content::Document { source: pdf, name: Some("report 2025.pdf".replace(' ', "-")) };
    let weather = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
    let thinking =
        Content::Thinking { text: "A cathedral.".to_owned(), signature: Some("c2lnbmVk".to_owned()) };
    Conversation {
        model: "claude".to_owned(),
        system: vec![cached(Content::Text("Be brief.".to_owned()), None), text(" "), text("Speak German.")],
        turns: vec![
            turn(Role::User, vec![text("What is on the picture, and how is the weather there?")]),
            turn(Role::User, vec![image("image/png", "iVBORw0KGgo="), cached(document, Some("1h"))]),
            turn(
                Role::Assistant,
                vec![
                    thinking.into(),
                    Content::RedactedThinking("aGlkZGVu".to_owned()).into(),
                    text("I look it up."),
                    text("\n"),
                    tool_use("tooluse_1", "get_weather", r#"{"city": "Köln", "days": 1.50}"#),
                    tool_use("tooluse_2", "now", ""),
                ],
            ),
            turn(
                Role::User,
                vec![
                    text("And tomorrow?"),
                    result("tooluse_1", vec![text("rain"), text(""), image("image/jpeg", "/9j/")], false)
                        .into(),
                ],
            ),
            turn(
                Role::User,
                vec![
                    result("tooluse_2", vec![cached(Content::Text("no clock".to_owned()), None)], true)
                        .into(),
                ],
            ),
        ],
        tools: vec![
            Tool {
                description: Some("The weather of a city".to_owned()),
                strict: Some(true),
                ..tool("get_weather", weather)
            },
            Tool {
                cache: Some(Cache { ttl: Some("5m".to_owned()) }),
                ..tool("now", json!({"type": "object"}))
            },
        ],
        tool_choice: Some(ToolChoice::Named("get_weather".to_owned())),
        parallel_tools: Some(false),
        output_limit: Some(8000),
        temperature: Number::from_f64(0.5),
        top_p: Number::from_f64(0.9),
        top_k: Some(40),
        stop: vec!["END".to_owned(), String::new()],
        format: Format::Schema {
            name: Some("weather".to_owned()),
            schema: json!({"type": "object"}),
            strict: None,
        },
        reasoning: None,
        stream: true,
        user: Some("user-17".to_owned()),
        rest: vec![Extra { name: "seed".to_owned(), value: json!(7), harmless: true }],
    }
}

#[test]
fn a_whole_request() {
    let outgoing = encode(&whole(), &Target { model: CLAUDE, output_limit: Some(2000) }).unwrap();
    assert_eq!(outgoing.path, "/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse-stream");
    assert_eq!(outgoing.dropped, ["seed", "top_p"]);
    let body = String::from_utf8(outgoing.body).unwrap();
    // Numbers stay as they were written.
    assert!(body.contains(r#""input":{"city": "Köln", "days": 1.50}"#), "{body}");
    let expected: Value = serde_json::from_str(include_str!("../../../golden/bedrock/request.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), expected);
}

#[test]
fn the_least_request() {
    let (body, dropped) = encoded(&hi(), LLAMA);
    assert_eq!(body, json!({"messages": [{"role": "user", "content": [{"text": "hi"}]}]}));
    assert!(dropped.is_empty());
}

#[test]
fn turns_that_bedrock_does_not_take() {
    let with = |turns| Conversation { turns, ..Conversation::default() };
    let user = |content: Content| with(vec![turn(Role::User, vec![content.into()])]);
    let url = Source::Url("https://example.com/a.png".to_owned());
    for (conversation, says) in [
        (with(vec![]), "user"),
        (with(vec![turn(Role::User, vec![text(" ")])]), "user"),
        (
            with(vec![turn(Role::Assistant, vec![text("a")]), turn(Role::User, vec![text("b")])]),
            "assistant's turn",
        ),
        (user(Content::Image { source: url.clone(), detail: None }), "base64"),
        (user(Content::Document { source: url, name: None }), "base64"),
        (user(result("a", vec![tool_use("a", "b", "{}")], false)), "result"),
        (Conversation { system: vec![image("image/png", "")], ..hi() }, "system"),
        (Conversation { tools: vec![tool("a b", json!({}))], ..hi() }, "`a b`"),
        (Conversation { tools: vec![tool("a", json!(true))], ..hi() }, "schema"),
        (Conversation { output_limit: Some(0), ..hi() }, "max_tokens"),
        (Conversation { temperature: Number::from_f64(-1.5), ..hi() }, "temperature"),
        (Conversation { top_p: Number::from_f64(-0.5), ..hi() }, "top_p"),
        (
            Conversation { format: Format::Schema { name: None, schema: json!(1), strict: None }, ..hi() },
            "response_format",
        ),
        (
            Conversation {
                rest: vec![Extra { name: "logit_bias".to_owned(), value: json!({}), harmless: false }],
                ..hi()
            },
            "`logit_bias`",
        ),
    ] {
        let refused = refusal(&conversation, CLAUDE);
        assert!(refused.contains(says), "{says}: {refused}");
    }
}

#[test]
fn what_other_apis_take_is_made_to_fit() {
    let long = "y".repeat(70);
    let conversation = Conversation {
        turns: vec![
            turn(Role::User, vec![text("a")]),
            turn(Role::Assistant, vec![tool_use("call 1", "get", "{"), tool_use(&long, "get", "")]),
            turn(
                Role::User,
                vec![result("call 1", vec![], false).into(), result(&long, vec![], false).into()],
            ),
            turn(Role::Assistant, vec![text("So: \n")]),
        ],
        tools: vec![tool("get", json!({}))],
        temperature: Number::from_f64(1.5),
        top_k: Some(5),
        ..Conversation::default()
    };
    let (body, dropped) = encoded(&conversation, LLAMA);
    let ids = |message: usize, kind: &str| -> Vec<String> {
        let content = body["messages"][message]["content"].as_array().unwrap();
        content.iter().map(|piece| piece[kind]["toolUseId"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(1, "toolUse"), ["call_1", &"y".repeat(64)]);
    assert_eq!(ids(1, "toolUse"), ids(2, "toolResult"));
    assert_eq!(body["messages"][1]["content"][0]["toolUse"]["input"], json!({"INVALID_JSON": "{"}));
    assert_eq!(body["messages"][1]["content"][1]["toolUse"]["input"], json!({}));
    assert_eq!(body["messages"][3]["content"], json!([{"text": "So:"}]));
    assert_eq!(body["toolConfig"]["tools"][0]["toolSpec"]["inputSchema"]["json"], json!({"type": "object"}));
    assert_eq!(body["inferenceConfig"], json!({"temperature": 1}));
    assert_eq!(dropped, ["temperature", "top_k"]);
}

#[test]
fn what_a_model_does_not_know_is_named() {
    let thought = Content::Thinking { text: "a".to_owned(), signature: None };
    let conversation = Conversation {
        turns: vec![
            turn(Role::User, vec![cached(Content::Text("a".to_owned()), None)]),
            turn(Role::Assistant, vec![thought.into(), text("b")]),
            turn(Role::User, vec![text("c")]),
        ],
        user: Some("someone@example.com; drop".to_owned()),
        format: Format::Json,
        ..Conversation::default()
    };
    let (body, dropped) = encoded(&conversation, LLAMA);
    assert_eq!(dropped, ["cache_control", "thinking", "response_format", "user"]);
    assert_eq!(body["messages"][0]["content"], json!([{"text": "a"}]));
    assert_eq!(body["messages"][1]["content"], json!([{"text": "b"}]));
    assert_eq!(body["system"], json!([{"text": JSON_PROMPT}]));
    let (body, dropped) = encoded(&conversation, NOVA);
    assert!(!dropped.contains(&"cache_control".to_owned()));
    assert_eq!(body["messages"][0]["content"][1], json!({"cachePoint": {"type": "default"}}));
    let (body, _) = encoded(&Conversation { top_k: Some(9), ..hi() }, NOVA);
    assert_eq!(body["additionalModelRequestFields"], json!({"inferenceConfig": {"topK": 9}}));
}

#[test]
fn a_document_never_comes_without_text() {
    let document = || Content::Document { source: Source::Text("a".to_owned()), name: None };
    let sent = |blocks| {
        let conversation = Conversation { turns: vec![turn(Role::User, blocks)], ..Conversation::default() };
        encoded(&conversation, CLAUDE).0["messages"][0]["content"].clone()
    };
    let kinds = |content: Value| -> Vec<String> {
        content
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|piece| piece.as_object().unwrap().keys().cloned())
            .collect()
    };
    assert_eq!(kinds(sent(vec![document().into()])), ["document", "text"]);
    assert_eq!(kinds(sent(vec![cached(document(), None)])), ["document", "text", "cachePoint"]);
    assert_eq!(kinds(sent(vec![document().into(), text("b")])), ["document", "text"]);
    assert_eq!(kinds(sent(vec![text(" "), image("image/png", "a")])), ["image"]);
}

#[test]
fn thinking_takes_no_sampling_and_no_forced_tool() {
    let thinks = Conversation {
        reasoning: Some(Reasoning::Budget(2000)),
        temperature: Number::from_f64(0.5),
        top_p: Number::from_f64(0.5),
        top_k: Some(5),
        output_limit: Some(4000),
        ..hi()
    };
    let (body, dropped) = encoded(&thinks, CLAUDE);
    assert_eq!(body["inferenceConfig"], json!({"maxTokens": 4000}));
    assert_eq!(
        body["additionalModelRequestFields"],
        json!({"thinking": {"type": "enabled", "budget_tokens": 2000}})
    );
    assert_eq!(dropped, ["temperature", "top_p", "top_k"]);

    let effort = Conversation { reasoning: Some(Reasoning::Effort("low".to_owned())), ..hi() };
    let (body, _) = encoded(&effort, "anthropic.claude-opus-4-8");
    assert_eq!(body["outputConfig"], json!({"effort": "low"}));
    assert_eq!(body["additionalModelRequestFields"], json!({"thinking": {"type": "adaptive"}}));

    let tools = vec![tool("now", json!({"type": "object"}))];
    let forced = Conversation { tools, tool_choice: Some(ToolChoice::Any), ..effort };
    let (body, dropped) = encoded(&forced, CLAUDE);
    assert_eq!(dropped, ["reasoning_effort"]);
    assert_eq!(body.get("additionalModelRequestFields"), None);
    assert_eq!(body["toolConfig"]["toolChoice"], json!({"any": {}}));
}

#[test]
fn newer_claudes_take_fewer_sampling_parameters() {
    let both = || Conversation {
        temperature: Number::from_f64(0.5),
        top_p: Number::from_f64(0.5),
        top_k: Some(5),
        ..hi()
    };
    for (conversation, model, sent, left_out) in [
        (
            both(),
            "anthropic.claude-3-7-sonnet-20250219-v1:0",
            json!({"temperature": 0.5, "topP": 0.5}),
            vec![],
        ),
        (both(), CLAUDE, json!({"temperature": 0.5}), vec!["top_p"]),
        (Conversation { temperature: None, ..both() }, CLAUDE, json!({"topP": 0.5}), vec![]),
        (both(), "anthropic.claude-opus-4-8", Value::Null, vec!["temperature", "top_p", "top_k"]),
    ] {
        let (body, dropped) = encoded(&conversation, model);
        assert_eq!(
            (&body["inferenceConfig"], dropped),
            (&sent, left_out.into_iter().map(str::to_owned).collect())
        );
    }
}

#[test]
fn choices_of_tools() {
    let tools = || vec![tool("now", json!({"type": "object"}))];
    let used = vec![
        turn(Role::User, vec![text("a")]),
        turn(Role::Assistant, vec![tool_use("1", "now", "{}")]),
        turn(Role::User, vec![result("1", vec![text("b")], false).into()]),
    ];
    let choice = |choice| Conversation { tools: tools(), tool_choice: choice, ..hi() };
    // Where nothing has to do with tools, leaving them out is "none".
    let (body, dropped) = encoded(&choice(Some(ToolChoice::None)), LLAMA);
    assert_eq!((body.get("toolConfig"), dropped.len()), (None, 0));
    let (body, _) = encoded(&choice(Some(ToolChoice::Auto)), LLAMA);
    assert_eq!(body["toolConfig"].get("toolChoice"), None);

    let none = Conversation { turns: used.clone(), ..choice(Some(ToolChoice::None)) };
    let (body, _) = encoded(&none, CLAUDE);
    assert_eq!(body["additionalModelRequestFields"], json!({"tool_choice": {"type": "none"}}));
    assert_eq!(body["toolConfig"]["tools"].as_array().unwrap().len(), 1);
    assert!(refusal(&none, LLAMA).contains("`tool_choice`"));

    // Tools were used that are no longer defined.
    let undefined = Conversation { turns: used, ..Conversation::default() };
    let (body, _) = encoded(&undefined, CLAUDE);
    assert_eq!(body["additionalModelRequestFields"], json!({"tool_choice": {"type": "none"}}));
    assert_eq!(
        body["toolConfig"]["tools"],
        json!([{"toolSpec": {"name": "now", "inputSchema": {"json": {"type": "object"}}}}])
    );

    let one =
        |choice| Conversation { parallel_tools: Some(false), tools: tools(), tool_choice: choice, ..hi() };
    let (body, _) = encoded(&one(None), CLAUDE);
    assert_eq!(
        body["additionalModelRequestFields"],
        json!({"tool_choice": {"type": "auto", "disable_parallel_tool_use": true}})
    );
    assert!(refusal(&one(None), NOVA).contains("`parallel_tool_calls`"));
    let without_tools = Conversation { parallel_tools: Some(false), ..hi() };
    assert_eq!(encoded(&without_tools, NOVA).0.get("toolConfig"), None);
}

fn any_block() -> impl Strategy<Value = Block> {
    let words = || {
        prop::sample::select(vec![
            "",
            " ",
            "a",
            "get_weather",
            "b c",
            "é",
            "{}",
            "{\"a\":1}",
            "[",
            "image/png",
        ])
    };
    let source = (0..3, words(), words()).prop_map(|(kind, a, b)| match kind {
        0 => Source::Url(a.to_owned()),
        1 => Source::Text(a.to_owned()),
        _ => Source::Base64 { media_type: a.to_owned(), data: b.to_owned() },
    });
    let plain = (0..8, words(), words(), source, any::<bool>()).prop_map(|(kind, a, b, source, set)| {
        let (a, b) = (a.to_owned(), b.to_owned());
        match kind {
            0 | 1 => Content::Text(a),
            2 => Content::Image { source, detail: set.then_some(a) },
            3 => Content::Document { source, name: set.then_some(a) },
            4 => Content::ToolUse { id: "1".to_owned(), name: a, input: b },
            5 => Content::Thinking { text: a, signature: set.then_some(b) },
            6 => Content::RedactedThinking(a),
            _ => Content::Refusal(a),
        }
    });
    let content = (plain, any::<bool>()).prop_map(|(content, wrap)| {
        if wrap && matches!(content, Content::Text(_)) {
            result("1", vec![content.into()], true)
        } else {
            content
        }
    });
    (content, any::<bool>()).prop_map(|(content, cache)| Block { content, cache: cache.then(Cache::default) })
}

proptest! {
    /// Whatever is not refused keeps the rules of Converse.
    #[test]
    fn any_conversation(
        turns in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any_block(), 0..4)), 0..5),
        model in prop::sample::select(vec![CLAUDE, LLAMA, NOVA]),
        limit in prop::option::of(0u64..5000),
        reasoning in prop::option::of(prop::sample::select(vec![
            Reasoning::Off, Reasoning::Adaptive, Reasoning::Budget(3000), Reasoning::Effort("low".to_owned()),
        ])),
    ) {
        let turns = turns.into_iter().map(|(user, blocks)| {
            turn(if user { Role::User } else { Role::Assistant }, blocks)
        });
        let conversation = Conversation { turns: turns.collect(), output_limit: limit, reasoning, ..Conversation::default() };
        let Ok(outgoing) = encode(&conversation, &Target { model, output_limit: None }) else { return Ok(()) };
        let body: Value = serde_json::from_slice(&outgoing.body).unwrap();
        for (at, message) in body["messages"].as_array().unwrap().iter().enumerate() {
            prop_assert_eq!(&message["role"], if at % 2 == 0 { "user" } else { "assistant" });
            let content = message["content"].as_array().unwrap();
            prop_assert!(!content.is_empty());
            for piece in content {
                prop_assert_eq!(piece.as_object().unwrap().len(), 1);
                let blank = piece.get("text").is_some_and(|text| text.as_str().unwrap().trim().is_empty());
                prop_assert!(!blank);
            }
        }
        let budget = &body["additionalModelRequestFields"]["thinking"]["budget_tokens"];
        if let (Some(budget), Some(limit)) = (budget.as_u64(), limit) {
            prop_assert!((1024..limit).contains(&budget));
        }
    }
}
