//! All backends: those of the config, and those that a policy describes. An entry of the config wins over a manifest of
//! the same name, so that a deployment can point a policy's backend at a server of its own.

use std::{collections::HashMap, sync::Arc};

use quorate_policy::runtime::BackendSpec;
use thiserror::Error;

use crate::{backend::Backend, config::BackendConfig, error::GatewayError, secrets::Secrets};

/// Why a backend cannot serve here. Goes to the client and into the log: no keys, only where they were looked for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum Unusable {
    #[error(
        "backend {backend} is of kind {kind}, which this gateway does not speak; it speaks OpenAI, AzureOpenAI, Anthropic, AWSBedrock and AWSAnthropic"
    )]
    NotSpoken { backend: String, kind: &'static str },
    #[error("backend {backend} cannot be used: {problem}")]
    Wrong { backend: String, problem: String },
}

impl Unusable {
    /// The reason is in the log: it may speak of accounts.
    pub(crate) fn no_credentials(backend: String) -> Self {
        let problem = "this gateway could not get credentials for it; its log says why".to_owned();
        Self::Wrong { backend, problem }
    }
}

/// The backends of the config.
#[derive(Debug)]
pub(crate) struct Configured {
    all: Vec<Arc<Backend>>,
    by_model: HashMap<String, usize>,
    /// The first that lists no models.
    any: Option<usize>,
    /// Those that stand in for what only a policy describes.
    stand_ins: Vec<usize>,
}

impl Configured {
    pub(crate) fn open(configs: &[BackendConfig]) -> Result<Self, GatewayError> {
        let mut by_model = HashMap::new();
        let mut all = Vec::with_capacity(configs.len());
        for (index, config) in configs.iter().enumerate() {
            for model in &config.models {
                by_model.entry(model.clone()).or_insert(index);
            }
            all.push(Arc::new(Backend::open(config)?));
        }
        let any = configs.iter().position(|config| config.models.is_empty());
        let stand_ins = configs.iter().enumerate().filter(|(_, config)| config.stand_in);
        let stand_ins = stand_ins.map(|(index, _)| index).collect();
        Ok(Self { all, by_model, any, stand_ins })
    }

    /// Where requests go that no route takes: the first that lists the model, else the first that lists none.
    pub(crate) fn for_model(&self, model: &str) -> Option<&Arc<Backend>> {
        self.by_model.get(model).copied().or(self.any).and_then(|index| self.all.get(index))
    }

    /// The backend that serves any model, if there is one.
    pub(crate) fn any(&self) -> Option<&Arc<Backend>> {
        self.any.and_then(|index| self.all.get(index))
    }

    pub(crate) fn all(&self) -> &[Arc<Backend>] {
        &self.all
    }

    /// The entry for `namespace/name`: of that whole name, else of the bare one.
    fn named(&self, name: &str) -> Option<&Arc<Backend>> {
        let find = |name: &str| self.all.iter().find(|backend| backend.name == name);
        find(name).or_else(|| find(bare(name)))
    }

    /// The one that serves in the place of this backend of a policy, under its name: the first of its kind, else the first.
    fn standing_in(&self, spec: &BackendSpec) -> Option<Arc<Backend>> {
        let stand_ins = || self.stand_ins.iter().filter_map(|index| self.all.get(*index));
        let of_kind = stand_ins().find(|backend| backend.kind == spec.provider);
        let mut backend = Backend::clone(of_kind.or_else(|| stand_ins().next())?);
        bare(&spec.name).clone_into(&mut backend.name);
        Some(Arc::new(backend))
    }
}

/// `name` of `namespace/name`.
pub(crate) fn bare(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// The backends as one policy names them.
#[derive(Debug, Default)]
pub(crate) struct Backends {
    by_name: HashMap<String, Result<Arc<Backend>, Unusable>>,
}

impl Backends {
    /// Opens those that only the policy describes. Never fails: what cannot be used is refused when it is needed.
    pub(crate) fn of(specs: &[BackendSpec], configured: &Configured, secrets: &Secrets) -> Self {
        let mut by_name = HashMap::with_capacity(specs.len());
        for spec in specs {
            let own = configured.named(&spec.name).cloned();
            let opened = match own.or_else(|| configured.standing_in(spec)) {
                Some(backend) => Ok(backend),
                None => Backend::described(spec, secrets).map(Arc::new),
            };
            if let Err(unusable) = &opened {
                tracing::warn!(%unusable, "requests pass this backend over");
            }
            by_name.insert(spec.name.clone(), opened);
        }
        Self { by_name }
    }

    /// By `namespace/name`, as routes say it.
    pub(crate) fn named(&self, name: &str, configured: &Configured) -> Result<Arc<Backend>, Unusable> {
        match self.by_name.get(name) {
            Some(opened) => opened.clone(),
            None => configured.named(name).cloned().ok_or_else(|| Unusable::Wrong {
                backend: name.to_owned(),
                problem: "neither the policy nor the gateway's config describes it; apply a manifest for it"
                    .to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use quorate_policy::runtime::{AuthSpec, Endpoint, ProviderKind, SecretRef};

    use super::*;
    use crate::config::SecretsConfig;

    fn config(name: &str, port: u16) -> BackendConfig {
        let text = format!("{{name: {name}, provider: OpenAI, base_url: 'http://127.0.0.1:{port}/v1'}}");
        serde_yaml_ng::from_str(&text).unwrap()
    }

    fn spec(name: &str, provider: ProviderKind) -> BackendSpec {
        BackendSpec {
            name: name.to_owned(),
            provider,
            endpoint: None,
            path_prefix: None,
            schema_version: None,
            tls: None,
            auth: None,
        }
    }

    fn url(backends: &Backends, configured: &Configured, name: &str) -> Result<String, Unusable> {
        let backend = backends.named(name, configured)?;
        Ok(backend.url("/chat/completions", None).unwrap().to_string())
    }

    #[test]
    fn the_first_that_lists_the_model_then_the_first_that_takes_any() {
        let mut listed = config("b", 1);
        listed.models = vec!["a".to_owned()];
        let configured = Configured::open(&[listed.clone(), config("any", 2)]).unwrap();
        assert_eq!(configured.for_model("a").unwrap().name, "b");
        assert_eq!(configured.for_model("z").unwrap().name, "any");
        assert!(Configured::open(&[listed]).unwrap().for_model("z").is_none());
    }

    #[test]
    fn a_stand_in_serves_what_only_a_policy_describes() {
        let mut mock = config("mock", 7);
        mock.stand_in = true;
        let claude = "{name: claude, provider: Anthropic, base_url: 'http://127.0.0.1:9/v1', stand_in: true}";
        let claude = serde_yaml_ng::from_str(claude).unwrap();
        let configured = Configured::open(&[mock, config("mine", 8), claude]).unwrap();
        let secrets = Secrets::open(&SecretsConfig::default()).unwrap();
        let specs = [
            spec("ns/openai", ProviderKind::OpenAI),
            spec("ns/mine", ProviderKind::Cohere),
            spec("ns/claude-2", ProviderKind::Anthropic),
        ];
        let backends = Backends::of(&specs, &configured, &secrets);
        for (name, expected) in [
            ("ns/openai", "http://127.0.0.1:7/v1/chat/completions"),
            ("ns/mine", "http://127.0.0.1:8/v1/chat/completions"),
            ("ns/claude-2", "http://127.0.0.1:9/v1/chat/completions"),
        ] {
            assert_eq!(url(&backends, &configured, name).as_deref(), Ok(expected), "{name}");
            assert_eq!(backends.named(name, &configured).unwrap().name, bare(name));
        }
        // A name that nothing describes stays a mistake of the policy.
        assert!(backends.named("ns/unknown", &configured).is_err());
    }

    #[test]
    fn the_config_wins_over_manifests_and_the_rest_has_well_known_addresses() {
        let configured = Configured::open(&[config("mine", 7), config("'ns/full'", 8)]).unwrap();
        let secrets = Secrets::open(&SecretsConfig::default()).unwrap();
        let mut own = spec("ns/own", ProviderKind::OpenAI);
        own.endpoint = Some(Endpoint { host: "llm.internal".to_owned(), port: 8443, tls: true });
        own.path_prefix = Some("/api/v1/".to_owned());
        let mut local = spec("ns/local", ProviderKind::OpenAI);
        local.endpoint = Some(Endpoint { host: "::1".to_owned(), port: 11434, tls: false });
        let mut metadata = spec("ns/metadata", ProviderKind::OpenAI);
        metadata.endpoint = Some(Endpoint { host: "169.254.169.254".to_owned(), port: 80, tls: false });
        let specs = [
            spec("ns/mine", ProviderKind::AWSBedrock),
            spec("ns/full", ProviderKind::OpenAI),
            spec("ns/openai", ProviderKind::OpenAI),
            spec("ns/anthropic", ProviderKind::Anthropic),
            spec("ns/cohere", ProviderKind::Cohere),
            own,
            local,
            metadata,
        ];
        let backends = Backends::of(&specs, &configured, &secrets);
        for (name, expected) in [
            ("ns/mine", "http://127.0.0.1:7/v1/chat/completions"),
            ("other/mine", "http://127.0.0.1:7/v1/chat/completions"),
            ("ns/full", "http://127.0.0.1:8/v1/chat/completions"),
            ("ns/openai", "https://api.openai.com/v1/chat/completions"),
            ("ns/anthropic", "https://api.anthropic.com/v1/chat/completions"),
            ("ns/own", "https://llm.internal:8443/api/v1/chat/completions"),
            ("ns/local", "http://[::1]:11434/v1/chat/completions"),
        ] {
            assert_eq!(url(&backends, &configured, name).as_deref(), Ok(expected), "{name}");
        }
        for (name, said) in [
            ("ns/cohere", "of kind Cohere"),
            ("ns/metadata", "link-local"),
            ("ns/none", "neither the policy"),
        ] {
            let error = url(&backends, &configured, name).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(said), "{error}");
        }
    }

    #[test]
    fn a_backend_without_its_secret_is_refused_and_others_work() {
        let configured = Configured::open(&[]).unwrap();
        let secrets = Secrets::open(&SecretsConfig::default()).unwrap();
        let mut keyed = spec("ns/keyed", ProviderKind::OpenAI);
        let secret = SecretRef {
            namespace: "ns".to_owned(),
            name: "no-such-credentials".to_owned(),
            key: "api-key".to_owned(),
        };
        keyed.auth = Some(AuthSpec::ApiKey { secret });
        let backends = Backends::of(&[keyed, spec("ns/open", ProviderKind::OpenAI)], &configured, &secrets);
        let error = url(&backends, &configured, "ns/keyed").unwrap_err().to_string();
        assert!(error.contains("QUORATE_SECRET_NO_SUCH_CREDENTIALS_API_KEY"), "{error}");
        assert!(url(&backends, &configured, "ns/open").is_ok());
    }
}
