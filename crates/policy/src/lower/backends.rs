//! Backends from the objects that describe them: API, address, TLS, credentials.

use std::collections::{BTreeMap, BTreeSet};

use crate::lower::Lowering;
use crate::manifests::Kind;
use crate::manifests::kinds::{AiServiceBackend, Reference};
use crate::manifests::object::{Object, Spec};
use crate::runtime::{AuthSpec, BackendSpec, Endpoint, ProviderKind, TlsSpec};

const HTTPS_PORT: u16 = 443;

pub(crate) fn lower(lowering: &mut Lowering<'_>) -> Vec<BackendSpec> {
    let credentials = credentials(lowering);
    let mut backends: Vec<BackendSpec> = Vec::new();
    for object in lowering.of_kind(Kind::AIBackend).chain(lowering.of_kind(Kind::AIServiceBackend)) {
        let name = object.key.full_name();
        let auth = credentials.get(&name).map(|(_, auth)| auth.clone());
        let backend = match &object.spec {
            Spec::AiBackend(backend) => {
                let own = backend.secret.clone().map(|secret| AuthSpec::ApiKey { secret });
                if own.is_some() && auth.is_some() {
                    lowering.error(
                        object,
                        "spec.auth",
                        "has credentials in a BackendSecurityPolicy too; keep one",
                    );
                }
                BackendSpec {
                    name,
                    provider: backend.schema.provider,
                    endpoint: backend.endpoint.clone(),
                    path_prefix: backend.schema.prefix.clone(),
                    schema_version: backend.schema.version.clone(),
                    tls: None,
                    auth: own.or(auth),
                }
            }
            Spec::AiServiceBackend(backend) => {
                if let (Some(security), None) = (&backend.security, &auth) {
                    let message = format!(
                        "there is no BackendSecurityPolicy {security}: requests go there without a key until it is applied"
                    );
                    lowering.warn(object, &message);
                }
                let Some((endpoint, tls)) = endpoint(lowering, object, backend) else { continue };
                BackendSpec {
                    name,
                    provider: backend.schema.provider,
                    endpoint: Some(endpoint),
                    path_prefix: backend.schema.prefix.clone(),
                    schema_version: backend.schema.version.clone(),
                    tls,
                    auth,
                }
            }
            _ => continue,
        };
        if backends.iter().any(|other| other.name == backend.name) {
            let message = "there is an AIBackend of that name; routes could not tell them apart, rename one";
            lowering.error(object, "metadata.name", message);
        }
        if let Some((policy, auth)) = credentials.get(&backend.name)
            && !fits(auth, backend.provider)
        {
            let message = format!(
                "its credentials are of no use to {}, a backend of kind {}: requests cannot go there",
                backend.name,
                backend.provider.name()
            );
            lowering.warn(policy, &message);
        }
        backends.push(backend);
    }
    backends
}

/// By backend: the policy that gives its credentials.
fn credentials<'a>(lowering: &mut Lowering<'a>) -> BTreeMap<String, (&'a Object, AuthSpec)> {
    let mut credentials: BTreeMap<String, (&Object, AuthSpec)> = BTreeMap::new();
    for object in lowering.of_kind(Kind::BackendSecurityPolicy) {
        let Spec::Security(security) = &object.spec else { continue };
        let naming = naming(lowering, object);
        if security.targets.references.is_empty() && naming.is_empty() {
            lowering.warn(object, "has no targetRefs, so it gives no backend its credentials");
        }
        let targets = security.targets.references.iter().map(|target| target.name.as_str());
        let targets: BTreeSet<&str> = targets.chain(naming).collect();
        for target in targets {
            let name = format!("{}/{target}", object.key.namespace);
            if lowering.backend(&name).is_none() {
                lowering.warn(object, &format!("there is no backend {name} yet"));
            }
            if let Some((other, _)) = credentials.insert(name.clone(), (object, security.auth.clone())) {
                let message = format!("backend {name} has credentials from {} too; keep one", other.key);
                lowering.error(object, "spec.targetRefs", &message);
            }
        }
    }
    credentials
}

/// The backends that name this policy themselves.
fn naming<'a>(lowering: &Lowering<'a>, policy: &Object) -> Vec<&'a str> {
    let backends = lowering.of_kind(Kind::AIServiceBackend);
    let names = |object: &&Object| {
        let named = matches!(&object.spec, Spec::AiServiceBackend(backend) if backend.security.as_ref() == Some(&policy.key.name));
        named && object.key.namespace == policy.key.namespace
    };
    backends.filter(names).map(|object| object.key.name.as_str()).collect()
}

/// Whether a provider of this kind takes such credentials. An API key is something that each has.
fn fits(auth: &AuthSpec, provider: ProviderKind) -> bool {
    use ProviderKind as Kind;
    match auth {
        AuthSpec::ApiKey { .. } => true,
        AuthSpec::Aws { .. } => matches!(provider, Kind::AWSBedrock | Kind::AWSAnthropic),
        // Azure's newer API is OpenAI's.
        AuthSpec::Azure { .. } => matches!(provider, Kind::AzureOpenAI | Kind::OpenAI),
        AuthSpec::Gcp { .. } => matches!(provider, Kind::GCPVertexAI | Kind::GCPAnthropic),
    }
}

/// `None`: its Backend is not there, and a warning says so. Never the provider's public address instead: that would
/// send requests, and keys, to where nobody meant them to go.
fn endpoint(
    lowering: &mut Lowering<'_>,
    object: &Object,
    backend: &AiServiceBackend,
) -> Option<(Endpoint, Option<TlsSpec>)> {
    let Reference { kind, namespace, name } = &backend.backend;
    let namespace = namespace.clone().unwrap_or_else(|| object.key.namespace.clone());
    let policy = tls_policy(lowering, &namespace, name);
    if kind == "Service" {
        let port = backend.port.unwrap_or(HTTPS_PORT);
        let host = format!("{name}.{namespace}.svc.cluster.local");
        let endpoint = Endpoint { host, port, tls: port == HTTPS_PORT || policy.is_some() };
        let tls = policy.and_then(|policy| checked(&endpoint.host, policy));
        return Some((endpoint, tls));
    }
    let found = lowering.find(Kind::Backend, &namespace, name);
    let Some(Spec::Backend(address)) = found.map(|found| &found.spec) else {
        let message =
            format!("there is no Backend {namespace}/{name}: requests cannot go there until it is applied");
        lowering.warn(object, &message);
        return None;
    };
    let tls = policy.is_some() || address.tls.is_some() || address.port == HTTPS_PORT;
    let endpoint = Endpoint { host: address.host.clone(), port: address.port, tls };
    let own = address.tls.clone().map(|roots| TlsSpec { server_name: None, roots });
    let tls = policy.or(own).and_then(|policy| checked(&endpoint.host, policy));
    Some((endpoint, tls))
}

/// `None` where it says nothing that does not go without saying.
fn checked(host: &str, mut tls: TlsSpec) -> Option<TlsSpec> {
    tls.server_name = tls.server_name.filter(|name| name != host);
    (tls != TlsSpec::default()).then_some(tls)
}

fn tls_policy(lowering: &Lowering<'_>, namespace: &str, name: &str) -> Option<TlsSpec> {
    let policies = lowering.of_kind(Kind::BackendTLSPolicy);
    policies.filter(|object| object.key.namespace == *namespace).find_map(|object| match &object.spec {
        Spec::Tls(tls) if tls.targets.references.iter().any(|target| target.name == name) => {
            Some(TlsSpec { server_name: Some(tls.hostname.clone()), roots: tls.roots.clone() })
        }
        _ => None,
    })
}
