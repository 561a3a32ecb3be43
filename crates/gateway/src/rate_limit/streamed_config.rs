//! A configuration of the stream as manifests: the same text that an operator would write.

use prost::Message as _;
use prost_types::value::Kind;
use prost_types::{Any, Struct, Value};
use quorate_rpc::rls_config::{RateLimitConfig, RateLimitDescriptor, RateLimitUnit};
use serde_json::{Map, Value as Json, json};

/// What its domains say of who manages them.
pub(super) const MANAGED_BY: &str = "config-stream";
pub(super) const TYPE_URL: &str = "type.googleapis.com/ratelimit.config.ratelimit.v3.RateLimitConfig";

/// One YAML document for each domain.
///
/// # Errors
/// A resource that is something else, or cannot be read; named by its place.
pub(super) fn manifests(resources: &[Any]) -> Result<String, String> {
    let mut text = String::new();
    for (index, resource) in resources.iter().enumerate() {
        if resource.type_url != TYPE_URL {
            return Err(format!("resources[{index}]: {:?} is not {TYPE_URL}", resource.type_url));
        }
        let config = RateLimitConfig::decode(&resource.value[..])
            .map_err(|error| format!("resources[{index}]: {error}"))?;
        let document = json!({
            "domain": config.domain,
            "managed_by": MANAGED_BY,
            "descriptors": config.descriptors.iter().map(descriptor).collect::<Vec<_>>(),
        });
        // JSON is YAML.
        text.push_str(&format!("---\n{document}\n"));
    }
    Ok(text)
}

fn descriptor(one: &RateLimitDescriptor) -> Json {
    let mut fields = Map::new();
    fields.insert("key".to_owned(), json!(one.key));
    if !one.value.is_empty() {
        fields.insert("value".to_owned(), json!(one.value));
    }
    if let Some(limit) = &one.rate_limit {
        let mut policy = Map::new();
        if limit.unlimited {
            policy.insert("unlimited".to_owned(), json!(true));
        } else {
            policy.insert("requests_per_unit".to_owned(), json!(limit.requests_per_unit));
        }
        if limit.unit() != RateLimitUnit::Unknown {
            policy.insert("unit".to_owned(), json!(limit.unit().as_str_name().to_lowercase()));
        }
        if !limit.name.is_empty() {
            policy.insert("name".to_owned(), json!(limit.name));
        }
        if !limit.replaces.is_empty() {
            let names: Vec<Json> = limit.replaces.iter().map(|one| json!({"name": one.name})).collect();
            policy.insert("replaces".to_owned(), Json::Array(names));
        }
        fields.insert("rate_limit".to_owned(), Json::Object(policy));
    }
    let flags = [
        ("shadow_mode", one.shadow_mode),
        ("quota_mode", one.quota_mode),
        ("detailed_metric", one.detailed_metric),
    ];
    for (name, _) in flags.iter().filter(|(_, set)| *set) {
        fields.insert((*name).to_owned(), json!(true));
    }
    if let Some(metadata) = &one.metadata {
        fields.insert("metadata".to_owned(), object(metadata));
    }
    if !one.descriptors.is_empty() {
        let below = one.descriptors.iter().map(descriptor).collect();
        fields.insert("descriptors".to_owned(), Json::Array(below));
    }
    Json::Object(fields)
}

fn object(fields: &Struct) -> Json {
    Json::Object(fields.fields.iter().map(|(key, value)| (key.clone(), plain(value))).collect())
}

fn plain(value: &Value) -> Json {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Json::Null,
        Some(Kind::BoolValue(flag)) => json!(flag),
        Some(Kind::NumberValue(number)) => json!(number),
        Some(Kind::StringValue(text)) => json!(text),
        Some(Kind::StructValue(fields)) => object(fields),
        Some(Kind::ListValue(list)) => Json::Array(list.values.iter().map(plain).collect()),
    }
}

#[cfg(test)]
mod tests {
    use quorate_policy::manifests::{ManifestSet, Mode, Source};
    use quorate_rpc::rls_config::{RateLimitPolicy, RateLimitReplace};

    use super::*;

    #[test]
    fn every_field_comes_through() {
        let fields = [("tier".to_owned(), Value { kind: Some(Kind::StringValue("gold".to_owned())) })];
        let limit = RateLimitPolicy {
            unit: RateLimitUnit::Week.into(),
            requests_per_unit: 7,
            unlimited: false,
            name: "mine".to_owned(),
            replaces: vec![RateLimitReplace { name: "other".to_owned() }],
        };
        let leaf = RateLimitDescriptor {
            key: "user".to_owned(),
            rate_limit: Some(limit),
            shadow_mode: true,
            quota_mode: true,
            detailed_metric: true,
            metadata: Some(Struct { fields: fields.into_iter().collect() }),
            ..RateLimitDescriptor::default()
        };
        let top = RateLimitDescriptor {
            key: "route".to_owned(),
            value: "a/*".to_owned(),
            descriptors: vec![leaf],
            ..RateLimitDescriptor::default()
        };
        let free = RateLimitDescriptor {
            key: "free".to_owned(),
            rate_limit: Some(RateLimitPolicy { unlimited: true, ..RateLimitPolicy::default() }),
            ..RateLimitDescriptor::default()
        };
        let config = RateLimitConfig {
            name: "x".to_owned(),
            domain: "ns/eg/http".to_owned(),
            descriptors: vec![top, free],
        };
        let resource = Any { type_url: TYPE_URL.to_owned(), value: config.encode_to_vec() };
        let text = manifests(std::slice::from_ref(&resource)).unwrap();
        let source = Source { name: "stream", text: &text };
        let (set, _) = ManifestSet::parse(&[source], Mode::Strict).unwrap();
        let (policy, _) = set.compile().unwrap();
        let domain = policy.domain("ns/eg/http").unwrap();
        let entries = [("route", "a/b"), ("user", "u")];
        let found = domain.find(entries.into_iter()).unwrap();
        assert_eq!((found.limit.requests_per_unit, found.limit.window), (7, quorate_ledger::Window::Week));
        assert!(found.limit.shadow && found.limit.quota && found.limit.detailed_metric);
        assert_eq!(
            (found.limit.name.as_str(), &found.limit.replaces[..]),
            ("mine", &["other".to_owned()][..])
        );
        assert!(found.limit.metadata.is_some());
        assert!(domain.find([("free", "x")].into_iter()).unwrap().budget.is_none());
        let other = Any { type_url: "type.googleapis.com/x".to_owned(), ..resource };
        assert!(manifests(&[other]).unwrap_err().starts_with("resources[0]"));
    }
}
