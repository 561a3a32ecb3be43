//! One configured backend, checked and with its key loaded.

use std::{collections::HashMap, net::IpAddr};

use http::{Uri, uri};

use crate::{
    config::{BackendConfig, Provider},
    error::GatewayError,
    provider::{Endpoint, splice::OutputField},
    secret::Secret,
    tokenizer::Tokenizer,
};

#[derive(Debug)]
pub(crate) struct Backend {
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
        let url: Uri =
            config.base_url.parse().map_err(|error| wrong(format!("base_url is no URL: {error}")))?;
        let parts = url.into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
            return Err(wrong("base_url must begin with http:// or https:// and name a host".to_owned()));
        };
        if scheme != uri::Scheme::HTTP && scheme != uri::Scheme::HTTPS {
            return Err(wrong(format!("base_url must begin with http:// or https://, not {scheme}://")));
        }
        if authority.as_str().contains('@') {
            return Err(wrong(
                "base_url must not hold credentials; use api_key_env or api_key_file".to_owned(),
            ));
        }
        let literal = authority.host().trim_matches(['[', ']']).parse::<IpAddr>();
        if literal.is_ok_and(is_forbidden) {
            return Err(wrong("base_url is a link-local address, where no provider is".to_owned()));
        }
        let path = parts.path_and_query.as_ref().map_or("", |path| path.path());
        Ok(Self {
            name: config.name.clone(),
            scheme,
            authority,
            prefix: path.trim_end_matches('/').to_owned(),
            key: load_key(config)?,
            pass_client_key: config.pass_client_key,
            models: config.models.clone(),
            stream_usage: config.stream_usage,
            tokenizer: config.tokenizer,
            output_field: config.output_field,
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

/// All backends, and which one serves a model.
#[derive(Debug)]
pub(crate) struct Backends {
    all: Vec<std::sync::Arc<Backend>>,
    by_model: HashMap<String, usize>,
    /// The first that lists no models.
    any: Option<usize>,
}

impl Backends {
    pub(crate) fn open(configs: &[BackendConfig]) -> Result<Self, GatewayError> {
        let mut by_model = HashMap::new();
        let mut all = Vec::with_capacity(configs.len());
        for (index, config) in configs.iter().enumerate() {
            for model in &config.models {
                by_model.entry(model.clone()).or_insert(index);
            }
            all.push(std::sync::Arc::new(Backend::open(config)?));
        }
        let any = configs.iter().position(|config| config.models.is_empty());
        Ok(Self { all, by_model, any })
    }

    pub(crate) fn for_model(&self, model: &str) -> Option<&std::sync::Arc<Backend>> {
        self.by_model.get(model).copied().or(self.any).and_then(|index| self.all.get(index))
    }

    /// The backend that serves any model, if there is one.
    pub(crate) fn any(&self) -> Option<&std::sync::Arc<Backend>> {
        self.any.and_then(|index| self.all.get(index))
    }

    pub(crate) fn all(&self) -> &[std::sync::Arc<Backend>] {
        &self.all
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

    #[test]
    fn the_first_that_lists_the_model_then_the_first_that_takes_any() {
        let mut listed = config("http://127.0.0.1:1/");
        listed.models = vec!["a".to_owned()];
        let mut any = config("http://127.0.0.1:2/");
        any.name = "any".to_owned();
        let backends = Backends::open(&[listed.clone(), any]).unwrap();
        assert_eq!(backends.for_model("a").unwrap().name, "b");
        assert_eq!(backends.for_model("z").unwrap().name, "any");
        assert!(Backends::open(&[listed]).unwrap().for_model("z").is_none());
    }
}
