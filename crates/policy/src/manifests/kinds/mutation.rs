//! Changes to requests on their way to a backend: `headerMutation`, `bodyMutation`.

use crate::manifests::reader::{Cursor, Fields};
use crate::manifests::values;
use crate::runtime::{BodyField, BodyMutation, HeaderMutation};

const ENTRIES_MAX: usize = 64;
/// They frame the message or address it; a manifest that changed them would break every request.
const FIXED_HEADERS: [&str; 5] = ["host", "content-length", "transfer-encoding", "connection", "te"];

/// `headerMutation: {set: [{name, value}], remove: [name]}`; absent: none.
pub(crate) fn headers(fields: &Fields<'_>) -> HeaderMutation {
    let mut mutation = HeaderMutation::default();
    let Some(fields) = fields.get("headerMutation").and_then(|mutation| mutation.fields()) else {
        return mutation;
    };
    for at in fields.list("set", ENTRIES_MAX) {
        let Some(entry) = at.fields() else { continue };
        let name = entry.need("name").and_then(|name| changeable(&name));
        let value = entry.need("value").and_then(|value| header_value(&value));
        entry.done();
        if let (Some(name), Some(value)) = (name, value) {
            mutation.set.push((name, value));
        }
    }
    mutation.remove = fields.list("remove", ENTRIES_MAX).iter().filter_map(changeable).collect();
    fields.done();
    mutation
}

/// `bodyMutation: {set: [{path, value}], remove: [path]}`; absent: none. Values are JSON.
pub(crate) fn body(fields: &Fields<'_>) -> BodyMutation {
    let mut mutation = BodyMutation::default();
    let Some(fields) = fields.get("bodyMutation").and_then(|mutation| mutation.fields()) else {
        return mutation;
    };
    for at in fields.list("set", ENTRIES_MAX) {
        let Some(entry) = at.fields() else { continue };
        let name = entry.need("path").and_then(|path| values::name(&path));
        let value = entry.need("value").and_then(|value| value.text());
        entry.done();
        if let (Some(name), Some(value)) = (name, value) {
            mutation.set.push(BodyField { name, value: value.to_owned() });
        }
    }
    mutation.remove = fields.list("remove", ENTRIES_MAX).iter().filter_map(values::name).collect();
    fields.done();
    mutation
}

fn changeable(at: &Cursor<'_>) -> Option<String> {
    let name = values::header_name(at)?;
    if FIXED_HEADERS.contains(&name.as_str()) {
        return at.refuse(format!("header {name} belongs to the connection and cannot be changed"));
    }
    Some(name)
}

fn header_value(at: &Cursor<'_>) -> Option<String> {
    let value = values::match_value(at)?;
    if value.chars().any(|c| c.is_control() && c != '\t') {
        return at.refuse("control characters in a header's value");
    }
    Some(value)
}
