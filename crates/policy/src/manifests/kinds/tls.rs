//! kind: BackendTLSPolicy. That a Backend is spoken to over TLS; certificates are checked against the system's roots.

use crate::manifests::kinds::Targets;
use crate::manifests::reader::Cursor;

#[derive(Debug, Clone)]
pub(crate) struct TlsPolicy {
    pub targets: Targets,
    /// The name that the certificate is for.
    pub hostname: String,
}

impl TlsPolicy {
    pub fn read(spec: &Cursor<'_>) -> Option<Self> {
        let fields = spec.fields()?;
        let targets = Targets::read(&fields, &["Backend", "Service"]);
        let validation = fields.need("validation").and_then(|validation| validation.fields());
        fields.without_effect(&["options"]);
        fields.done();
        let validation = validation?;
        let hostname = validation.need("hostname").and_then(|name| name.text());
        if let Some(roots) = validation.get("wellKnownCACertificates") {
            roots.choice(&[("System", ())]);
        }
        validation
            .unsupported("caCertificateRefs", "certificates are checked against the roots of the system");
        validation.without_effect(&["subjectAltNames"]);
        validation.done();
        Some(Self { targets, hostname: hostname?.to_ascii_lowercase() })
    }
}
