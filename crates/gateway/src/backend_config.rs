//! What the config file says of one backend, and where secrets are. Every key has a comment; unknown keys are refused.

use std::{fmt, path::PathBuf};

use http::Uri;
use quorate_policy::runtime::ProviderKind;
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::{provider::splice::OutputField, tokenizer::Tokenizer};

/// One configured endpoint of a provider. Clients can never name another.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackendConfig {
    /// Unique; the value of `x-ai-provider` in answers.
    pub name: String,
    pub provider: Provider,
    /// OpenAI, Anthropic: up to and including the version, `https://api.openai.com/v1`. AzureOpenAI: the resource,
    /// `https://NAME.openai.azure.com`. AWS: `https://bedrock-runtime.REGION.amazonaws.com`. Default: the provider's
    /// public address; Azure has none.
    #[serde(default)]
    pub base_url: String,
    /// The environment variable that holds the key. At most one of this and `api_key_file`; neither: no key is sent, and
    /// AWS requests are signed.
    #[serde(default)]
    pub api_key_env: Option<String>,
    /// The file that holds the key; white space around it is ignored.
    #[serde(default)]
    pub api_key_file: Option<PathBuf>,
    /// Of Azure's API. Default: 2024-10-21.
    #[serde(default)]
    pub api_version: Option<String>,
    /// Of AWS; needed unless `base_url` names it.
    #[serde(default)]
    pub region: Option<String>,
    /// Where credentials for AWS come from. Default: environment, profile, web identity.
    #[serde(default)]
    pub aws: AwsConfig,
    /// An application of Microsoft Entra ID in place of an API key, for Azure.
    #[serde(default)]
    pub entra: Option<EntraConfig>,
    /// The models served here; empty: any.
    #[serde(default)]
    pub models: Vec<String>,
    /// Forward the client's own key instead of one of the gateway. Default: false.
    #[serde(default)]
    pub pass_client_key: bool,
    /// Ask for usage in streams (`stream_options.include_usage`). Default: true; false for servers that refuse it,
    /// whose streams are then counted with the tokenizer.
    #[serde(default = "yes")]
    pub stream_usage: bool,
    /// How the input is counted when the budget is short. Default: by the model's name, bytes if it is not known.
    #[serde(default)]
    pub tokenizer: Option<Tokenizer>,
    /// The name of the output limit sent upstream. Default: `max_completion_tokens` for the chat models of OpenAI,
    /// `max_tokens` for all others.
    #[serde(default)]
    pub output_field: Option<OutputField>,
    /// Serve every backend of this provider that the policy describes and that has no entry of its own, and those of
    /// providers for which none stands in, if it is the first: for trying policies out against a simulated provider.
    /// Default: false.
    #[serde(default)]
    pub stand_in: bool,
    #[serde(default)]
    pub limits: BackendLimits,
    #[serde(default)]
    pub timeouts: BackendTimeouts,
    /// `http://host:port` of a proxy, or `none`. Default: as HTTPS_PROXY, HTTP_PROXY and NO_PROXY say.
    #[serde(default)]
    pub proxy: Option<Proxy>,
    /// Certificates in PEM: of the only authorities that count. Default: the public ones.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// The name that its certificate must have. Default: the host of `base_url`.
    #[serde(default)]
    pub tls_server_name: Option<String>,
}

impl BackendConfig {
    /// With the defaults of a config file.
    pub fn new(name: &str, provider: Provider, base_url: String) -> Self {
        Self {
            name: name.to_owned(),
            provider,
            base_url,
            api_key_env: None,
            api_key_file: None,
            api_version: None,
            region: None,
            aws: AwsConfig::default(),
            entra: None,
            models: Vec::new(),
            pass_client_key: false,
            stream_usage: true,
            tokenizer: None,
            output_field: None,
            stand_in: false,
            limits: BackendLimits::default(),
            timeouts: BackendTimeouts::default(),
            proxy: None,
            ca_file: None,
            tls_server_name: None,
        }
    }

    /// What the types cannot say; the message goes on after the entry's place.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let kind = self.provider.kind();
        let is_aws = matches!(kind, ProviderKind::AWSBedrock | ProviderKind::AWSAnthropic);
        let has_key = self.api_key_env.is_some() || self.api_key_file.is_some();
        let wrongs = [
            (
                self.api_key_env.is_some() && self.api_key_file.is_some(),
                "name api_key_env or api_key_file, not both",
            ),
            (
                self.pass_client_key && (has_key || self.entra.is_some()),
                "with pass_client_key the gateway has no key of its own; remove one of the two",
            ),
            (
                self.pass_client_key && is_aws,
                "AWS requests are signed by the gateway; remove pass_client_key",
            ),
            (has_key && self.entra.is_some(), "name an API key or entra, not both"),
            (
                self.entra.as_ref().is_some_and(|entra| {
                    entra.client_secret_env.is_some() && entra.client_secret_file.is_some()
                }),
                "name entra.client_secret_env or entra.client_secret_file, not both",
            ),
            (self.entra.is_some() && is_aws, "entra is for Azure; AWS requests are signed, see the key aws"),
            (
                !is_aws && (self.aws != AwsConfig::default() || self.region.is_some()),
                "aws and region are for AWSBedrock and AWSAnthropic only",
            ),
            (
                has_key && self.aws != AwsConfig::default(),
                "an API key goes without a signature; remove it, or remove aws",
            ),
            (
                self.api_version.is_some() && kind != ProviderKind::AzureOpenAI,
                "api_version is for AzureOpenAI only",
            ),
            (
                self.base_url.is_empty() && kind == ProviderKind::AzureOpenAI,
                "base_url is missing; name the resource, https://NAME.openai.azure.com",
            ),
            (self.limits.in_flight_max == Some(0), "limits.in_flight_max must be at least 1"),
            (
                self.timeouts.connect_ms == Some(0) || self.timeouts.first_byte_ms == Some(0),
                "timeouts must be at least 1",
            ),
        ];
        wrongs.into_iter().find(|(wrong, _)| *wrong).map_or(Ok(()), |(_, message)| Err(message))
    }
}

/// Which API a backend speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Provider {
    /// OpenAI's, or a server compatible with it.
    OpenAI,
    /// OpenAI's models at Azure.
    AzureOpenAI,
    Anthropic,
    /// Converse.
    AWSBedrock,
    /// Anthropic's own messages, at Bedrock.
    AWSAnthropic,
}

impl Provider {
    pub(crate) fn kind(self) -> ProviderKind {
        match self {
            Self::OpenAI => ProviderKind::OpenAI,
            Self::AzureOpenAI => ProviderKind::AzureOpenAI,
            Self::Anthropic => ProviderKind::Anthropic,
            Self::AWSBedrock => ProviderKind::AWSBedrock,
            Self::AWSAnthropic => ProviderKind::AWSAnthropic,
        }
    }
}

/// Where credentials for AWS come from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AwsConfig {
    /// Of the credentials file. Default: AWS_PROFILE, else `default`.
    pub profile: Option<String>,
    /// Default: AWS_SHARED_CREDENTIALS_FILE, else `~/.aws/credentials`.
    pub credentials_file: Option<PathBuf>,
    /// Ask the machine (ECS, EKS, EC2) where nothing else is there. Default: false.
    pub instance: bool,
}

/// An application of Microsoft Entra ID.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntraConfig {
    pub tenant_id: String,
    pub client_id: String,
    /// The environment variable that holds the client's secret. At most one of this and `client_secret_file`; neither:
    /// the token in AZURE_FEDERATED_TOKEN_FILE stands for it.
    #[serde(default)]
    pub client_secret_env: Option<String>,
    #[serde(default)]
    pub client_secret_file: Option<PathBuf>,
}

/// Bounds on one backend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BackendLimits {
    /// Requests at the same time, and so connections of HTTP/1; more go to the next backend. Default: no bound.
    pub in_flight_max: Option<usize>,
}

/// In place of the gateway's own, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BackendTimeouts {
    pub connect_ms: Option<u64>,
    pub first_byte_ms: Option<u64>,
}

/// The way to a backend.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Proxy {
    /// None, whatever the environment says.
    None,
    /// May hold a name and a password: never shown.
    Url(String),
}

impl<'de> Deserialize<'de> for Proxy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "none" {
            return Ok(Self::None);
        }
        let url = text.parse::<Uri>().ok();
        let scheme = url.as_ref().filter(|url| url.host().is_some()).and_then(Uri::scheme_str);
        match scheme {
            Some("http" | "https") => Ok(Self::Url(text)),
            _ => Err(D::Error::custom("proxy must be none, http://host:port or https://host:port")),
        }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Url(url) => write!(f, "Url({})", url.rsplit('@').next().unwrap_or_default()),
        }
    }
}

/// Where secrets are looked for, in this order. A policy only names them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SecretsConfig {
    /// `DIR/NAMESPACE/NAME/KEY`, then `DIR/NAME/KEY`, as Kubernetes mounts a Secret. Default: /etc/quorate/secrets.
    pub dir: PathBuf,
    /// Then the variable of this prefix, `NAME_KEY` in upper case. Default: `QUORATE_SECRET_`.
    pub env_prefix: String,
    /// Then files of `kind: Secret` and `kind: ConfigMap` manifests.
    pub files: Vec<PathBuf>,
    /// For AWS backends of the policy without a secret: ask the machine (ECS, EKS, EC2) where neither environment nor
    /// profile has credentials. Default: false.
    pub aws_instance: bool,
}

impl Default for SecretsConfig {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("/etc/quorate/secrets"),
            env_prefix: "QUORATE_SECRET_".to_owned(),
            files: Vec::new(),
            aws_instance: false,
        }
    }
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<BackendConfig, String> {
        serde_yaml_ng::from_str::<BackendConfig>(text).map_err(|error| error.to_string())
    }

    #[test]
    fn what_does_not_go_together_is_named() {
        for (text, said) in [
            ("provider: AzureOpenAI", "base_url is missing"),
            ("provider: OpenAI, region: eu-central-1", "aws and region"),
            ("provider: OpenAI, api_version: '2024-10-21'", "api_version"),
            ("provider: AWSBedrock, pass_client_key: true", "signed by the gateway"),
            ("provider: AWSBedrock, api_key_env: K, aws: {instance: true}", "without a signature"),
            ("provider: AWSBedrock, entra: {tenant_id: t, client_id: c}", "entra is for Azure"),
            (
                "provider: AzureOpenAI, base_url: 'https://a', api_key_env: K, entra: {tenant_id: t, client_id: c}",
                "an API key or entra",
            ),
            ("provider: OpenAI, limits: {in_flight_max: 0}", "in_flight_max must be at least 1"),
            ("provider: OpenAI, timeouts: {connect_ms: 0}", "timeouts must be at least 1"),
        ] {
            let error = read(&format!("{{name: b, {text}}}")).unwrap().check().unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
        for text in ["OpenAI", "Anthropic", "AWSBedrock", "AWSAnthropic, region: us-east-1"] {
            assert_eq!(read(&format!("{{name: b, provider: {text}}}")).unwrap().check(), Ok(()), "{text}");
        }
        assert!(read("{name: b, provider: Cohere}").unwrap_err().contains("AWSAnthropic"));
    }

    #[test]
    fn a_proxys_password_is_never_shown() {
        let config = read("{name: b, provider: OpenAI, proxy: 'http://me:hush@proxy:3128'}").unwrap();
        let shown = format!("{config:?}");
        assert!(shown.contains("proxy:3128") && !shown.contains("hush"), "{shown}");
        for wrong in ["socks5://me:hush@proxy:1", "proxy:3128", ""] {
            let error = read(&format!("{{name: b, provider: OpenAI, proxy: '{wrong}'}}")).unwrap_err();
            assert!(error.contains("proxy must be") && !error.contains("hush"), "{error}");
        }
    }
}
