//! A value that fits a JSON schema, always the same one. Not a validator.

use serde_json::{Map, Value, json};

const DEPTH_MAX: usize = 24;

/// A value for `schema`; `name` is the property's, which decides what a text says.
pub(super) fn example(schema: &Value, name: &str) -> Value {
    fill(schema, schema, name, DEPTH_MAX)
}

fn fill(root: &Value, schema: &Value, name: &str, depth: usize) -> Value {
    let Some(depth) = depth.checked_sub(1) else { return Value::Null };
    if let Some(place) = schema["$ref"].as_str().and_then(|place| place.strip_prefix('#')) {
        return root.pointer(place).map_or(Value::Null, |target| fill(root, target, name, depth));
    }
    if let Some(value) = schema.get("const") {
        return value.clone();
    }
    if let Some(value) = schema["enum"].get(0) {
        return value.clone();
    }
    for choice in ["anyOf", "oneOf", "allOf"] {
        if let Some(first) = schema[choice].get(0) {
            return fill(root, first, name, depth);
        }
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds.first().and_then(Value::as_str),
        kind => kind.as_str(),
    };
    match kind {
        Some("string") => text(schema, name).into(),
        Some("integer") => schema["minimum"].as_i64().unwrap_or(1).into(),
        Some("number") => schema["minimum"].as_f64().unwrap_or(1.5).into(),
        Some("boolean") => true.into(),
        Some("null") => Value::Null,
        Some("array") => {
            let count = schema["minItems"].as_u64().unwrap_or(1).clamp(1, 16);
            (0..count).map(|_| fill(root, &schema["items"], name, depth)).collect()
        }
        Some(_) => object(root, schema, depth),
        None if schema["properties"].is_object() => object(root, schema, depth),
        None => json!("ok"),
    }
}

/// The required properties, or all where none is.
fn object(root: &Value, schema: &Value, depth: usize) -> Value {
    let empty = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&empty);
    let required = schema["required"].as_array().filter(|required| !required.is_empty());
    let wanted = |name: &str| required.is_none_or(|required| required.iter().any(|one| one == name));
    let filled = properties
        .iter()
        .filter(|(name, _)| wanted(name))
        .map(|(name, schema)| (name.clone(), fill(root, schema, name, depth)));
    Value::Object(filled.collect())
}

fn text(schema: &Value, name: &str) -> String {
    let known = match schema["format"].as_str().unwrap_or(name) {
        "city" | "location" => "Paris",
        "country" => "France",
        "date" => "2026-01-31",
        "date-time" => "2026-01-31T12:00:00Z",
        "email" => "alice@example.com",
        "uri" | "url" => "https://example.com/",
        "name" => "Alice",
        _ => "ok",
    };
    let least = schema["minLength"].as_u64().unwrap_or(0).min(1_000);
    let mut text = known.to_owned();
    while (text.len() as u64) < least {
        text.push('x');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_fit_their_schemas() {
        let table = [
            (
                json!({"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]}),
                json!({"city": "Paris"}),
            ),
            (
                json!({"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 3}}}),
                json!({"city": "Paris", "days": 3}),
            ),
            (json!({"type": "array", "minItems": 2, "items": {"enum": ["a", "b"]}}), json!(["a", "a"])),
            (json!({"anyOf": [{"type": "boolean"}, {"type": "null"}]}), json!(true)),
            (json!({"type": ["number", "null"]}), json!(1.5)),
            (
                json!({"$defs": {"x": {"const": 7}}, "properties": {"y": {"$ref": "#/$defs/x"}}}),
                json!({"y": 7}),
            ),
            (json!({"type": "string", "minLength": 4}), json!("okxx")),
            (json!({"type": "object"}), json!({})),
            (json!({}), json!("ok")),
            (json!(null), json!("ok")),
        ];
        for (schema, expected) in table {
            assert_eq!(example(&schema, ""), expected, "{schema}");
        }
    }

    #[test]
    fn a_schema_that_names_itself_ends() {
        let schema = json!({"properties": {"next": {"$ref": "#"}}});
        assert!(example(&schema, "").is_object());
    }
}
