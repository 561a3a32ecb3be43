//! Reads JSON objects member by member; every complaint names the place, such as `messages[2].content[0].type`.

use serde_json::{Map, Value};

use crate::provider::{conversation::Cache, error_body::BadRequest};

/// An object and where it stands. Members that are null count as absent.
pub(crate) struct Fields {
    map: Map<String, Value>,
    place: String,
}

impl Fields {
    /// `place`: empty for the body itself.
    pub(crate) fn of(value: Value, place: impl Into<String>) -> Result<Self, BadRequest> {
        let place = place.into();
        match value {
            Value::Object(map) => Ok(Self { map, place }),
            _ => Err(must(place, "must be an object")),
        }
    }

    /// The place of a member.
    pub(crate) fn at(&self, name: &str) -> String {
        if self.place.is_empty() { name.to_owned() } else { format!("{}.{name}", self.place) }
    }

    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.map.get(name).is_some_and(|value| !value.is_null())
    }

    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        self.map.shift_remove(name).filter(|value| !value.is_null())
    }

    pub(crate) fn string(&mut self, name: &str) -> Result<Option<String>, BadRequest> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(name, "must be a string")),
        }
    }

    pub(crate) fn needed(&mut self, name: &str) -> Result<String, BadRequest> {
        match self.string(name)? {
            Some(text) if !text.is_empty() => Ok(text),
            Some(_) => Err(self.wrong(name, "must not be empty")),
            None => Err(self.wrong(name, "is missing: a string")),
        }
    }

    pub(crate) fn flag(&mut self, name: &str) -> Result<Option<bool>, BadRequest> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(_) => Err(self.wrong(name, "must be true or false")),
        }
    }

    pub(crate) fn whole(&mut self, name: &str) -> Result<Option<u64>, BadRequest> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.as_u64() {
            Some(number) => Ok(Some(number)),
            None => Err(self.wrong(name, "must be a whole number that is not negative")),
        }
    }

    pub(crate) fn number(&mut self, name: &str) -> Result<Option<serde_json::Number>, BadRequest> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Number(number)) => Ok(Some(number)),
            Some(_) => Err(self.wrong(name, "must be a number")),
        }
    }

    pub(crate) fn list(&mut self, name: &str) -> Result<Option<Vec<Value>>, BadRequest> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items)),
            Some(_) => Err(self.wrong(name, "must be a list")),
        }
    }

    pub(crate) fn object(&mut self, name: &str) -> Result<Option<Fields>, BadRequest> {
        let place = self.at(name);
        self.take(name).map(|value| Fields::of(value, place)).transpose()
    }

    /// LiteLLM's and OpenRouter's `cache_control`: `{"type": "ephemeral", "ttl": "1h"}`, or OpenAI's own
    /// `prompt_cache_breakpoint`: `{"mode": "explicit", "ttl": "30m"}`.
    pub(crate) fn cache(&mut self) -> Result<Option<Cache>, BadRequest> {
        let own = self.object("prompt_cache_breakpoint")?;
        let Some(mut control) = self.object("cache_control")? else {
            let Some(mut own) = own else { return Ok(None) };
            // OpenAI's lifetimes are the least that is kept; an hour is the longest that others offer.
            let ttl = own.string("ttl")?.map(|_| "1h".to_owned());
            return Ok(Some(Cache { ttl }));
        };
        let kind = control.needed("type")?;
        if kind != "ephemeral" {
            return Err(control.wrong("type", "must be `ephemeral`"));
        }
        Ok(Some(Cache { ttl: control.string("ttl")? }))
    }

    /// What nobody has taken, apart from nulls.
    pub(crate) fn left(self) -> impl Iterator<Item = (String, Value)> {
        let place = self.place;
        self.map.into_iter().filter(|(_, value)| !value.is_null()).map(move |(name, value)| {
            let at = if place.is_empty() { name } else { format!("{place}.{name}") };
            (at, value)
        })
    }

    pub(crate) fn wrong(&self, name: &str, why: &str) -> BadRequest {
        must(self.at(name), why)
    }
}

pub(crate) fn must(place: String, why: &str) -> BadRequest {
    let named = if place.is_empty() { "the body".to_owned() } else { format!("`{place}`") };
    BadRequest::of(place, format!("{named} {why}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn complaints_name_the_place() {
        let mut fields =
            Fields::of(json!({"a": 1, "b": "", "c": null, "d": -1, "e": {"f": []}}), "m[0]").unwrap();
        let mut complaints = vec![
            fields.string("a").unwrap_err(),
            fields.needed("b").unwrap_err(),
            fields.needed("c").unwrap_err(),
            fields.whole("d").unwrap_err(),
        ];
        let mut inner = fields.object("e").unwrap().unwrap();
        complaints.push(inner.flag("f").unwrap_err());
        complaints.extend(Fields::of(json!([]), "").err());
        let texts: Vec<&str> = complaints.iter().map(|complaint| complaint.message.as_str()).collect();
        assert_eq!(
            texts,
            [
                "`m[0].a` must be a string",
                "`m[0].b` must not be empty",
                "`m[0].c` is missing: a string",
                "`m[0].d` must be a whole number that is not negative",
                "`m[0].e.f` must be true or false",
                "the body must be an object",
            ]
        );
    }

    #[test]
    fn cache_marks() {
        let cache = |value: Value| Fields::of(json!({ "cache_control": value }), "").unwrap().cache();
        assert_eq!(cache(Value::Null).unwrap(), None);
        assert_eq!(cache(json!({"type": "ephemeral"})).unwrap(), Some(Cache { ttl: None }));
        let hour = cache(json!({"type": "ephemeral", "ttl": "1h"})).unwrap();
        assert_eq!(hour, Some(Cache { ttl: Some("1h".to_owned()) }));
        let own = json!({"prompt_cache_breakpoint": {"mode": "explicit", "ttl": "30m"}});
        assert_eq!(Fields::of(own, "").unwrap().cache().unwrap().unwrap().ttl.as_deref(), Some("1h"));
        assert_eq!(cache(json!({"type": "x"})).unwrap_err().param.as_deref(), Some("cache_control.type"));
    }
}
