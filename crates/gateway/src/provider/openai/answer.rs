//! A whole chat completion: decoded from a backend, encoded for a client.

use serde_json::{Value, json};

use super::{answered, messages_in::is_object};
use crate::provider::{
    conversation::Content,
    reply::{Context, Garbage, Reply, Stop},
};

/// The first choice; more are never asked for.
pub(crate) fn decode(body: &[u8]) -> Result<Reply, Garbage> {
    let value: Value = serde_json::from_slice(body)
        .map_err(|error| Garbage(format!("the answer is not valid JSON: {error}")))?;
    if value.get("error").is_some_and(|error| !error.is_null()) {
        let error = super::error::decode(500, "", body);
        return Err(Garbage(format!("the answer is an error: {}", error.message)));
    }
    let Some(choice) = answered::list(&value, "choices").first() else {
        return Err(Garbage("the answer has no `choices`".to_owned()));
    };
    let Some(message) = choice.get("message").filter(|message| message.is_object()) else {
        return Err(Garbage("the answer has no `choices[0].message`".to_owned()));
    };
    let id = answered::text(&value, "id");
    let stop = answered::stop(choice).unwrap_or(Stop::End);
    let blocks = blocks(message, id, stop == Stop::Length)?;
    let has = |wanted: fn(&Content) -> bool| blocks.iter().any(wanted);
    let used_tools = has(|block| matches!(block, Content::ToolUse { .. }));
    let refused = has(|block| matches!(block, Content::Refusal(_)));
    Ok(Reply {
        id: id.to_owned(),
        model: answered::text(&value, "model").to_owned(),
        stop: answered::settled(stop, used_tools, refused),
        usage: value.get("usage").and_then(|usage| serde_json::from_value(usage.clone()).ok()),
        blocks,
    })
}

/// `cut`: at the limit of tokens, where the last call may be half a call.
fn blocks(message: &Value, id: &str, cut: bool) -> Result<Vec<Content>, Garbage> {
    let mut blocks = thoughts(message);
    let text = answered::said(message.get("content"));
    if !text.is_empty() {
        blocks.push(Content::Text(text));
    }
    let refusal = answered::text(message, "refusal");
    if !refusal.is_empty() {
        blocks.push(Content::Refusal(refusal.to_owned()));
    }
    let deprecated = message.get("function_call").filter(|call| call.is_object());
    let calls = answered::list(message, "tool_calls");
    let functions = calls.iter().map(|call| (call, call.get("function")));
    let functions = functions.chain(deprecated.map(|function| (&Value::Null, Some(function))));
    for (at, (call, function)) in functions.enumerate() {
        let place = format!("choices[0].message.tool_calls[{at}].function");
        let name = function.map_or("", |function| answered::text(function, "name"));
        if name.is_empty() {
            return Err(Garbage(format!("the answer has no `{place}.name`")));
        }
        let input = function.map(answered::arguments).filter(|text| !text.trim().is_empty());
        let input = input.unwrap_or_else(|| "{}".to_owned());
        // Other broken JSON is the model's: the client's dialect has its way to say so.
        if cut && !is_object(&input) {
            continue;
        }
        let id = match answered::text(call, "id") {
            "" => answered::call_id(id, at),
            id => id.to_owned(),
        };
        blocks.push(Content::ToolUse { id, name: name.to_owned(), input });
    }
    Ok(blocks)
}

/// LiteLLM's `thinking_blocks` hold signatures; the plain text says the same again.
fn thoughts(message: &Value) -> Vec<Content> {
    let signed = answered::list(message, "thinking_blocks").iter().filter_map(|block| {
        match answered::text(block, "type") {
            "redacted_thinking" => Some(Content::RedactedThinking(answered::text(block, "data").to_owned())),
            "thinking" => Some(Content::Thinking {
                text: answered::text(block, "thinking").to_owned(),
                signature: Some(answered::text(block, "signature").to_owned())
                    .filter(|text| !text.is_empty()),
            }),
            _ => None,
        }
    });
    let signed: Vec<Content> = signed.collect();
    let plain = answered::reasoning(message);
    if signed.is_empty() && !plain.is_empty() {
        return vec![Content::Thinking { text: plain.to_owned(), signature: None }];
    }
    signed
}

pub(crate) fn encode(reply: &Reply, context: &Context) -> Vec<u8> {
    let or = |own: &str, other: &str| if own.is_empty() { other.to_owned() } else { own.to_owned() };
    let message = message(&reply.blocks);
    let refused = !message["refusal"].is_null();
    let mut answer = json!({
        "id": or(&reply.id, &context.id),
        "object": "chat.completion",
        "created": context.created,
        "model": or(&reply.model, &context.model),
        "choices": [{
            "index": 0,
            "message": message,
            "logprobs": null,
            "finish_reason": answered::finish_reason(&reply.stop, refused),
        }],
    });
    if let Some(usage) = &reply.usage {
        answer["usage"] = answered::usage(usage);
    }
    answer.to_string().into_bytes()
}

fn message(blocks: &[Content]) -> Value {
    let (mut text, mut refusal, mut plain) = (None, None, None);
    let (mut calls, mut signed) = (Vec::new(), Vec::new());
    let add = |to: &mut Option<String>, more: &str| to.get_or_insert_default().push_str(more);
    for block in blocks {
        match block {
            Content::Text(more) => add(&mut text, more),
            Content::Refusal(more) => add(&mut refusal, more),
            Content::Thinking { text: thought, signature } => {
                add(&mut plain, thought);
                let mut block = json!({"type": "thinking", "thinking": thought});
                if let Some(signature) = signature {
                    block["signature"] = signature.as_str().into();
                }
                signed.push(block);
            }
            Content::RedactedThinking(data) => {
                signed.push(json!({"type": "redacted_thinking", "data": data}))
            }
            Content::ToolUse { id, name, input } => calls.push(json!({
                "id": id, "type": "function", "function": {"name": name, "arguments": input},
            })),
            // No answer holds them.
            Content::Image { .. } | Content::Document { .. } | Content::ToolResult { .. } => {}
        }
    }
    // Clients that look for text only find a string, unless there is something else to look at.
    let text = text.or_else(|| (calls.is_empty() && refusal.is_none()).then(String::new));
    let mut message = json!({"role": "assistant", "content": text, "refusal": refusal, "annotations": []});
    if !calls.is_empty() {
        message["tool_calls"] = calls.into();
    }
    if let Some(plain) = plain {
        message["reasoning_content"] = plain.into();
    }
    if !signed.is_empty() {
        message["thinking_blocks"] = signed.into();
    }
    message
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::provider::usage::Usage;

    fn context() -> Context {
        Context {
            model: "asked".to_owned(),
            id: "chatcmpl-own".to_owned(),
            created: 1_700_000_000,
            usage_asked: false,
        }
    }

    fn owned(text: &str) -> String {
        text.to_owned()
    }

    fn decoded(message: Value, finish: &str) -> Result<Reply, Garbage> {
        decode(
            json!({"id": "chatcmpl-1", "choices": [{"message": message, "finish_reason": finish}]})
                .to_string()
                .as_bytes(),
        )
    }

    #[test]
    fn a_recorded_answer_with_a_tool_call() {
        let reply = decode(include_bytes!("../../../golden/openai/tool_call.json")).unwrap();
        assert_eq!((reply.id.as_str(), reply.model.as_str()), ("chatcmpl-C4GmWI2S", "gpt-5-nano-2025-08-07"));
        let input = owned("{\"location\":\"Boston, MA\",\"unit\":\"fahrenheit\"}");
        let call = Content::ToolUse { id: owned("call_8fxy20OE"), name: owned("get_current_weather"), input };
        assert_eq!((reply.blocks, reply.stop), (vec![call], Stop::ToolUse));
        let usage = Usage { reasoning: 256, ..Usage::of(162, 287) };
        assert_eq!(reply.usage, Some(usage));
    }

    #[test]
    fn answers_of_many_servers() {
        let call =
            |id: &str, input: &str| Content::ToolUse { id: owned(id), name: owned("f"), input: owned(input) };
        let thought = |signature: Option<&str>| Content::Thinking {
            text: owned("hm"),
            signature: signature.map(owned),
        };
        let text = Content::Text(owned("a"));
        for (message, finish, blocks, stop) in [
            (json!({"content": "a"}), "stop", vec![text.clone()], Stop::End),
            (json!({"content": "a"}), "length", vec![text.clone()], Stop::Length),
            (json!({"content": [{"type": "text", "text": "a"}]}), "stop", vec![text.clone()], Stop::End),
            (json!({"content": null}), "content_filter", vec![], Stop::Filtered),
            (
                json!({"content": null, "refusal": "no"}),
                "stop",
                vec![Content::Refusal(owned("no"))],
                Stop::Refusal,
            ),
            (
                json!({"content": "a", "reasoning": "hm"}),
                "stop",
                vec![thought(None), text.clone()],
                Stop::End,
            ),
            (
                json!({"content": "a", "reasoning_content": "hm", "thinking_blocks": [
                    {"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "redacted_thinking", "data": "x"}]}),
                "stop",
                vec![thought(Some("s")), Content::RedactedThinking(owned("x")), text.clone()],
                Stop::End,
            ),
            // A forced call ends with `stop`; an object instead of text; no id.
            (
                json!({"tool_calls": [{"id": "c", "function": {"name": "f", "arguments": ""}},
                    {"function": {"name": "f", "arguments": {"a": 1}}}]}),
                "stop",
                vec![call("c", "{}"), call("call_chatcmpl-1_1", "{\"a\":1}")],
                Stop::ToolUse,
            ),
            (
                json!({"function_call": {"name": "f", "arguments": "{}"}}),
                "function_call",
                vec![call("call_chatcmpl-1_0", "{}")],
                Stop::ToolUse,
            ),
            // Half a call at the limit is no call.
            (
                json!({"content": "a", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{\"a\":"}}]}),
                "length",
                vec![text],
                Stop::Length,
            ),
        ] {
            let reply = decoded(message.clone(), finish).unwrap();
            assert_eq!((reply.blocks, reply.stop), (blocks, stop), "{message}");
        }
    }

    #[test]
    fn garbage_is_named() {
        for (body, part) in [
            ("", "not valid JSON"),
            ("<html>", "not valid JSON"),
            ("[]", "`choices`"),
            (r#"{"choices":[]}"#, "`choices`"),
            (r#"{"choices":[{"text":"a"}]}"#, "choices[0].message"),
            (r#"{"error":{"message":"too busy"}}"#, "too busy"),
            (r#"{"choices":[{"message":{"tool_calls":[{"id":"c"}]}}]}"#, "tool_calls[0].function.name"),
        ] {
            let Garbage(why) = decode(body.as_bytes()).unwrap_err();
            assert!(why.contains(part), "{body}: {why}");
        }
    }

    #[test]
    fn an_encoded_answer_has_all_that_the_sdks_want() {
        let reply = Reply {
            id: String::new(),
            model: String::new(),
            blocks: vec![
                Content::Thinking { text: owned("hm"), signature: Some(owned("s")) },
                Content::Text(owned("a")),
                Content::ToolUse { id: owned("toolu_1"), name: owned("f"), input: owned("{\"a\": 1.0}") },
            ],
            stop: Stop::ToolUse,
            usage: Some(Usage { cached_input: 2, ..Usage::of(5, 7) }),
        };
        let answer: Value = serde_json::from_slice(&encode(&reply, &context())).unwrap();
        assert_eq!(
            answer,
            json!({
                "id": "chatcmpl-own", "object": "chat.completion", "created": 1_700_000_000, "model": "asked",
                "choices": [{"index": 0, "logprobs": null, "finish_reason": "tool_calls", "message": {
                    "role": "assistant", "content": "a", "refusal": null, "annotations": [],
                    "tool_calls": [{"id": "toolu_1", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1.0}"}}],
                    "reasoning_content": "hm",
                    "thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "s"}],
                }}],
                "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12,
                    "prompt_tokens_details": {"cached_tokens": 2, "audio_tokens": 0},
                    "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0,
                        "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0}},
            })
        );
        let silent = Reply { blocks: vec![], stop: Stop::Refusal, usage: None, ..reply };
        let answer: Value = serde_json::from_slice(&encode(&silent, &context())).unwrap();
        assert_eq!(answer["choices"][0]["message"]["content"], "");
        assert_eq!(answer["choices"][0]["finish_reason"], "content_filter");
    }

    fn block() -> impl Strategy<Value = Content> {
        prop_oneof![
            ("[a-z]{1,5}", "[a-z\"]{0,5}").prop_map(|(id, city)| Content::ToolUse {
                id,
                name: owned("f"),
                input: json!({ "city": city }).to_string(),
            }),
            Just(Content::ToolUse { id: owned("c"), name: owned("g"), input: owned("{}") }),
        ]
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded_again(
            thought in proptest::option::of(("[a-zé\"]{1,9}", proptest::option::of("[a-z]{1,4}"))),
            text in proptest::option::of("[a-zé\"\n]{1,12}"),
            calls in proptest::collection::vec(block(), 0..3),
            tokens in (0u64..1000, 0u64..1000),
        ) {
            let mut blocks: Vec<Content> = Vec::new();
            blocks.extend(thought.map(|(text, signature)| Content::Thinking { text, signature }));
            blocks.extend(text.map(Content::Text));
            let stop = if calls.is_empty() { Stop::End } else { Stop::ToolUse };
            blocks.extend(calls);
            let usage = Some(Usage::of(tokens.0, tokens.1));
            let reply = Reply { id: owned("msg_1"), model: owned("m"), blocks, stop, usage };
            prop_assert_eq!(decode(&encode(&reply, &context())).unwrap(), reply);
        }
    }
}
