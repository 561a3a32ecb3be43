//! Whether OpenAI takes a schema under `strict`: closed objects whose members are all required. Anthropic's own `strict`,
//! and its formats, also take optional members; OpenAI refuses those.
//!
//! Source: OpenAI's guide "Structured outputs", "Supported schemas".

use serde_json::Value;

pub(super) fn fits(schema: &Value) -> bool {
    let Some(object) = schema.as_object() else { return false };
    if object.contains_key("allOf") || object.contains_key("oneOf") || object.contains_key("not") {
        return false;
    }
    let named = object.get("properties").and_then(Value::as_object);
    let is_object = named.is_some() || object.get("type").is_some_and(|kind| kind == "object");
    let required = |name: &String| {
        let all = object.get("required").and_then(Value::as_array);
        all.is_some_and(|all| all.iter().any(|one| one == name.as_str()))
    };
    let closed = object.get("additionalProperties") == Some(&Value::Bool(false));
    if is_object && !(closed && named.is_none_or(|named| named.keys().all(required))) {
        return false;
    }
    let below =
        ["properties", "$defs", "definitions"].into_iter().filter_map(|name| object.get(name)?.as_object());
    let several = object.get("anyOf").and_then(Value::as_array);
    below.flat_map(|named| named.values()).all(fits)
        && several.is_none_or(|several| several.iter().all(fits))
        && object.get("items").is_none_or(fits)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn closed_and_all_required() {
        let closed = |properties: Value, required: Value| json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false});
        let text = json!({"type": "string"});
        let inner = closed(json!({ "b": text }), json!([]));
        for (schema, expected) in [
            (closed(json!({}), json!([])), true),
            (closed(json!({ "a": text }), json!(["a"])), true),
            (closed(json!({ "a": text, "b": text }), json!(["a"])), false),
            (json!({"type": "object", "properties": {}}), false),
            (json!({"type": "object"}), false),
            (closed(json!({ "a": inner }), json!(["a"])), false),
            (closed(json!({ "a": {"type": "array", "items": inner} }), json!(["a"])), false),
            (closed(json!({ "a": {"anyOf": [{"type": "null"}, inner]} }), json!(["a"])), false),
            (closed(json!({ "a": {"allOf": [text]} }), json!(["a"])), false),
            (json!(true), false),
        ] {
            assert_eq!(fits(&schema), expected, "{schema}");
        }
    }
}
