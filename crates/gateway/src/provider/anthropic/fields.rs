//! The fields of a JSON object in a request, taken out one by one, with errors that name the place. What nobody took is
//! left over, so that no field goes unnoticed.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::{Value, value::RawValue};

use crate::provider::error_body::BadRequest;

#[derive(Debug)]
pub(super) struct Fields<'a> {
    /// Where the object is, empty for the whole body: `messages[2].content[0]`.
    at: String,
    fields: BTreeMap<String, &'a RawValue>,
}

pub(super) fn wrong(at: &str, must: &str) -> BadRequest {
    BadRequest::of(at.to_owned(), format!("`{at}` {must}"))
}

impl<'a> Fields<'a> {
    pub(super) fn of_body(body: &'a [u8]) -> Result<Self, BadRequest> {
        let fields = serde_json::from_slice(body).map_err(|error| BadRequest {
            message: format!("the request body is not a JSON object: {error}"),
            param: None,
        })?;
        Ok(Self { at: String::new(), fields })
    }

    pub(super) fn of(at: String, raw: &'a RawValue) -> Result<Self, BadRequest> {
        match serde_json::from_str(raw.get()) {
            Ok(fields) => Ok(Self { at, fields }),
            Err(_) => Err(wrong(&at, "must be an object")),
        }
    }

    /// A list of objects, each with its place in it.
    pub(super) fn list_of(at: &str, raw: &'a RawValue) -> Result<Vec<Self>, BadRequest> {
        let place = |index| format!("{at}[{index}]");
        // In one go: each look at a list reads all of it, which may be a megabyte.
        if let Ok(objects) = serde_json::from_str::<Vec<BTreeMap<String, &'a RawValue>>>(raw.get()) {
            let fields = |(index, fields)| Self { at: place(index), fields };
            return Ok(objects.into_iter().enumerate().map(fields).collect());
        }
        let elements: Vec<&RawValue> =
            serde_json::from_str(raw.get()).map_err(|_| wrong(at, "must be a list"))?;
        elements.into_iter().enumerate().map(|(index, raw)| Self::of(place(index), raw)).collect()
    }

    pub(super) fn place(&self, name: &str) -> String {
        if self.at.is_empty() { name.to_owned() } else { format!("{}.{name}", self.at) }
    }

    /// `None` for null, which says nothing.
    pub(super) fn take(&mut self, name: &str) -> Option<&'a RawValue> {
        self.fields.remove(name).filter(|raw| raw.get() != "null")
    }

    fn read<T: DeserializeOwned>(&mut self, name: &str, what: &str) -> Result<Option<T>, BadRequest> {
        let Some(raw) = self.take(name) else { return Ok(None) };
        match serde_json::from_str(raw.get()) {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(wrong(&self.place(name), &format!("must be {what}"))),
        }
    }

    pub(super) fn needed<T>(&self, name: &str, value: Option<T>) -> Result<T, BadRequest> {
        value.ok_or_else(|| wrong(&self.place(name), "is missing"))
    }

    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, BadRequest> {
        self.read(name, "a string")
    }

    pub(super) fn needed_text(&mut self, name: &str) -> Result<String, BadRequest> {
        let text = self.text(name)?;
        self.needed(name, text)
    }

    pub(super) fn flag(&mut self, name: &str) -> Result<Option<bool>, BadRequest> {
        self.read(name, "true or false")
    }

    pub(super) fn whole(&mut self, name: &str) -> Result<Option<u64>, BadRequest> {
        self.read(name, "a whole number, 0 or more")
    }

    pub(super) fn number(&mut self, name: &str) -> Result<Option<serde_json::Number>, BadRequest> {
        self.read(name, "a number")
    }

    pub(super) fn texts(&mut self, name: &str) -> Result<Option<Vec<String>>, BadRequest> {
        self.read(name, "a list of strings")
    }

    /// An object that is kept as it is.
    pub(super) fn object(&mut self, name: &str) -> Result<Option<Value>, BadRequest> {
        let object: Option<serde_json::Map<String, Value>> = self.read(name, "an object")?;
        Ok(object.map(Value::Object))
    }

    pub(super) fn nested(&mut self, name: &str) -> Result<Option<Self>, BadRequest> {
        let at = self.place(name);
        self.take(name).map(|raw| Self::of(at, raw)).transpose()
    }

    /// What was not taken, less nulls. Its text was checked, so only extreme nesting is no value.
    pub(super) fn rest(self) -> Result<Vec<(String, Value)>, BadRequest> {
        let mut rest = Vec::new();
        for (name, raw) in &self.fields {
            let at = self.place(name);
            let value: Value = serde_json::from_str(raw.get()).map_err(|_| wrong(&at, "cannot be read"))?;
            if !value.is_null() {
                rest.push((at, value));
            }
        }
        Ok(rest)
    }
}

/// The string, where this is one.
pub(super) fn string(at: &str, raw: &RawValue) -> Result<Option<String>, BadRequest> {
    if !raw.get().starts_with('"') {
        return Ok(None);
    }
    serde_json::from_str(raw.get()).map(Some).map_err(|_| wrong(at, "is not a valid string"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_objects_names_what_is_none() {
        let list = |json: &str| {
            let raw = serde_json::value::to_raw_value(&serde_json::from_str::<Value>(json).unwrap()).unwrap();
            let fields = Fields::list_of("messages", &raw).map_err(|bad| bad.message)?;
            Ok::<_, String>(fields.into_iter().map(|fields| fields.place("role")).collect::<Vec<_>>())
        };
        assert_eq!(list(r#"[{"role": "user"}, {}]"#).unwrap(), ["messages[0].role", "messages[1].role"]);
        assert!(list("[]").unwrap().is_empty());
        assert_eq!(list(r#"[{}, "hi", {}]"#).unwrap_err(), "`messages[1]` must be an object");
        assert_eq!(list(r#"{"role": "user"}"#).unwrap_err(), "`messages` must be a list");
    }
}
