//! Where requests go: AIBackend (one object for all), AIServiceBackend (the API) and Backend (the address).

use crate::manifests::kinds::Reference;
use crate::manifests::kinds::target::{known_group, known_kind};
use crate::manifests::kinds::{mutation, security, tls};
use crate::manifests::reader::{Cursor, Fields};
use crate::manifests::values;
use crate::runtime::{BodyMutation, Endpoint, HeaderMutation, ProviderKind, SecretRef};

/// The API that a backend speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Schema {
    pub provider: ProviderKind,
    pub version: Option<String>,
    pub prefix: Option<String>,
}

/// kind: AIBackend
#[derive(Debug, Clone)]
pub(crate) struct AiBackend {
    pub schema: Schema,
    /// `None`: the provider's public one.
    pub endpoint: Option<Endpoint>,
    pub secret: Option<SecretRef>,
}

/// kind: AIServiceBackend
#[derive(Debug, Clone)]
pub(crate) struct AiServiceBackend {
    pub schema: Schema,
    /// A Backend or a Service.
    pub backend: Reference,
    /// Of a Service.
    pub port: Option<u16>,
    /// The BackendSecurityPolicy of its namespace that it names itself, as early v1alpha1 did.
    pub security: Option<String>,
    pub header_mutation: HeaderMutation,
    pub body_mutation: BodyMutation,
}

/// kind: Backend. The first endpoint.
#[derive(Debug, Clone)]
pub(crate) struct EndpointBackend {
    pub host: String,
    pub port: u16,
    /// Where the object itself asks for TLS: the authorities that count, none for the public ones.
    pub tls: Option<Vec<SecretRef>>,
}

/// The official names first; then those of the tutorials.
const PROVIDERS: [(&str, ProviderKind); 13] = [
    ("OpenAI", ProviderKind::OpenAI),
    ("Anthropic", ProviderKind::Anthropic),
    ("AWSBedrock", ProviderKind::AWSBedrock),
    ("AzureOpenAI", ProviderKind::AzureOpenAI),
    ("Cohere", ProviderKind::Cohere),
    ("GCPVertexAI", ProviderKind::GCPVertexAI),
    ("GCPAnthropic", ProviderKind::GCPAnthropic),
    ("AWSAnthropic", ProviderKind::AWSAnthropic),
    ("Bedrock", ProviderKind::AWSBedrock),
    ("AWS", ProviderKind::AWSBedrock),
    ("Azure", ProviderKind::AzureOpenAI),
    ("VertexAI", ProviderKind::GCPVertexAI),
    ("GCP", ProviderKind::GCPVertexAI),
];
const SCHEMAS: usize = 8;
const ENDPOINTS_MAX: usize = 64;

impl AiBackend {
    pub fn read(spec: &Cursor<'_>, namespace: &str) -> Option<Self> {
        let fields = spec.fields()?;
        let provider = fields.need("provider").and_then(|provider| provider.choice(&PROVIDERS));
        let version = fields.get("version").and_then(|version| values::name(&version));
        let endpoint = fields.get("endpoint").map(|endpoint| url(&endpoint));
        let secret = match fields.get("auth").and_then(|auth| auth.fields()) {
            Some(auth) => {
                let secret = auth.get("apiKeySecretRef");
                auth.done();
                secret.and_then(|secret| security::secret_ref(&secret, namespace, "api-key"))
            }
            None => None,
        };
        fields.done();
        let (endpoint, prefix) = match endpoint {
            Some(endpoint) => {
                let (endpoint, prefix) = endpoint?;
                (Some(endpoint), prefix)
            }
            None => (None, None),
        };
        Some(Self { schema: Schema { provider: provider?, version, prefix }, endpoint, secret })
    }
}

impl AiServiceBackend {
    pub fn read(spec: &Cursor<'_>) -> Option<Self> {
        let fields = spec.fields()?;
        let schema = fields.need("schema").and_then(|schema| read_schema(&schema));
        let backend = fields.need("backendRef").and_then(|backend| backend_object(&backend));
        let header_mutation = mutation::headers(&fields);
        let body_mutation = mutation::body(&fields);
        let security = fields.get("backendSecurityPolicyRef").map(|security| security_object(&security));
        // Of v1alpha1; the timeouts of the route hold.
        fields.without_effect(&["timeouts"]);
        fields.done();
        let (backend, port) = backend?;
        let security = match security {
            Some(security) => Some(security?),
            None => None,
        };
        Some(Self { schema: schema?, backend, port, security, header_mutation, body_mutation })
    }
}

impl EndpointBackend {
    pub fn read(spec: &Cursor<'_>, namespace: &str) -> Option<Self> {
        let fields = spec.fields()?;
        if let Some(kind) = fields.get("type") {
            kind.choice(&[("Endpoints", ())]);
        }
        fields.need("endpoints");
        let endpoints = fields.list("endpoints", ENDPOINTS_MAX);
        if let (Some(list), []) = (fields.get("endpoints"), &endpoints[..]) {
            list.error("no endpoint; one is needed");
        }
        let tls = fields.get("tls").map(|tls| read_tls(&tls, namespace));
        fields.without_effect(&["appProtocols", "fallback"]);
        fields.done();
        if endpoints.len() > 1 {
            spec.warn("has more than one endpoint; only the first is used, give each a backend of its own");
        }
        let (host, port) = endpoint(endpoints.first()?)?;
        let tls = match tls {
            Some(roots) => Some(roots?),
            None => None,
        };
        Some(Self { host, port, tls })
    }
}

/// The authorities that count. What would leave certificates unchecked is refused.
fn read_tls(at: &Cursor<'_>, namespace: &str) -> Option<Vec<SecretRef>> {
    let fields = at.fields()?;
    let roots = tls::roots(&fields, namespace);
    if fields.flag("insecureSkipVerify") {
        at.error("insecureSkipVerify is not supported; name the server's own authority in caCertificateRefs");
    }
    fields.without_effect(&[
        "sni",
        "autoSNIFromEndpointHostname",
        "clientCertificateRef",
        "minVersion",
        "maxVersion",
    ]);
    fields.without_effect(&[
        "ciphers",
        "ecdhCurves",
        "signatureAlgorithms",
        "alpnProtocols",
        "subjectAltNames",
    ]);
    fields.done();
    roots
}

/// `{fqdn: {hostname, port}}` or `{ip: {address, port}}`
fn endpoint(at: &Cursor<'_>) -> Option<(String, u16)> {
    let fields = at.fields()?;
    let fqdn = fields.get("fqdn");
    let ip = fields.get("ip");
    fields.unsupported("unix", "use fqdn or ip");
    fields.without_effect(&["zone", "hostname"]);
    fields.done();
    let (inner, name) = match (fqdn, ip) {
        (Some(fqdn), None) => (fqdn, "hostname"),
        (None, Some(ip)) => (ip, "address"),
        _ => return at.refuse("wanted: either fqdn {hostname, port} or ip {address, port}"),
    };
    let fields = inner.fields()?;
    let host = fields.need(name).and_then(|host| host_name(&host, name == "address"));
    let port = fields.need("port").and_then(|port| read_port(&port));
    fields.done();
    Some((host?, port?))
}

fn host_name(at: &Cursor<'_>, is_address: bool) -> Option<String> {
    let text = at.text()?;
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.' || c == '_';
    let right = if is_address {
        text.parse::<std::net::IpAddr>().is_ok()
    } else {
        !text.is_empty() && text.len() <= 253 && text.chars().all(fine)
    };
    if right {
        Some(text.to_ascii_lowercase())
    } else {
        at.expected("a host: a name, or under ip an address")
    }
}

fn read_port(at: &Cursor<'_>) -> Option<u16> {
    at.integer(1, 65_535).and_then(|port| u16::try_from(port).ok())
}

/// `{name, version, prefix}`
fn read_schema(at: &Cursor<'_>) -> Option<Schema> {
    let fields = at.fields()?;
    let provider = fields.need("name").and_then(|name| name.choice(&PROVIDERS[..SCHEMAS]));
    let version = fields.get("version").and_then(|version| values::name(&version));
    let prefix = fields.get("prefix").and_then(|prefix| path_prefix(&prefix));
    fields.done();
    Some(Schema { provider: provider?, version, prefix })
}

/// With or without slashes around it; kept as `/v1beta/openai`.
fn path_prefix(at: &Cursor<'_>) -> Option<String> {
    let text = at.text()?;
    let fine = |c: char| c.is_ascii_alphanumeric() || "-._~/%+:@".contains(c);
    if text.len() > 512 || !text.chars().all(fine) {
        return at.refuse(format!("`{text}` is no prefix of a path; wanted something like /v1"));
    }
    let inner = text.trim_matches('/');
    Some(if inner.is_empty() { String::new() } else { format!("/{inner}") })
}

/// `{name, kind, group, namespace, port}`
fn backend_object(at: &Cursor<'_>) -> Option<(Reference, Option<u16>)> {
    let fields: Fields<'_> = at.fields()?;
    let name = fields.need("name").and_then(|name| values::object_name(&name));
    let namespace = fields.get("namespace").and_then(|namespace| values::object_name(&namespace));
    fields.get("group").and_then(|group| known_group(&group));
    let kind = match fields.get("kind") {
        Some(kind) => known_kind(&kind, &["Backend", "Service"]),
        // Gateway API's own default.
        None => Some("Service".to_owned()),
    };
    let port = fields.get("port").map(|port| read_port(&port));
    fields.done();
    let (name, kind) = (name?, kind?);
    let port = match port {
        Some(port) => Some(port?),
        None if kind == "Service" => {
            return at.refuse("field port is missing; a Service needs one (or is it `kind: Backend`?)");
        }
        None => None,
    };
    Some((Reference { kind, namespace, name }, port))
}

/// `{name, kind, group}`
fn security_object(at: &Cursor<'_>) -> Option<String> {
    let fields = at.fields()?;
    let name = fields.need("name").and_then(|name| values::object_name(&name));
    fields.get("group").and_then(|group| known_group(&group));
    if let Some(kind) = fields.get("kind") {
        known_kind(&kind, &["BackendSecurityPolicy"]);
    }
    fields.done();
    name
}

/// `https://host:port/prefix`
fn url(at: &Cursor<'_>) -> Option<(Endpoint, Option<String>)> {
    let text = at.text()?;
    let wanted = "a URL such as https://api.example.com/v1";
    let (tls, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ => return at.expected(wanted),
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse::<u16>().ok()),
        _ => (authority, Some(if tls { 443 } else { 80 })),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let fine = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
    let (Some(port), true) = (port, !host.is_empty() && host.chars().all(fine)) else {
        return at.expected(wanted);
    };
    let path = path.trim_matches('/');
    let prefix = (!path.is_empty()).then(|| format!("/{path}"));
    Some((Endpoint { host: host.to_ascii_lowercase(), port, tls }, prefix))
}
