//! A JSON schema in the subset that Anthropic and Bedrock keep a model to: objects are closed, numbers, texts and lists have
//! no bounds. OpenAI's clients need not close their objects, and put bounds in.
//!
//! Sources: Anthropic's page "Structured outputs" (JSON schema limitations), AWS's page "Get validated JSON results from
//! models". Their SDKs do the same with bounds: the model reads them in the description, and the client checks.

use serde_json::{Map, Value};

/// Bounds that are refused, as they are named where they are left out.
const BOUNDS: [&str; 11] = [
    "schema.exclusiveMaximum",
    "schema.exclusiveMinimum",
    "schema.maxItems",
    "schema.maxLength",
    "schema.maxProperties",
    "schema.maximum",
    "schema.minLength",
    "schema.minProperties",
    "schema.minimum",
    "schema.multipleOf",
    "schema.uniqueItems",
];

/// The schema, and the names of the bounds that are only told in words.
pub(crate) fn closed(schema: &Value) -> (Value, Vec<&'static str>) {
    let (mut schema, mut told) = (schema.clone(), Vec::new());
    close(&mut schema, &mut told);
    told.sort();
    told.dedup();
    (schema, told)
}

fn close(schema: &mut Value, told: &mut Vec<&'static str>) {
    let Some(schema) = schema.as_object_mut() else { return };
    tell(schema, told);
    // One without named members may hold any: closed, it could hold nothing. The provider says that it takes no such schema.
    let has_members =
        schema.get("properties").and_then(Value::as_object).is_some_and(|named| !named.is_empty());
    if has_members && !schema.contains_key("additionalProperties") {
        schema.insert("additionalProperties".to_owned(), false.into());
    }
    for (keyword, below) in schema.iter_mut() {
        match (keyword.as_str(), below) {
            ("properties" | "$defs" | "definitions", Value::Object(named)) => {
                named.values_mut().for_each(|schema| close(schema, told));
            }
            ("anyOf" | "allOf" | "oneOf" | "prefixItems", Value::Array(several)) => {
                several.iter_mut().for_each(|schema| close(schema, told));
            }
            ("items", one) => close(one, told),
            _ => {}
        }
    }
}

/// Bounds become a sentence of the description.
fn tell(schema: &mut Map<String, Value>, told: &mut Vec<&'static str>) {
    let mut bounds: Vec<String> = Vec::new();
    for name in BOUNDS {
        let keyword = name.trim_start_matches("schema.");
        if let Some(bound) = schema.shift_remove(keyword) {
            bounds.push(format!("{keyword} {bound}"));
            told.push(name);
        }
    }
    // None and one are taken.
    if let Some(least) = schema.get("minItems").filter(|least| least.as_u64().is_none_or(|least| least > 1)) {
        bounds.push(format!("minItems {least}"));
        told.push("schema.minItems");
        schema.insert("minItems".to_owned(), 1.into());
    }
    if bounds.is_empty() {
        return;
    }
    let bounds = format!("Must keep: {}.", bounds.join(", "));
    let text = match schema.get("description").and_then(Value::as_str).filter(|text| !text.is_empty()) {
        Some(text) => format!("{text} {bounds}"),
        None => bounds,
    };
    schema.insert("description".to_owned(), text.into());
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_are_closed_and_bounds_told() {
        let schema = json!({
            "type": "object",
            "properties": {
                // Members that are named like keywords.
                "minimum": {"type": "integer", "minimum": 1, "maximum": 9, "description": "How many."},
                "items": {"type": "array", "minItems": 2, "items": {"$ref": "#/$defs/one"}},
                "any": {"type": "object"},
                "map": {"type": "object", "additionalProperties": {"type": "string"}},
                "either": {"anyOf": [{"type": "null"}, {"type": "object", "properties": {"a": {}}}]},
            },
            "$defs": {"one": {"type": "object", "properties": {"b": {"type": "string", "maxLength": 3}}}},
        });
        let (closed, told) = closed(&schema);
        assert_eq!(
            closed,
            json!({
                "type": "object",
                "properties": {
                    "minimum": {"type": "integer", "description": "How many. Must keep: maximum 9, minimum 1."},
                    "items": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/one"}, "description": "Must keep: minItems 2."},
                    "any": {"type": "object"},
                    "map": {"type": "object", "additionalProperties": {"type": "string"}},
                    "either": {"anyOf": [{"type": "null"}, {"type": "object", "properties": {"a": {}}, "additionalProperties": false}]},
                },
                "$defs": {"one": {
                    "type": "object",
                    "properties": {"b": {"type": "string", "description": "Must keep: maxLength 3."}},
                    "additionalProperties": false,
                }},
                "additionalProperties": false,
            })
        );
        assert_eq!(told, ["schema.maxLength", "schema.maximum", "schema.minItems", "schema.minimum"]);
        assert_eq!(super::closed(&closed), (closed.clone(), vec![]));
        assert_eq!(super::closed(&json!(true)), (json!(true), vec![]));
    }
}
