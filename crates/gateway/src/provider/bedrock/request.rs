//! A conversation as a request to Converse or ConverseStream.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Number, Value, json};

use super::{
    content::{Message, Piece, Writer},
    model::{self, Family, Sampling},
    reasoning, tools,
};
use crate::provider::{
    closed_schema::closed,
    conversation::{Conversation, Format, Reasoning, Target, ToolChoice},
    reply::{Outgoing, Unsupported},
};

/// JSON without a schema has no field: the prompt asks for it.
const JSON_PROMPT: &str = "Answer with one JSON object and nothing else: no Markdown, no text around it.";

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    messages: Vec<Message<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    system: Vec<Piece<'a>>,
    #[serde(skip_serializing_if = "Inference::is_empty")]
    inference_config: Inference<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_config: Option<tools::ToolConfig<'a>>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    additional_model_request_fields: Map<String, Value>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    additional_model_response_field_paths: &'static [&'static str],
    #[serde(skip_serializing_if = "Map::is_empty")]
    output_config: Map<String, Value>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    request_metadata: BTreeMap<&'static str, &'a str>,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Inference<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<Number>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stop_sequences: Vec<&'a str>,
}

impl Inference<'_> {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

pub(crate) fn encode(conversation: &Conversation, target: &Target<'_>) -> Result<Outgoing, Unsupported> {
    let family = Family::of(target.model);
    let mut writer = Writer::new(family);
    let mut dropped = foreign(conversation)?;

    let mut system = writer.system(&conversation.system)?;
    let messages = writer.messages(conversation)?;
    let (tool_config, own_choice) = tools::tools(conversation, family, &mut writer)?;

    let limit = conversation.limit(target);
    let thinking = thinking(conversation, family, target.model, limit, &mut writer)?;
    let sampling = if thinking.thinks { Sampling::None } else { Sampling::of(target.model) };
    let inference_config = inference(conversation, limit, sampling, &mut writer)?;
    let mut fields = Map::new();
    for (name, value) in thinking.fields {
        fields.insert(name.to_owned(), value);
    }
    if let Some(choice) = own_choice {
        fields.insert("tool_choice".to_owned(), choice);
    }
    if let Some(top_k) = conversation.top_k {
        match family {
            Family::Anthropic if sampling == Sampling::None => writer.dropped("top_k"),
            Family::Anthropic => drop(fields.insert("top_k".to_owned(), json!(top_k))),
            Family::Nova => drop(fields.insert("inferenceConfig".to_owned(), json!({"topK": top_k}))),
            Family::OpenAi | Family::Other => writer.dropped("top_k"),
        }
    }

    let mut output_config = Map::new();
    if let Some(effort) = thinking.effort {
        output_config.insert("effort".to_owned(), json!(effort));
    }
    match &conversation.format {
        Format::Text => {}
        Format::Json => {
            writer.dropped("response_format");
            system.push(Piece::Text(JSON_PROMPT));
        }
        Format::Schema { name, schema, .. } => {
            let (schema, told) = closed(schema);
            told.into_iter().for_each(|name| writer.dropped(name));
            output_config.insert("textFormat".to_owned(), text_format(name.as_deref(), &schema)?);
        }
    }

    let mut request_metadata = BTreeMap::new();
    if let Some(user) = conversation.user.as_deref().filter(|user| !user.is_empty()) {
        if is_metadata(user) {
            request_metadata.insert("user", user);
        } else {
            writer.dropped("user");
        }
    }
    // Which sequence it was is not among what Converse itself tells.
    let tells_stop = family == Family::Anthropic && !inference_config.stop_sequences.is_empty();
    let body = Body {
        messages,
        system,
        inference_config,
        tool_config,
        additional_model_request_fields: fields,
        additional_model_response_field_paths: if tells_stop { &["/stop_sequence"] } else { &[] },
        output_config,
        request_metadata,
    };
    let body = serde_json::to_vec(&body)
        .map_err(|error| refused("messages", format!("cannot be written: {error}")))?;
    let operation = if conversation.stream { "converse-stream" } else { "converse" };
    dropped.extend(writer.dropped.iter().map(|name| (*name).to_owned()));
    Ok(Outgoing { path: model::path(target.model, operation), body, dropped })
}

/// What only the client's dialect knows: named if it may be left out.
fn foreign(conversation: &Conversation) -> Result<Vec<String>, Unsupported> {
    let mut dropped = Vec::new();
    for extra in &conversation.rest {
        if !extra.harmless {
            let why = "cannot be carried over to Bedrock; leave it out";
            return Err(refused(&extra.name, why.to_owned()));
        }
        dropped.push(extra.name.clone());
    }
    Ok(dropped)
}

fn thinking(
    conversation: &Conversation,
    family: Family,
    model: &str,
    limit: Option<u64>,
    writer: &mut Writer,
) -> Result<reasoning::Plan, Unsupported> {
    let mut asked = conversation.reasoning.as_ref();
    // Claude does not think where it has to use a tool. An effort is only a hint.
    let forced = matches!(conversation.tool_choice, Some(ToolChoice::Any | ToolChoice::Named(_)));
    if family == Family::Anthropic && forced && matches!(asked, Some(Reasoning::Effort(_))) {
        writer.dropped("reasoning_effort");
        asked = None;
    }
    let plan = reasoning::plan(asked, family, model, limit)?;
    if let Some(name) = plan.dropped {
        writer.dropped(name);
    }
    Ok(plan)
}

fn inference<'a>(
    conversation: &'a Conversation,
    limit: Option<u64>,
    sampling: Sampling,
    writer: &mut Writer,
) -> Result<Inference<'a>, Unsupported> {
    if limit == Some(0) {
        return Err(refused("max_tokens", "must be at least 1 on Bedrock".to_owned()));
    }
    // No client can rely on how a model draws: what it does not take is left out. OpenAI's temperatures end at 2.
    let mut sampled = |name: &'static str, value: &Option<Number>, taken: bool| {
        let Some(value) = value else { return Ok(None) };
        if !taken {
            writer.dropped(name);
            return Ok(None);
        }
        let number = value.as_f64().unwrap_or(-1.0);
        if number < 0.0 || (number > 1.0 && name != "temperature") {
            return Err(refused(name, format!("is {value}; Bedrock takes 0 to 1")));
        }
        if number > 1.0 {
            writer.dropped(name);
            return Ok(Some(Number::from(1)));
        }
        Ok(Some(value.clone()))
    };
    let temperature = sampled("temperature", &conversation.temperature, sampling != Sampling::None)?;
    let alone = sampling == Sampling::All || (sampling == Sampling::One && temperature.is_none());
    Ok(Inference {
        max_tokens: limit,
        temperature,
        top_p: sampled("top_p", &conversation.top_p, alone)?,
        stop_sequences: conversation
            .stop
            .iter()
            .map(String::as_str)
            .filter(|stop| !stop.is_empty())
            .collect(),
    })
}

fn text_format(name: Option<&str>, schema: &Value) -> Result<Value, Unsupported> {
    if !schema.is_object() {
        return Err(refused("response_format", "must hold its schema as a JSON object".to_owned()));
    }
    // The schema travels as text.
    let mut definition = Map::new();
    definition.insert("schema".to_owned(), Value::String(schema.to_string()));
    if let Some(name) = name.filter(|name| !name.is_empty()) {
        definition.insert("name".to_owned(), json!(name));
    }
    Ok(json!({"type": "json_schema", "structure": {"jsonSchema": definition}}))
}

/// What a value of `requestMetadata` may hold.
fn is_metadata(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b" _:@$#=/+,-.".contains(&byte);
    text.len() <= 256 && text.bytes().all(allowed)
}

fn refused(param: &str, why: String) -> Unsupported {
    Unsupported { param: param.to_owned(), why }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
