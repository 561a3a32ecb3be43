//! kind: BackendTLSPolicy. That a Backend is spoken to over TLS, by which name, and whose certificates count.

use crate::manifests::kinds::Targets;
use crate::manifests::reader::{Cursor, Fields};
use crate::manifests::values;
use crate::runtime::SecretRef;

/// Gateway API's own bound.
const REFERENCES_MAX: usize = 8;
/// Where the certificates are in a ConfigMap or Secret.
const CA_KEY: &str = "ca.crt";

#[derive(Debug, Clone)]
pub(crate) struct TlsPolicy {
    pub targets: Targets,
    /// The name that the certificate is for.
    pub hostname: String,
    /// Empty: the public roots.
    pub roots: Vec<SecretRef>,
}

impl TlsPolicy {
    pub fn read(spec: &Cursor<'_>, namespace: &str) -> Option<Self> {
        let fields = spec.fields()?;
        let targets = Targets::read(&fields, &["Backend", "Service"]);
        let validation = fields.need("validation").and_then(|validation| validation.fields());
        fields.without_effect(&["options"]);
        fields.done();
        let validation = validation?;
        let hostname = validation.need("hostname").and_then(|name| host_name(&name));
        let roots = roots(&validation, namespace);
        validation.without_effect(&["subjectAltNames"]);
        validation.done();
        Some(Self { targets, hostname: hostname?, roots: roots? })
    }
}

/// `wellKnownCACertificates: System` or `caCertificateRefs`: one of them.
pub(crate) fn roots(fields: &Fields<'_>, namespace: &str) -> Option<Vec<SecretRef>> {
    let system = fields.get("wellKnownCACertificates");
    if let Some(roots) = &system {
        roots.choice(&[("System", ())]);
    }
    let listed = fields.list("caCertificateRefs", REFERENCES_MAX);
    if let (Some(system), false) = (&system, listed.is_empty()) {
        return system.refuse("stands beside caCertificateRefs; keep one of them");
    }
    let read: Vec<Option<SecretRef>> = listed.iter().map(|at| certificate(at, namespace)).collect();
    read.into_iter().collect()
}

/// `{group, kind, name}` of a ConfigMap or Secret beside the policy.
fn certificate(at: &Cursor<'_>, namespace: &str) -> Option<SecretRef> {
    let fields = at.fields()?;
    let name = fields.need("name").and_then(|name| values::object_name(&name));
    if let Some(kind) = fields.get("kind") {
        kind.choice(&[("ConfigMap", ()), ("Secret", ())]);
    }
    if let Some(group) = fields.get("group") {
        group.choice(&[("", ()), ("core", ())]);
    }
    let own = fields.get("namespace").map(|namespace| values::object_name(&namespace));
    fields.done();
    let namespace = own.unwrap_or_else(|| Some(namespace.to_owned()))?;
    Some(SecretRef { namespace, name: name?, key: CA_KEY.to_owned() })
}

fn host_name(at: &Cursor<'_>) -> Option<String> {
    let text = at.text()?;
    let fine = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if text.is_empty() || text.len() > 253 || !text.chars().all(fine) {
        return at.expected("the name that the certificate is for");
    }
    Some(text.to_ascii_lowercase())
}
