//! A client's request for a chat completion, read into a [`Conversation`].
//!
//! What OpenAI itself would refuse is a [`BadRequest`]. What only OpenAI's API can do is kept in `rest` as not harmless, so
//! that another backend of a route may still serve it.

use serde_json::{Value, json};

use super::{
    fields::{Fields, must},
    messages_in, tools_in,
};
use crate::provider::{
    conversation::{Conversation, Extra, Format, Reasoning},
    error_body::BadRequest,
};

/// Fields without a place in a [`Conversation`], and whether leaving them out does no harm.
const ELSEWHERE: &[(&str, bool)] = &[
    // Sampling is "best effort" with a seed, and the penalties only lean on it: nobody can rely on a certain text.
    ("seed", true),
    ("frequency_penalty", true),
    ("presence_penalty", true),
    // For bookkeeping, speed and price; `verbosity` is a hint.
    ("metadata", true),
    ("store", true),
    ("service_tier", true),
    ("prompt_cache_key", true),
    ("prompt_cache_retention", true),
    ("prompt_cache_options", true),
    ("prediction", true),
    ("verbosity", true),
    ("cache_control", true),
    // These change what is in the answer.
    ("logit_bias", false),
    ("logprobs", false),
    ("top_logprobs", false),
    ("audio", false),
    ("moderation", false),
    ("web_search_options", false),
    // Deprecated; the answer would have to be in their shape too.
    ("functions", false),
    ("function_call", false),
];

pub(crate) fn decode(body: &[u8]) -> Result<Conversation, BadRequest> {
    let value: Value = serde_json::from_slice(body).map_err(|error| BadRequest {
        message: format!("the body is not valid JSON: {error}"),
        param: None,
    })?;
    let mut fields = Fields::of(value, "")?;
    let mut rest = Vec::new();
    let model = fields.needed("model")?;
    let said = messages_in::decode(&mut fields, &mut rest)?;
    let tools = tools_in::decode(&mut fields, &mut rest)?;
    let most = fields.whole("max_tokens")?.max(fields.whole("max_completion_tokens")?);
    let conversation = Conversation {
        model,
        system: said.system,
        turns: said.turns,
        tools: tools.tools,
        tool_choice: tools.choice,
        parallel_tools: fields.flag("parallel_tool_calls")?,
        // The larger one if both are there, as the reservation counts it.
        output_limit: most,
        temperature: fields.number("temperature")?,
        top_p: fields.number("top_p")?,
        top_k: top_k(&mut fields)?,
        stop: stop(&mut fields)?,
        format: format(&mut fields)?,
        reasoning: reasoning(&mut fields, &mut rest)?,
        stream: fields.flag("stream")?.unwrap_or(false),
        user: user(&mut fields)?,
        rest: Vec::new(),
    };
    // Read by the gateway where the stream is encoded.
    fields.object("stream_options")?;
    modalities(&mut fields, &mut rest)?;
    if let Some(n) = fields.whole("n")?.filter(|n| *n != 1) {
        if n == 0 {
            return Err(must("n".to_owned(), "must be at least 1"));
        }
        rest.push(Extra { name: "n".to_owned(), value: n.into(), harmless: false });
    }
    rest.extend(fields.left().filter_map(|(name, value)| elsewhere(name, value)));
    Ok(Conversation { rest, ..conversation })
}

/// Unknown fields count as harmful: nobody can say what they would change.
fn elsewhere(name: String, value: Value) -> Option<Extra> {
    let known = ELSEWHERE.iter().find(|(known, _)| *known == name);
    let harmless = known.is_some_and(|(_, harmless)| *harmless);
    (!says_nothing(&name, &value)).then_some(Extra { name, value, harmless })
}

/// The default, written out, or an empty text or list. An empty object may mean something.
fn says_nothing(name: &str, value: &Value) -> bool {
    match (name, value) {
        (_, Value::String(text)) if text.is_empty() => true,
        (_, Value::Array(items)) if items.is_empty() => true,
        ("store" | "logprobs", Value::Bool(said)) => !said,
        ("frequency_penalty" | "presence_penalty" | "top_logprobs", value) => value.as_f64() == Some(0.0),
        ("logit_bias" | "metadata", Value::Object(members)) => members.is_empty(),
        ("service_tier", value) => value == "auto" || value == "default",
        ("verbosity", value) => value == "medium",
        ("function_call", value) => value == "auto" || value == "none",
        _ => false,
    }
}

/// vLLM's -1 and 0 mean all tokens.
fn top_k(fields: &mut Fields) -> Result<Option<u64>, BadRequest> {
    match fields.take("top_k") {
        None => Ok(None),
        Some(value) => match value.as_i64() {
            Some(-1 | 0) => Ok(None),
            Some(most) if most > 0 => Ok(Some(most.unsigned_abs())),
            _ => Err(fields.wrong("top_k", "must be a whole number")),
        },
    }
}

fn stop(fields: &mut Fields) -> Result<Vec<String>, BadRequest> {
    let items = match fields.take("stop") {
        None => return Ok(Vec::new()),
        Some(Value::String(one)) => vec![Value::String(one)],
        Some(Value::Array(items)) => items,
        Some(_) => return Err(fields.wrong("stop", "must be a string or a list of strings")),
    };
    let texts = items.into_iter().enumerate().map(|(at, item)| match item {
        Value::String(text) => Ok(text),
        _ => Err(must(format!("stop[{at}]"), "must be a string")),
    });
    // An empty one ends nothing.
    texts.filter(|text| !text.as_ref().is_ok_and(String::is_empty)).collect()
}

fn format(fields: &mut Fields) -> Result<Format, BadRequest> {
    let Some(mut format) = fields.object("response_format")? else { return Ok(Format::Text) };
    match format.needed("type")?.as_str() {
        "text" => Ok(Format::Text),
        "json_object" => Ok(Format::Json),
        "json_schema" => {
            let Some(mut schema) = format.object("json_schema")? else {
                return Err(format.wrong("json_schema", "is missing: an object with `name` and `schema`"));
            };
            let name = schema.string("name")?;
            let strict = schema.flag("strict")?;
            // A description is for people: the schema is what holds.
            let Some(Value::Object(of)) = schema.take("schema") else {
                return Err(schema.wrong("schema", "must be an object: a JSON schema"));
            };
            Ok(Format::Schema { name, schema: Value::Object(of), strict })
        }
        _ => Err(format.wrong("type", "must be `text`, `json_object` or `json_schema`")),
    }
}

/// LiteLLM's `thinking` says more than `reasoning_effort` and goes before it.
fn reasoning(fields: &mut Fields, rest: &mut Vec<Extra>) -> Result<Option<Reasoning>, BadRequest> {
    let effort = fields.string("reasoning_effort")?.filter(|word| !word.is_empty());
    let Some(mut thinking) = fields.object("thinking")? else {
        return Ok(effort.map(|word| if word == "none" { Reasoning::Off } else { Reasoning::Effort(word) }));
    };
    if let Some(word) = effort {
        rest.push(Extra { name: "reasoning_effort".to_owned(), value: word.into(), harmless: true });
    }
    match thinking.needed("type")?.as_str() {
        "disabled" => Ok(Some(Reasoning::Off)),
        "adaptive" => Ok(Some(Reasoning::Adaptive)),
        "enabled" => match thinking.whole("budget_tokens")? {
            Some(tokens) => Ok(Some(Reasoning::Budget(tokens))),
            None => Ok(Some(Reasoning::Adaptive)),
        },
        _ => Err(thinking.wrong("type", "must be `enabled`, `adaptive` or `disabled`")),
    }
}

/// `safety_identifier` is the newer name.
fn user(fields: &mut Fields) -> Result<Option<String>, BadRequest> {
    let user = fields.string("user")?;
    Ok(fields.string("safety_identifier")?.or(user).filter(|user| !user.is_empty()))
}

fn modalities(fields: &mut Fields, rest: &mut Vec<Extra>) -> Result<(), BadRequest> {
    let Some(modalities) = fields.list("modalities")? else { return Ok(()) };
    let value = Value::Array(modalities);
    if value != json!(["text"]) && value != json!([]) {
        rest.push(Extra { name: "modalities".to_owned(), value, harmless: false });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::Number;

    use super::*;
    use crate::provider::conversation::{Content, ToolChoice};

    const HI: &str = r#""model":"m","messages":[{"role":"user","content":"hi"}]"#;

    fn with(more: &str) -> Result<Conversation, BadRequest> {
        decode(format!("{{{HI}{more}}}").as_bytes())
    }

    #[test]
    fn an_agents_request() {
        let request = decode(include_bytes!("../../../golden/openai/agent_request.json")).unwrap();
        assert_eq!(request.model, "claude-sonnet-4-5");
        assert_eq!((request.system.len(), request.turns.len(), request.tools.len()), (2, 4, 2));
        assert_eq!(request.tool_choice, Some(ToolChoice::Auto));
        assert_eq!(request.output_limit, Some(2048));
        assert_eq!(request.reasoning, Some(Reasoning::Budget(1024)));
        assert_eq!(request.user.as_deref(), Some("user-42"));
        let kinds: Vec<Vec<&str>> = request
            .turns
            .iter()
            .map(|turn| {
                let kind = |content: &Content| match content {
                    Content::Text(_) => "text",
                    Content::Image { .. } => "image",
                    Content::Document { .. } => "document",
                    Content::ToolUse { .. } => "use",
                    Content::ToolResult { .. } => "result",
                    Content::Thinking { .. } => "thinking",
                    Content::RedactedThinking(_) => "redacted",
                    Content::Refusal(_) => "refusal",
                };
                turn.blocks.iter().map(|block| kind(&block.content)).collect()
            })
            .collect();
        assert_eq!(
            kinds,
            [
                vec!["text", "image", "image", "document"],
                vec!["thinking", "redacted", "text", "use", "use"],
                vec!["result", "result"],
                vec!["text"],
            ]
        );
        assert!(request.system[1].cache.is_some() && request.tools[1].cache.is_some());
        let rest: Vec<(&str, bool)> =
            request.rest.iter().map(|extra| (extra.name.as_str(), extra.harmless)).collect();
        assert_eq!(rest, [("messages[].name", true), ("seed", true), ("metadata", true)]);
    }

    #[test]
    fn fields_that_only_openai_knows() {
        for (more, rest) in [
            (
                r#","n":1,"logprobs":false,"logit_bias":{},"store":false,"service_tier":"auto","seed":null"#,
                vec![],
            ),
            (r#","frequency_penalty":0,"presence_penalty":0.0,"modalities":["text"],"functions":[]"#, vec![]),
            (r#","stream_options":{"include_usage":true},"verbosity":"medium""#, vec![]),
            (r#","n":2"#, vec![("n", false)]),
            (r#","seed":0,"store":true"#, vec![("seed", true), ("store", true)]),
            (
                r#","presence_penalty":1.5,"verbosity":"low""#,
                vec![("presence_penalty", true), ("verbosity", true)],
            ),
            (r#","logprobs":true,"top_logprobs":2"#, vec![("logprobs", false), ("top_logprobs", false)]),
            (r#","logit_bias":{"1":2}"#, vec![("logit_bias", false)]),
            (r#","modalities":["text","audio"],"audio":{}"#, vec![("modalities", false), ("audio", false)]),
            (r#","web_search_options":{}"#, vec![("web_search_options", false)]),
            (r#","functions":[{"name":"f"}]"#, vec![("functions", false)]),
            (r#","best_of_breed":0"#, vec![("best_of_breed", false)]),
        ] {
            let request = with(more).unwrap();
            let found: Vec<_> =
                request.rest.iter().map(|extra| (extra.name.as_str(), extra.harmless)).collect();
            assert_eq!(found, rest, "{more}");
        }
    }

    #[test]
    fn reasoning_in_every_wording() {
        for (more, expected) in [
            ("", None),
            (r#","reasoning_effort":"high""#, Some(Reasoning::Effort("high".to_owned()))),
            (r#","reasoning_effort":"none""#, Some(Reasoning::Off)),
            (r#","thinking":{"type":"enabled","budget_tokens":9}"#, Some(Reasoning::Budget(9))),
            (r#","thinking":{"type":"adaptive"}"#, Some(Reasoning::Adaptive)),
            (r#","thinking":{"type":"disabled"},"reasoning_effort":"low""#, Some(Reasoning::Off)),
        ] {
            assert_eq!(with(more).unwrap().reasoning, expected, "{more}");
        }
    }

    #[test]
    fn plain_fields() {
        let request = with(
            r#","max_tokens":5,"max_completion_tokens":7,"temperature":0.5,"top_p":1,"top_k":40,"stop":"x","stream":true,
            "user":"u","safety_identifier":"s","response_format":{"type":"json_schema","json_schema":{"name":"a","strict":true,
            "schema":{"type":"object"}}}"#,
        )
        .unwrap();
        assert_eq!((request.output_limit, request.top_k, request.stream), (Some(7), Some(40), true));
        assert_eq!((request.temperature, request.top_p), (Number::from_f64(0.5), Some(1.into())));
        assert_eq!((request.stop, request.user.as_deref()), (vec!["x".to_owned()], Some("s")));
        let schema = json!({"type": "object"});
        assert_eq!(request.format, Format::Schema { name: Some("a".to_owned()), schema, strict: Some(true) });
        assert_eq!(with(r#","top_k":-1,"stop":["a","b"]"#).unwrap().stop.len(), 2);
        assert_eq!(with(r#","response_format":{"type":"json_object"}"#).unwrap().format, Format::Json);
    }

    #[test]
    fn bad_fields_are_named() {
        for (more, param) in [
            (r#","n":0"#, "n"),
            (r#","temperature":"hot""#, "temperature"),
            (r#","stop":[1]"#, "stop[0]"),
            (r#","stop":7"#, "stop"),
            (r#","top_k":1.5"#, "top_k"),
            (r#","max_tokens":-1"#, "max_tokens"),
            (r#","response_format":{"type":"xml"}"#, "response_format.type"),
            (r#","response_format":{"type":"json_schema"}"#, "response_format.json_schema"),
            (
                r#","response_format":{"type":"json_schema","json_schema":{"name":"a"}}"#,
                "response_format.json_schema.schema",
            ),
            (r#","thinking":{"type":"deep"}"#, "thinking.type"),
            (r#","stream_options":[]"#, "stream_options"),
            (r#","stream":"yes""#, "stream"),
        ] {
            assert_eq!(with(more).unwrap_err().param.as_deref(), Some(param), "{more}");
        }
        for (body, param) in [
            ("{", None),
            ("[]", Some("")),
            (r#"{"messages":[]}"#, Some("model")),
            (r#"{"model":"m"}"#, Some("messages")),
            (r#"{"model":"m","messages":[]}"#, Some("messages")),
        ] {
            assert_eq!(decode(body.as_bytes()).unwrap_err().param.as_deref(), param, "{body}");
        }
        let deep = format!("{{\"model\":{}1{}}}", "[".repeat(500), "]".repeat(500));
        assert!(decode(deep.as_bytes()).unwrap_err().message.contains("recursion"));
    }
}
