//! One backend, checked and with its key loaded.

use std::net::IpAddr;

use http::{Uri, uri};
use quorate_policy::runtime::{AuthSpec, BackendSpec, ProviderKind};

use crate::{
    backends::{self, Unusable},
    config::{BackendConfig, Provider},
    error::GatewayError,
    provider::{Endpoint, splice::OutputField},
    secret::Secret,
    secrets::{SecretName, Secrets},
    tokenizer::Tokenizer,
};

#[derive(Debug, Clone)]
pub(crate) struct Backend {
    /// The value of `x-ai-provider`.
    pub(crate) name: String,
    scheme: uri::Scheme,
    authority: uri::Authority,
    /// Without a slash at its end.
    prefix: String,
    pub(crate) key: Option<Secret>,
    pub(crate) pass_client_key: bool,
    pub(crate) models: Vec<String>,
    pub(crate) stream_usage: bool,
    tokenizer: Option<Tokenizer>,
    output_field: Option<OutputField>,
}

impl Backend {
    /// Reads the key from where the config says. Nothing is connected to.
    pub(crate) fn open(config: &BackendConfig) -> Result<Self, GatewayError> {
        let wrong = |message: String| GatewayError::Backend { backend: config.name.clone(), message };
        let Provider::OpenAI = config.provider;
        let (scheme, authority, prefix) = address(&config.base_url).map_err(wrong)?;
        Ok(Self {
            name: config.name.clone(),
            scheme,
            authority,
            prefix,
            key: load_key(config)?,
            pass_client_key: config.pass_client_key,
            models: config.models.clone(),
            stream_usage: config.stream_usage,
            tokenizer: config.tokenizer,
            output_field: config.output_field,
        })
    }

    /// A backend that only a policy describes: at its endpoint, or at the provider's public one.
    pub(crate) fn described(spec: &BackendSpec, secrets: &Secrets) -> Result<Self, Unusable> {
        let wrong = |problem: String| Unusable::Wrong { backend: spec.name.clone(), problem };
        let public = match spec.provider {
            ProviderKind::OpenAI => "https://api.openai.com",
            // Its OpenAI-compatible API.
            ProviderKind::Anthropic => "https://api.anthropic.com",
            other => {
                return Err(Unusable::NotSpoken { backend: spec.name.clone(), kind: other.name() });
            }
        };
        let key = match &spec.auth {
            None => None,
            Some(AuthSpec::ApiKey { secret }) => {
                let name = SecretName { namespace: &secret.namespace, name: &secret.name, key: &secret.key };
                Some(secrets.bearer(name).map_err(wrong)?)
            }
            Some(AuthSpec::Aws { .. } | AuthSpec::Azure { .. } | AuthSpec::Gcp { .. }) => {
                return Err(wrong("its credentials are not an API key, the only kind used here".to_owned()));
            }
        };
        let host = match &spec.endpoint {
            None => public.to_owned(),
            Some(endpoint) => {
                let scheme = if endpoint.tls { "https" } else { "http" };
                let host = &endpoint.host;
                let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
                format!("{scheme}://{host}:{}", endpoint.port)
            }
        };
        let prefix = spec.path_prefix.as_deref().unwrap_or("/v1").trim_matches('/');
        let (scheme, authority, prefix) = address(&format!("{host}/{prefix}")).map_err(wrong)?;
        Ok(Self {
            name: backends::bare(&spec.name).to_owned(),
            scheme,
            authority,
            prefix,
            key,
            pass_client_key: false,
            models: Vec::new(),
            stream_usage: true,
            tokenizer: None,
            output_field: None,
        })
    }

    /// The URL of `path` (with a leading slash) below the base URL, the client's query appended.
    pub(crate) fn url(&self, path: &str, query: Option<&str>) -> Result<Uri, http::Error> {
        let mut target = format!("{}{path}", self.prefix);
        if let Some(query) = query {
            target.push('?');
            target.push_str(query);
        }
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(target)
            .build()
    }

    pub(crate) fn tokenizer(&self, model: &str) -> Tokenizer {
        self.tokenizer.unwrap_or_else(|| Tokenizer::for_model(model))
    }

    pub(crate) fn output_field(&self, endpoint: Endpoint, model: &str) -> OutputField {
        match endpoint {
            Endpoint::Chat => self.output_field.unwrap_or_else(|| OutputField::for_model(endpoint, model)),
            Endpoint::Completions | Endpoint::Embeddings => OutputField::MaxTokens,
        }
    }
}

/// Scheme, authority and path of a base URL.
fn address(base_url: &str) -> Result<(uri::Scheme, uri::Authority, String), String> {
    let url: Uri = base_url.parse().map_err(|error| format!("base_url is no URL: {error}"))?;
    let parts = url.into_parts();
    let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
        return Err("base_url must begin with http:// or https:// and name a host".to_owned());
    };
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
    let path = parts.path_and_query.as_ref().map_or("", |path| path.path());
    Ok((scheme, authority, path.trim_end_matches('/').to_owned()))
}

fn load_key(config: &BackendConfig) -> Result<Option<Secret>, GatewayError> {
    let wrong = |message: String| GatewayError::Backend { backend: config.name.clone(), message };
    let (key, origin) = if let Some(variable) = &config.api_key_env {
        let origin = format!("environment variable {variable}");
        (
            std::env::var(variable)
                .map_err(|_| wrong(format!("{origin} is not set; put the provider's key into it")))?,
            origin,
        )
    } else if let Some(path) = &config.api_key_file {
        let origin = format!("file {}", path.display());
        (
            std::fs::read_to_string(path).map_err(|error| wrong(format!("cannot read {origin}: {error}")))?,
            origin,
        )
    } else {
        return Ok(None);
    };
    match Secret::bearer(&key) {
        Some(secret) => Ok(Some(secret)),
        None => {
            Err(wrong(format!("{origin} holds no usable key: it is empty or has control characters in it")))
        }
    }
}

/// Link-local and unspecified addresses: where clouds keep their metadata services, and never a provider.
pub(crate) fn is_forbidden(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_unspecified(),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => is_forbidden(IpAddr::V4(v4)),
            None => v6.is_unicast_link_local() || v6.is_unspecified(),
        },
    }
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
            "",
        ] {
            assert!(Backend::open(&config(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn forbidden_addresses() {
        for (address, forbidden) in
            [("169.254.1.1", true), ("::ffff:169.254.1.1", true), ("fe80::1", true), ("127.0.0.1", false)]
        {
            assert_eq!(is_forbidden(address.parse().unwrap()), forbidden, "{address}");
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
        assert!(open.key.is_some() && !format!("{open:?}").contains("sk-hidden"));
    }
}
