//! From documents to objects: head, metadata, spec, canonical text.

use std::collections::BTreeMap;

use crate::manifests::kind::{Kind, neighbour};
use crate::manifests::kinds::{
    AiBackend, AiGatewayRoute, AiServiceBackend, BudgetSpec, EndpointBackend, GatewayConfig, IdentitySpec,
    ModelPrices, QuotaPolicy, RateLimitConfig, RequestCosts, SecurityPolicy, TlsPolicy, TrafficPolicy,
};
use crate::manifests::object::{DEFAULT_NAMESPACE, Object, ObjectKey, Origin, Spec};
use crate::manifests::reader::{Cursor, Fields};
use crate::manifests::report::Report;
use crate::manifests::values;
use crate::manifests::yaml::{Entry, Node, Scalar, Value, emit};

/// What kubectl adds to an object that it shows.
const SERVER_METADATA: [&str; 8] = [
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "managedFields",
    "selfLink",
    "finalizers",
    "ownerReferences",
];
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const LIST_ITEMS_MAX: usize = 20_000;

/// The objects of one document: one, those of a `kind: List`, or none (a neighbour of Kubernetes, a mistake).
pub(crate) fn read_document(document: &Node, report: &Report<'_>, objects: &mut Vec<Object>) {
    report.about("");
    let at = Cursor::new(document, report);
    if document.get("kind").and_then(Node::text) == Some("List") {
        let Some(fields) = at.fields() else { return };
        for name in ["apiVersion", "kind", "metadata"] {
            fields.get(name);
        }
        for item in fields.list("items", LIST_ITEMS_MAX) {
            objects.extend(read_object(item.node(), report));
        }
        fields.done();
    } else if RateLimitConfig::is_one(document) {
        objects.extend(read_headless(document, report));
    } else {
        objects.extend(read_object(document, report));
    }
}

/// A domain of Envoy's rate limit service is its own name.
fn read_headless(document: &Node, report: &Report<'_>) -> Option<Object> {
    let mistakes = report.mistakes();
    let kind = Kind::RateLimitConfig;
    let domain = document.get("domain").and_then(Node::text).unwrap_or_default();
    let name = domain.to_owned();
    let key = ObjectKey { kind, namespace: DEFAULT_NAMESPACE.to_owned(), name };
    report.about(&key.to_string());
    let config = RateLimitConfig::read(&Cursor::new(document, report));
    report.about("");
    if report.mistakes() > mistakes {
        return None;
    }
    Some(Object {
        key,
        api_version: kind.api_versions().pop()?,
        labels: BTreeMap::new(),
        spec: Spec::RateLimits(config?),
        yaml: canonical(document, kind),
        origin: Origin { file: report.source().to_owned(), line: document.at.line },
    })
}

fn read_object(document: &Node, report: &Report<'_>) -> Option<Object> {
    let at = Cursor::new(document, report);
    let fields = at.fields()?;
    let api_version = fields.need("apiVersion");
    let kind_at = fields.need("kind")?;
    let name = kind_at.text()?;
    let Some(kind) = Kind::find(name) else {
        if let Some(remark) = neighbour(name) {
            let metadata = document.get("metadata");
            let label = metadata.and_then(|metadata| metadata.get("name")).and_then(Node::text).unwrap_or("");
            let remark = if remark.is_empty() { String::new() } else { format!(": {remark}") };
            report.warn(&format!("{name} {label} is passed over{remark}"));
            return None;
        }
        let message = format!("unknown kind `{name}`");
        report.unknown(kind_at.node().at, kind_at.path(), &message, name, &Kind::names());
        return None;
    };
    let api_version = api_version?.text().map(str::to_owned);
    if let Some(version) = &api_version {
        let known = kind.api_versions();
        if !known.contains(version) {
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            fields.get("apiVersion")?.unknown::<()>(version, &known);
        }
    }
    let mistakes = report.mistakes();
    let (key, labels) = read_metadata(&fields, kind)?;
    report.about(&key.to_string());
    let spec = if kind == Kind::Secret {
        Some(Spec::Secret(secret_keys(&fields)))
    } else {
        fields.get("status");
        fields.need("spec").and_then(|spec| read_spec(&spec, kind, &key.namespace))
    };
    fields.done();
    let yaml = canonical(document, kind);
    report.about("");
    if report.mistakes() > mistakes {
        return None;
    }
    let origin = Origin { file: report.source().to_owned(), line: document.at.line };
    Some(Object { key, api_version: api_version?, labels, spec: spec?, yaml, origin })
}

fn read_metadata(fields: &Fields<'_>, kind: Kind) -> Option<(ObjectKey, BTreeMap<String, String>)> {
    // A policy has one Identity: it needs no name.
    let unnamed = (kind == Kind::Identity).then(|| "identity".to_owned());
    let Some(metadata) = fields.get("metadata") else {
        if unnamed.is_none() {
            fields.need("metadata");
        }
        let key = ObjectKey { kind, namespace: DEFAULT_NAMESPACE.to_owned(), name: unnamed? };
        return Some((key, BTreeMap::new()));
    };
    let fields = metadata.fields()?;
    let name = match (fields.get("name"), unnamed) {
        (None, Some(unnamed)) => Some(unnamed),
        (None, None) => {
            fields.need("name");
            None
        }
        (Some(name), _) if kind == Kind::Budget => values::budget_name(&name),
        (Some(name), _) => values::object_name(&name),
    };
    let namespace = fields.get("namespace").map(|namespace| values::object_name(&namespace));
    let labels = fields.get("labels").map(|labels| crate::manifests::kinds::text_map(&labels));
    if let Some(annotations) = fields.get("annotations") {
        crate::manifests::kinds::text_map(&annotations);
    }
    for name in SERVER_METADATA {
        fields.get(name);
    }
    fields.done();
    let namespace = namespace.unwrap_or_else(|| Some(DEFAULT_NAMESPACE.to_owned()))?;
    Some((ObjectKey { kind, namespace, name: name? }, labels.unwrap_or_default()))
}

fn read_spec(spec: &Cursor<'_>, kind: Kind, namespace: &str) -> Option<Spec> {
    Some(match kind {
        Kind::Identity => Spec::Identity(Box::new(IdentitySpec::read(spec)?)),
        Kind::ModelPrice => Spec::ModelPrice(ModelPrices::read(spec)?),
        Kind::LLMRequestCost => Spec::RequestCosts(RequestCosts::read(spec)?),
        Kind::GatewayConfig => Spec::GatewayConfig(GatewayConfig::read(spec)?),
        Kind::AIGatewayRoute => Spec::Route(AiGatewayRoute::read(spec, namespace)?),
        Kind::AIBackend => Spec::AiBackend(AiBackend::read(spec, namespace)?),
        Kind::AIServiceBackend => Spec::AiServiceBackend(Box::new(AiServiceBackend::read(spec)?)),
        Kind::Backend => Spec::Backend(EndpointBackend::read(spec, namespace)?),
        Kind::BackendTLSPolicy => Spec::Tls(TlsPolicy::read(spec, namespace)?),
        Kind::BackendSecurityPolicy => Spec::Security(SecurityPolicy::read(spec, namespace)?),
        Kind::Secret => Spec::Secret(Vec::new()),
        Kind::BackendTrafficPolicy => Spec::Traffic(TrafficPolicy::read(spec)?),
        Kind::QuotaPolicy => Spec::Quota(QuotaPolicy::read(spec)?),
        Kind::Budget => Spec::Budget(Box::new(BudgetSpec::read(spec, namespace)?)),
        Kind::RateLimitConfig => {
            return spec.refuse("this kind has no head and no spec; begin the document with `domain:`");
        }
    })
}

/// The names of a Secret's values; the values are looked at nowhere.
fn secret_keys(fields: &Fields<'_>) -> Vec<String> {
    let mut keys = Vec::new();
    for name in ["data", "stringData"] {
        let Some(values) = fields.get(name) else { continue };
        for (key, value) in values.secret().entries() {
            value.text();
            keys.push(key.to_owned());
        }
    }
    fields.get("type");
    fields.get("immutable");
    fields.get("status");
    keys
}

/// The object in canonical form: without what a server added, and of a Secret without its values.
fn canonical(document: &Node, kind: Kind) -> String {
    let kept = |entry: &&Entry| match entry.key.as_str() {
        "status" => false,
        "data" | "stringData" => kind != Kind::Secret,
        _ => !entry.value.is_null(),
    };
    let entries = document.entries().iter().filter(kept).map(|entry| match entry.key.as_str() {
        "metadata" => Entry { value: canonical_metadata(&entry.value), ..entry.clone() },
        _ => entry.clone(),
    });
    emit(&Node { at: document.at, value: Value::Map(entries.collect()) })
}

fn canonical_metadata(metadata: &Node) -> Node {
    let kept = |entry: &&Entry| !SERVER_METADATA.contains(&entry.key.as_str()) && !entry.value.is_null();
    let is_default =
        |entry: &Entry| entry.key == "namespace" && entry.value.text() == Some(DEFAULT_NAMESPACE);
    let mut entries: Vec<Entry> = metadata.entries().iter().filter(kept).cloned().collect();
    // Absent and `default` are the same namespace.
    entries.retain(|entry| !is_default(entry));
    for entry in &mut entries {
        if entry.key == "annotations"
            && let Value::Map(annotations) = &mut entry.value.value
        {
            annotations.retain(|annotation| annotation.key != LAST_APPLIED);
        }
    }
    let empty = |entry: &Entry| matches!(&entry.value.value, Value::Map(entries) if entries.is_empty());
    entries.retain(|entry| !empty(entry));
    if entries.is_empty() {
        return Node { at: metadata.at, value: Value::Scalar(Scalar::plain("null")) };
    }
    Node { at: metadata.at, value: Value::Map(entries) }
}
