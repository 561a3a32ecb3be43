//! `tools` and `tool_choice` of a client's request.

use serde_json::{Value, json};

use super::{
    fields::{Fields, must},
    messages_in::harmful,
};
use crate::provider::{
    conversation::{Extra, Tool, ToolChoice},
    error_body::BadRequest,
};

#[derive(Debug, Default)]
pub(crate) struct Tools {
    pub(crate) tools: Vec<Tool>,
    pub(crate) choice: Option<ToolChoice>,
}

pub(crate) fn decode(fields: &mut Fields, rest: &mut Vec<Extra>) -> Result<Tools, BadRequest> {
    let mut tools = Vec::new();
    let listed = fields.list("tools")?.unwrap_or_default();
    let none = listed.is_empty();
    for (at, value) in listed.into_iter().enumerate() {
        tools.extend(tool(Fields::of(value, format!("tools[{at}]"))?, rest)?);
    }
    let mut tools = Tools { tools, choice: None };
    match fields.take("tool_choice") {
        // Without tools it can only say what is so anyway.
        Some(Value::String(word)) if none && matches!(word.as_str(), "auto" | "none") => {}
        Some(_) if none => return Err(must("tool_choice".to_owned(), "needs `tools`")),
        Some(value) => choose(value, &mut tools, rest)?,
        None => {}
    }
    Ok(tools)
}

/// `None`: a custom tool or a provider's own; it is in `rest`.
fn tool(mut tool: Fields, rest: &mut Vec<Extra>) -> Result<Option<Tool>, BadRequest> {
    let kind = tool.needed("type")?;
    if kind != "function" {
        rest.push(harmful(tool.place().to_owned(), kind.into()));
        return Ok(None);
    }
    let cache = tool.cache()?;
    let Some(mut function) = tool.object("function")? else {
        return Err(
            tool.wrong("function", "is missing: an object with `name`, `description` and `parameters`")
        );
    };
    let cache = function.cache()?.or(cache);
    let schema = match function.take("parameters") {
        None => json!({"type": "object", "properties": {}}),
        Some(Value::Object(schema)) => Value::Object(schema),
        Some(_) => return Err(function.wrong("parameters", "must be an object: a JSON schema")),
    };
    let read = Tool {
        name: function.needed("name")?,
        description: function.string("description")?,
        schema,
        strict: function.flag("strict")?,
        cache,
    };
    rest.extend(tool.left().chain(function.left()).map(|(place, value)| harmful(place, value)));
    Ok(Some(read))
}

fn choose(value: Value, tools: &mut Tools, rest: &mut Vec<Extra>) -> Result<(), BadRequest> {
    let mut choice = match value {
        Value::String(word) => {
            tools.choice = Some(match word.as_str() {
                "auto" => ToolChoice::Auto,
                "none" => ToolChoice::None,
                "required" => ToolChoice::Any,
                _ => {
                    return Err(must(
                        "tool_choice".to_owned(),
                        "must be `auto`, `none`, `required` or an object",
                    ));
                }
            });
            return Ok(());
        }
        value => Fields::of(value, "tool_choice")?,
    };
    match choice.needed("type")?.as_str() {
        "function" => tools.choice = Some(ToolChoice::Named(function_name(&mut choice, tools)?)),
        "allowed_tools" => allowed(&mut choice, tools)?,
        kind => rest.push(harmful("tool_choice".to_owned(), kind.into())),
    }
    Ok(())
}

fn function_name(choice: &mut Fields, tools: &Tools) -> Result<String, BadRequest> {
    let Some(mut function) = choice.object("function")? else {
        return Err(choice.wrong("function", "is missing: an object with `name`"));
    };
    let name = function.needed("name")?;
    if !tools.tools.iter().any(|tool| tool.name == name) {
        return Err(function.wrong("name", "is not among `tools`"));
    }
    Ok(name)
}

/// Other dialects cannot hide tools that they are given: the others are not given to them.
fn allowed(choice: &mut Fields, tools: &mut Tools) -> Result<(), BadRequest> {
    let Some(mut allowed) = choice.object("allowed_tools")? else {
        return Err(choice.wrong("allowed_tools", "is missing: an object with `mode` and `tools`"));
    };
    let mode = match allowed.needed("mode")?.as_str() {
        "auto" => ToolChoice::Auto,
        "required" => ToolChoice::Any,
        _ => return Err(allowed.wrong("mode", "must be `auto` or `required`")),
    };
    let place = allowed.at("tools");
    let listed = allowed.list("tools")?.unwrap_or_default();
    if listed.is_empty() {
        return Err(must(place, "must name at least one tool"));
    }
    let names = listed
        .into_iter()
        .enumerate()
        .map(|(at, value)| function_name(&mut Fields::of(value, format!("{place}[{at}]"))?, tools));
    let names: Vec<String> = names.collect::<Result<_, _>>()?;
    tools.tools.retain(|tool| names.contains(&tool.name));
    tools.choice = Some(mode);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: Value) -> Result<(Tools, Vec<Extra>), BadRequest> {
        let mut rest = Vec::new();
        Ok((decode(&mut Fields::of(body, "")?, &mut rest)?, rest))
    }

    fn two() -> Value {
        json!([
            {"type": "function", "function": {"name": "a"}},
            {"type": "function", "function": {"name": "b", "description": "B", "strict": true,
                "parameters": {"type": "object"}}, "cache_control": {"type": "ephemeral"}},
        ])
    }

    #[test]
    fn functions() {
        let (tools, rest) = read(json!({ "tools": two() })).unwrap();
        assert_eq!(
            (tools.tools[0].schema.clone(), rest),
            (json!({"type": "object", "properties": {}}), vec![])
        );
        assert_eq!((tools.tools[1].strict, tools.tools[1].cache.is_some()), (Some(true), true));
        let custom =
            json!({"tools": [{"type": "custom", "custom": {"name": "c"}}], "tool_choice": "required"});
        assert_eq!(read(custom).unwrap().1[0].name, "tools[0]");
    }

    #[test]
    fn choices() {
        let named = json!({"type": "function", "function": {"name": "b"}});
        let allowed =
            json!({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [named]}});
        for (choice, expected, left) in [
            (json!("auto"), ToolChoice::Auto, 2),
            (json!("none"), ToolChoice::None, 2),
            (json!("required"), ToolChoice::Any, 2),
            (named.clone(), ToolChoice::Named("b".to_owned()), 2),
            (allowed.clone(), ToolChoice::Any, 1),
        ] {
            let (tools, _) = read(json!({"tools": two(), "tool_choice": choice})).unwrap();
            assert_eq!((tools.choice, tools.tools.len()), (Some(expected), left), "{choice}");
        }
        assert_eq!(read(json!({"tools": [], "tool_choice": "auto"})).unwrap().0.choice, None);
        let custom = read(json!({"tools": two(), "tool_choice": {"type": "custom", "custom": {}}})).unwrap();
        assert_eq!(custom.1[0].name, "tool_choice");
    }

    #[test]
    fn bad_tools_are_named() {
        for (body, param) in [
            (json!({"tools": {}}), "tools"),
            (json!({"tools": [{"function": {"name": "a"}}]}), "tools[0].type"),
            (json!({"tools": [{"type": "function"}]}), "tools[0].function"),
            (json!({"tools": [{"type": "function", "function": {}}]}), "tools[0].function.name"),
            (
                json!({"tools": [{"type": "function", "function": {"name": "a", "parameters": 1}}]}),
                "tools[0].function.parameters",
            ),
            (json!({"tool_choice": "required"}), "tool_choice"),
            (json!({"tools": two(), "tool_choice": "maybe"}), "tool_choice"),
            (json!({"tools": two(), "tool_choice": {"type": "function"}}), "tool_choice.function"),
            (
                json!({"tools": two(), "tool_choice": {"type": "function", "function": {"name": "z"}}}),
                "tool_choice.function.name",
            ),
            (
                json!({"tools": two(), "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto"}}}),
                "tool_choice.allowed_tools.tools",
            ),
        ] {
            assert_eq!(read(body.clone()).unwrap_err().param.as_deref(), Some(param), "{body}");
        }
    }
}
