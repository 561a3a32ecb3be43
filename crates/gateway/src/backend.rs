//! One backend, checked: where it is, which API it speaks, how the gateway proves itself to it.

use std::{
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use http::{Request, Uri, uri};
use http_body_util::Full;
use quorate_policy::{
    is_forbidden,
    runtime::{AuthSpec, BackendSpec, ProviderKind, TlsSpec},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use crate::{
    auth::{Auth, Env, Fetch, is_aws},
    backends::{self, Unusable},
    config::BackendConfig,
    error::GatewayError,
    link::{Link, LinkSpec},
    provider::{Api, Endpoint, azure, splice::OutputField},
    secrets::{SecretName, Secrets},
    tls::Tls,
    tokenizer::Tokenizer,
};

/// Of Azure's API, where nothing names another: one that is generally available.
const AZURE_API_VERSION: &str = "2024-10-21";

#[derive(Debug, Clone)]
pub(crate) struct Backend {
    /// The value of `x-ai-provider`.
    pub(crate) name: String,
    pub(crate) kind: ProviderKind,
    scheme: uri::Scheme,
    authority: uri::Authority,
    /// Without a slash at its end.
    prefix: String,
    /// Of Azure's API; `None` for all others.
    api_version: Option<String>,
    auth: Arc<Auth>,
    pub(crate) pass_client_key: bool,
    pub(crate) models: Vec<String>,
    pub(crate) stream_usage: bool,
    /// In place of the gateway's own.
    pub(crate) first_byte_ms: Option<u64>,
    /// One permit for each request that it may have at once; `None`: any number.
    in_flight: Option<Arc<Semaphore>>,
    way: Arc<LinkSpec>,
    /// Its connections, once the first request has needed one.
    link: OnceLock<Arc<Link>>,
    tokenizer: Option<Tokenizer>,
    output_field: Option<OutputField>,
}

impl Backend {
    /// Reads keys and certificates from where the config says. Nothing is connected to.
    pub(crate) fn open(config: &BackendConfig) -> Result<Self, GatewayError> {
        Self::configured(config, &Env::process())
            .map_err(|message| GatewayError::Backend { backend: config.name.clone(), message })
    }

    pub(crate) fn configured(config: &BackendConfig, env: &Env) -> Result<Self, String> {
        let kind = config.provider.kind();
        let base_url = if config.base_url.is_empty() {
            public(kind, config.region.as_deref())?
        } else {
            config.base_url.clone()
        };
        let (scheme, authority, prefix) = address(&base_url)?;
        let region = config.region.as_deref().or_else(|| region_of(authority.host()));
        let auth = match config.pass_client_key {
            true => Auth::Open,
            false => Auth::configured(config, region, env)?,
        };
        let roots = match &config.ca_file {
            None => Vec::new(),
            Some(path) => {
                let place = format!("ca_file {}", path.display());
                let pem = std::fs::read(path).map_err(|error| format!("cannot read {place}: {error}"))?;
                Tls::certificates(&pem, &place)?
            }
        };
        let way = LinkSpec {
            tls: Tls::new(roots, config.tls_server_name.clone())?,
            proxy: config.proxy.clone(),
            connect_ms: config.timeouts.connect_ms,
        };
        let permits = config.limits.in_flight_max.map(|most| most.min(Semaphore::MAX_PERMITS));
        Ok(Self {
            name: config.name.clone(),
            kind,
            api_version: api_version(kind, config.api_version.as_deref()),
            scheme,
            authority,
            prefix,
            auth: Arc::new(auth),
            pass_client_key: config.pass_client_key,
            models: config.models.clone(),
            stream_usage: config.stream_usage,
            first_byte_ms: config.timeouts.first_byte_ms,
            in_flight: permits.map(|permits| Arc::new(Semaphore::new(permits))),
            way: Arc::new(way),
            link: OnceLock::new(),
            tokenizer: config.tokenizer,
            output_field: config.output_field,
        })
    }

    /// A backend that only a policy describes: at its endpoint, or at the provider's public one.
    pub(crate) fn described(spec: &BackendSpec, secrets: &Secrets) -> Result<Self, Unusable> {
        use ProviderKind as Kind;
        match spec.provider {
            Kind::OpenAI | Kind::AzureOpenAI | Kind::Anthropic | Kind::AWSBedrock | Kind::AWSAnthropic => {
                Self::of_policy(spec, secrets, &Env::process())
                    .map_err(|problem| Unusable::Wrong { backend: spec.name.clone(), problem })
            }
            Kind::Cohere | Kind::GCPVertexAI | Kind::GCPAnthropic => {
                Err(Unusable::NotSpoken { backend: spec.name.clone(), kind: spec.provider.name() })
            }
        }
    }

    fn of_policy(spec: &BackendSpec, secrets: &Secrets, env: &Env) -> Result<Self, String> {
        let kind = spec.provider;
        let named_region = match &spec.auth {
            Some(AuthSpec::Aws { region, .. }) => Some(region.as_str()),
            _ => None,
        };
        let base_url = match &spec.endpoint {
            None => public(kind, named_region)?,
            Some(endpoint) => {
                let scheme = if endpoint.tls { "https" } else { "http" };
                let host = &endpoint.host;
                let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
                let version = match kind {
                    ProviderKind::OpenAI | ProviderKind::Anthropic => "/v1",
                    _ => "",
                };
                format!("{scheme}://{host}:{}{version}", endpoint.port)
            }
        };
        let (scheme, authority, prefix) = address(&base_url)?;
        let prefix = match spec.path_prefix.as_deref().map(|prefix| prefix.trim_matches('/')) {
            None => prefix,
            Some("") => String::new(),
            Some(own) => format!("/{own}"),
        };
        let region = named_region.or_else(|| region_of(authority.host()));
        let auth = Auth::described(kind, spec.auth.as_ref(), region, secrets, env)?;
        let tls = spec.tls.as_ref().map(|tls| certificates(tls, secrets)).transpose()?;
        Ok(Self {
            name: backends::bare(&spec.name).to_owned(),
            kind,
            api_version: api_version(kind, spec.schema_version.as_deref()),
            scheme,
            authority,
            prefix,
            auth: Arc::new(auth),
            pass_client_key: false,
            models: Vec::new(),
            stream_usage: true,
            first_byte_ms: None,
            in_flight: None,
            way: Arc::new(LinkSpec { tls: tls.unwrap_or_default(), ..LinkSpec::default() }),
            link: OnceLock::new(),
            tokenizer: None,
            output_field: None,
        })
    }

    pub(crate) fn api(&self) -> Api {
        match self.kind {
            ProviderKind::AzureOpenAI => Api::Azure,
            ProviderKind::Anthropic => Api::Anthropic,
            ProviderKind::AWSBedrock => Api::Converse,
            ProviderKind::AWSAnthropic => Api::InvokeAnthropic,
            // No backend is opened of those that are not spoken.
            ProviderKind::OpenAI
            | ProviderKind::Cohere
            | ProviderKind::GCPVertexAI
            | ProviderKind::GCPAnthropic => Api::OpenAI,
        }
    }

    /// The URL of `path` below the base URL, the client's query appended, and Azure's version of its API.
    ///
    /// `path` has a leading slash and is encoded as it goes over the wire.
    pub(crate) fn url(&self, path: &str, query: Option<&str>) -> Result<Uri, http::Error> {
        let mut target = format!("{}{path}", self.prefix);
        let mut mark = '?';
        if let Some(query) = query.filter(|query| !query.is_empty()) {
            target.push(mark);
            target.push_str(query);
            mark = '&';
        }
        let named = |query: &str| query.split('&').any(|pair| pair.starts_with("api-version="));
        let versioned = !path.starts_with(azure::V1) && !query.is_some_and(named);
        if let (Some(version), true) = (&self.api_version, versioned) {
            target.push_str(&format!("{mark}api-version={version}"));
        }
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(target)
            .build()
    }

    /// A place among its requests in flight, for as long as the permit lives; `None`: it has no limit.
    pub(crate) fn enter(&self) -> Result<Option<OwnedSemaphorePermit>, TryAcquireError> {
        self.in_flight.as_ref().map(|slots| Arc::clone(slots).try_acquire_owned()).transpose()
    }

    /// Its connections; `open` is asked once.
    pub(crate) fn link(
        &self,
        open: impl FnOnce(&Arc<LinkSpec>) -> Result<Arc<Link>, String>,
    ) -> Result<&Arc<Link>, String> {
        match self.link.get() {
            Some(link) => Ok(link),
            None => {
                let link = open(&self.way)?;
                Ok(self.link.get_or_init(|| link))
            }
        }
    }

    /// Proves who the gateway is, on the request as it will be sent: its bytes, headers and path must not change after.
    ///
    /// # Errors
    /// Why there are no credentials; for the log.
    pub(crate) async fn authorize(
        &self,
        fetch: &Fetch,
        request: &mut Request<Full<Bytes>>,
        body: &Bytes,
    ) -> Result<(), String> {
        self.auth.apply(fetch, request, body).await
    }

    pub(crate) fn tokenizer(&self, model: &str) -> Tokenizer {
        self.tokenizer.unwrap_or_else(|| Tokenizer::at(self.api(), model))
    }

    pub(crate) fn output_field(&self, endpoint: Endpoint, model: &str) -> OutputField {
        match endpoint {
            Endpoint::Chat => self.output_field.unwrap_or_else(|| OutputField::for_model(endpoint, model)),
            _ => OutputField::for_model(endpoint, model),
        }
    }
}

/// The base URL of the provider's own API.
fn public(kind: ProviderKind, region: Option<&str>) -> Result<String, String> {
    match kind {
        ProviderKind::OpenAI => Ok("https://api.openai.com/v1".to_owned()),
        ProviderKind::Anthropic => Ok("https://api.anthropic.com/v1".to_owned()),
        kind if is_aws(kind) => {
            let region = region.ok_or("its AWS region is not known; name it in region")?;
            let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
            Ok(format!("https://bedrock-runtime.{region}.{domain}"))
        }
        _ => Err("it has no endpoint, and there is no public one; for Azure, name the resource's \
                  https://NAME.openai.azure.com"
            .to_owned()),
    }
}

/// `bedrock-runtime.REGION.amazonaws.com`, `bedrock-runtime-fips.…`
fn region_of(host: &str) -> Option<&str> {
    let rest = host.strip_prefix("bedrock-runtime")?.strip_prefix("-fips").unwrap_or(host);
    let (_, rest) = rest.split_once('.')?;
    let (region, domain) = rest.split_once('.')?;
    domain.starts_with("amazonaws.com").then_some(region)
}

fn api_version(kind: ProviderKind, named: Option<&str>) -> Option<String> {
    (kind == ProviderKind::AzureOpenAI).then(|| named.unwrap_or(AZURE_API_VERSION).to_owned())
}

fn certificates(tls: &TlsSpec, secrets: &Secrets) -> Result<Tls, String> {
    let mut roots = Vec::new();
    for root in &tls.roots {
        let name = SecretName { namespace: &root.namespace, name: &root.name, key: &root.key };
        let found = secrets.find(name)?;
        roots.extend(Tls::certificates(found.text.as_bytes(), &found.place)?);
    }
    Tls::new(roots, tls.server_name.clone())
}

/// Scheme, authority and path of a base URL. A port that goes without saying is left out: signatures cover the host as
/// it is sent.
fn address(base_url: &str) -> Result<(uri::Scheme, uri::Authority, String), String> {
    let url: Uri = base_url.parse().map_err(|error| format!("base_url is no URL: {error}"))?;
    let parts = url.into_parts();
    let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
        return Err("base_url must begin with http:// or https:// and name a host".to_owned());
    };
    let usual = if scheme == uri::Scheme::HTTPS { 443 } else { 80 };
    if scheme != uri::Scheme::HTTP && scheme != uri::Scheme::HTTPS {
        return Err(format!("base_url must begin with http:// or https://, not {scheme}://"));
    }
    if authority.as_str().contains('@') {
        return Err("base_url must not hold credentials; use api_key_env or api_key_file".to_owned());
    }
    let literal = authority.host().trim_matches(['[', ']']).parse::<IpAddr>();
    if literal.is_ok_and(is_forbidden) {
        return Err("base_url is a link-local address, where no provider is".to_owned());
    }
    let authority = match authority.port_u16() {
        Some(port) if port == usual => authority.host().parse().map_err(|_| "base_url has no usable host")?,
        _ => authority,
    };
    let path = parts.path_and_query.as_ref().map_or("", |path| path.path());
    Ok((scheme, authority, path.trim_end_matches('/').to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(base_url: &str) -> BackendConfig {
        serde_yaml_ng::from_str(&format!("{{name: b, provider: OpenAI, base_url: '{base_url}'}}")).unwrap()
    }

    #[test]
    fn urls() {
        let backend = Backend::open(&config("https://api.openai.com/v1/")).unwrap();
        assert_eq!(backend.url("/models", None).unwrap(), "https://api.openai.com/v1/models");
        assert_eq!(backend.url("/models", Some("a=b")).unwrap(), "https://api.openai.com/v1/models?a=b");
        for bad in [
            "api.openai.com/v1",
            "ftp://x/",
            "https://user:key@host/",
            "http://169.254.169.254/",
            "http://[fe80::1]/",
            "/v1",
        ] {
            assert!(Backend::open(&config(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_missing_key_is_named_and_never_shown() {
        let mut backend = config("http://127.0.0.1/");
        backend.api_key_env = Some("QUORATE_TEST_NO_SUCH_VARIABLE".to_owned());
        assert!(Backend::open(&backend).unwrap_err().to_string().contains("QUORATE_TEST_NO_SUCH_VARIABLE"));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "sk-hidden\n").unwrap();
        backend.api_key_env = None;
        backend.api_key_file = Some(file.path().to_owned());
        let open = Backend::open(&backend).unwrap();
        assert!(matches!(&*open.auth, Auth::Key { .. }));
        assert!(!format!("{open:?}").contains("sk-hidden"));
    }

    #[test]
    fn every_kind_has_its_address() {
        for (entry, path, expected) in [
            ("provider: OpenAI", "/models", "https://api.openai.com/v1/models"),
            ("provider: Anthropic", "/messages", "https://api.anthropic.com/v1/messages"),
            (
                "provider: AWSBedrock, region: eu-central-1",
                "/model/m%3A0/converse",
                "https://bedrock-runtime.eu-central-1.amazonaws.com/model/m%3A0/converse",
            ),
            (
                "provider: AWSAnthropic, region: cn-north-1",
                "/model/m/invoke",
                "https://bedrock-runtime.cn-north-1.amazonaws.com.cn/model/m/invoke",
            ),
            (
                "provider: AzureOpenAI, base_url: 'https://r.openai.azure.com:443/'",
                "/openai/deployments/d/chat/completions",
                "https://r.openai.azure.com/openai/deployments/d/chat/completions?api-version=2024-10-21",
            ),
            (
                "provider: AzureOpenAI, base_url: 'https://r.openai.azure.com', api_version: 2025-01-01-preview",
                "/openai/models",
                "https://r.openai.azure.com/openai/models?api-version=2025-01-01-preview",
            ),
        ] {
            let config = serde_yaml_ng::from_str(&format!("{{name: b, {entry}}}")).unwrap();
            let backend = Backend::open(&config).unwrap();
            assert_eq!(backend.url(path, None).unwrap(), expected, "{entry}");
        }
        let azure = "{name: b, provider: AzureOpenAI, base_url: 'https://r.openai.azure.com'}";
        let azure = Backend::open(&serde_yaml_ng::from_str(azure).unwrap()).unwrap();
        assert_eq!(
            azure.url("/x", Some("a=b&api-version=mine")).unwrap().query(),
            Some("a=b&api-version=mine")
        );
        assert_eq!(azure.url("/x", Some("a=b")).unwrap().query(), Some("a=b&api-version=2024-10-21"));
        let nowhere = "{name: b, provider: AWSBedrock}";
        let error = Backend::open(&serde_yaml_ng::from_str(nowhere).unwrap()).unwrap_err().to_string();
        assert!(error.contains("region"), "{error}");
    }

    #[test]
    fn regions_of_hosts() {
        for (host, region) in [
            ("bedrock-runtime.us-east-1.amazonaws.com", Some("us-east-1")),
            ("bedrock-runtime-fips.us-gov-west-1.amazonaws.com", Some("us-gov-west-1")),
            ("bedrock-runtime.cn-north-1.amazonaws.com.cn", Some("cn-north-1")),
            ("bedrock-runtime.example.com", None),
            ("127.0.0.1", None),
        ] {
            assert_eq!(region_of(host), region, "{host}");
        }
    }
}
