//! The dynamic metadata of an answer.

use std::collections::BTreeMap;

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use quorate_policy::runtime::Metadata;
use quorate_rpc::rls::RateLimitRequest;

pub(super) fn text(text: impl Into<String>) -> Value {
    Value { kind: Some(Kind::StringValue(text.into())) }
}

fn number(number: f64) -> Value {
    Value { kind: Some(Kind::NumberValue(number)) }
}

fn list(values: Vec<Value>) -> Value {
    Value { kind: Some(Kind::ListValue(ListValue { values })) }
}

fn map(fields: BTreeMap<String, Value>) -> Value {
    Value { kind: Some(Kind::StructValue(Struct { fields })) }
}

pub(super) fn value(metadata: &Metadata) -> Value {
    match metadata {
        Metadata::Null => Value { kind: Some(Kind::NullValue(0)) },
        Metadata::Bool(flag) => Value { kind: Some(Kind::BoolValue(*flag)) },
        Metadata::Number(n) => number(*n),
        Metadata::Text(words) => text(words),
        Metadata::List(items) => list(items.iter().map(value).collect()),
        Metadata::Map(entries) => map(entries.iter().map(|(key, one)| (key.clone(), value(one))).collect()),
    }
}

/// The request, and the metadata of the limits that were kept: of two that say something else of one key, the first
/// counts, and maps are merged.
#[expect(clippy::cast_precision_loss, reason = "JSON has no other numbers, and hits are small")]
pub(super) fn of_request<'a>(
    request: &RateLimitRequest,
    kept: impl Iterator<Item = &'a Metadata>,
) -> BTreeMap<String, Value> {
    let mut fields = BTreeMap::from([("domain".to_owned(), text(&request.domain))]);
    let descriptors = request.descriptors.iter().map(|descriptor| {
        let entries = descriptor.entries.iter().map(|entry| text(format!("{}={}", entry.key, entry.value)));
        let mut fields = BTreeMap::from([("entries".to_owned(), list(entries.collect()))]);
        if let Some(limit) = &descriptor.limit {
            let said =
                format!("requests_per_unit:{} unit:{}", limit.requests_per_unit, limit.unit().as_str_name());
            fields.insert("limit".to_owned(), text(said));
        }
        if let Some(hits) = descriptor.hits_addend {
            fields.insert("hitsAddend".to_owned(), number(hits as f64));
        }
        map(fields)
    });
    fields.insert("descriptors".to_owned(), list(descriptors.collect()));
    if request.hits_addend != 0 {
        fields.insert("hitsAddend".to_owned(), number(request.hits_addend.into()));
    }
    let mut merged = BTreeMap::new();
    for metadata in kept {
        if let Metadata::Map(entries) = metadata {
            merge(&mut merged, entries);
        }
    }
    if !merged.is_empty() {
        fields.insert("metadata".to_owned(), map(merged));
    }
    fields
}

fn merge(into: &mut BTreeMap<String, Value>, from: &BTreeMap<String, Metadata>) {
    for (key, one) in from {
        match (into.get_mut(key).and_then(|known| known.kind.as_mut()), one) {
            (None, _) => drop(into.insert(key.clone(), value(one))),
            (Some(Kind::StructValue(known)), Metadata::Map(more)) => merge(&mut known.fields, more),
            _ => {}
        }
    }
}
