//! How a gateway proves itself to a backend, put onto the finished request just before it is sent. What a client sent is
//! not looked at here; `headers` has left it out or passed it on.

mod aws;
mod aws_fetch;
mod aws_file;
mod entra;
mod fetch;
mod renewed;
mod sign;

use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::{HeaderName, Request, header};
use http_body_util::Full;
use quorate_policy::runtime::{AuthSpec, ProviderKind, SecretRef};

pub(crate) use fetch::Fetch;

use crate::{
    config::BackendConfig,
    secret::{Secret, SecretText},
    secrets::{SecretName, Secrets},
};

type Look = dyn Fn(&str) -> Option<String> + Send + Sync;

/// The environment's variables; tests bring their own.
#[derive(Clone)]
pub(crate) struct Env(Arc<Look>);

impl Env {
    pub(crate) fn process() -> Self {
        Self(Arc::new(|name| std::env::var(name).ok()))
    }

    #[cfg(test)]
    pub(crate) fn of(variables: &[(&str, &str)]) -> Self {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let variables: std::collections::HashMap<String, String> = variables.iter().map(own).collect();
        Self(Arc::new(move |name| variables.get(name).cloned()))
    }

    /// `None` also for what is empty.
    fn get(&self, name: &str) -> Option<String> {
        (self.0)(name).filter(|value| !value.trim().is_empty())
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Env")
    }
}

#[derive(Debug)]
pub(crate) enum Auth {
    /// Nothing is shown, or what the client sent.
    Open,
    Key {
        header: HeaderName,
        value: Secret,
    },
    Aws(aws::Signer),
    Entra(entra::Tokens),
}

impl Auth {
    /// As the config file says.
    pub(crate) fn configured(
        config: &BackendConfig,
        region: Option<&str>,
        env: &Env,
    ) -> Result<Self, String> {
        let kind = config.provider.kind();
        if let Some(key) = given(config.api_key_env.as_deref(), config.api_key_file.as_deref(), "key", env)? {
            return Self::key(kind, &key);
        }
        if let Some(entra) = &config.entra {
            let secret = given(
                entra.client_secret_env.as_deref(),
                entra.client_secret_file.as_deref(),
                "secret",
                env,
            )?;
            return entra::Tokens::new(&entra.tenant_id, &entra.client_id, secret.as_ref(), env.clone())
                .map(Self::Entra);
        }
        if !is_aws(kind) {
            return Ok(Self::Open);
        }
        let aws = &config.aws;
        let source = match &aws.credentials_file {
            Some(path) => aws::Source::File { path: path.clone(), profile: aws.profile.clone() },
            None => {
                let profile = aws.profile.clone();
                aws::Source::Surroundings { env: env.clone(), profile, instance: aws.instance }
            }
        };
        Self::aws(source, region)
    }

    /// As the policy says. `region`: that of the backend's address.
    pub(crate) fn described(
        kind: ProviderKind,
        auth: Option<&AuthSpec>,
        region: Option<&str>,
        secrets: &Secrets,
        env: &Env,
    ) -> Result<Self, String> {
        let find = |secret: &SecretRef| {
            secrets.find(SecretName { namespace: &secret.namespace, name: &secret.name, key: &secret.key })
        };
        let unfit = |what: &str| {
            let name = kind.name();
            Err(format!("{what} are of no use to a backend of kind {name}; give it an API key"))
        };
        match auth {
            None => Ok(Self::Open),
            Some(AuthSpec::ApiKey { secret }) => Self::key(kind, &find(secret)?),
            Some(AuthSpec::Aws { .. }) if !is_aws(kind) => unfit("AWSCredentials"),
            Some(AuthSpec::Aws { region: named, secret, profile }) => {
                let source = match secret {
                    Some(secret) => {
                        let profile = profile.as_deref().unwrap_or("default");
                        aws::Source::Fixed(aws_file::parse_secret(&find(secret)?, profile)?)
                    }
                    None => {
                        let instance = secrets.aws_instance;
                        aws::Source::Surroundings { env: env.clone(), profile: None, instance }
                    }
                };
                Self::aws(source, Some(named.as_str()).or(region))
            }
            Some(AuthSpec::Azure { .. })
                if !matches!(kind, ProviderKind::AzureOpenAI | ProviderKind::OpenAI) =>
            {
                unfit("AzureCredentials")
            }
            Some(AuthSpec::Azure { client_id, tenant_id, secret }) => {
                let secret = secret.as_ref().map(find).transpose()?;
                entra::Tokens::new(tenant_id, client_id, secret.as_ref(), env.clone()).map(Self::Entra)
            }
            Some(AuthSpec::Gcp { .. }) => Err("GCPCredentials are not supported here".to_owned()),
        }
    }

    /// An API key, in the header that the provider wants it in.
    fn key(kind: ProviderKind, key: &SecretText) -> Result<Self, String> {
        let (header, value) = match kind {
            ProviderKind::AzureOpenAI => (HeaderName::from_static("api-key"), Secret::bare(&key.text)),
            ProviderKind::Anthropic => (HeaderName::from_static("x-api-key"), Secret::bare(&key.text)),
            _ => (header::AUTHORIZATION, Secret::bearer(&key.text)),
        };
        let value = value.ok_or_else(|| {
            format!(
                "{} holds no usable key: it is empty or has control characters in it; correct it",
                key.place
            )
        })?;
        Ok(Self::Key { header, value })
    }

    /// With a Bedrock API key of the environment in place of a signature, as AWS's SDKs do.
    fn aws(source: aws::Source, region: Option<&str>) -> Result<Self, String> {
        if let aws::Source::Surroundings { env, profile: None, .. } = &source
            && let Some(text) = env.get("AWS_BEARER_TOKEN_BEDROCK")
        {
            let place = "environment variable AWS_BEARER_TOKEN_BEDROCK".to_owned();
            return Self::key(ProviderKind::AWSBedrock, &SecretText { text, place });
        }
        let region = region.ok_or("its AWS region is not known; name it in region")?;
        Ok(Self::Aws(aws::Signer::new(region, source)))
    }

    /// Signs, or puts the key on. `body`: that of the request, which is not changed any more.
    ///
    /// # Errors
    /// No credentials could be had; for the log.
    pub(crate) async fn apply(
        &self,
        fetch: &Fetch,
        request: &mut Request<Full<Bytes>>,
        body: &Bytes,
    ) -> Result<(), String> {
        match self {
            Self::Open => {}
            Self::Key { header, value } => {
                request.headers_mut().insert(header.clone(), value.header());
            }
            Self::Aws(signer) => signer.sign(fetch, request, body).await?,
            Self::Entra(tokens) => {
                let token = tokens.token(fetch).await?;
                request.headers_mut().insert(header::AUTHORIZATION, token.header());
            }
        }
        Ok(())
    }
}

pub(crate) fn is_aws(kind: ProviderKind) -> bool {
    matches!(kind, ProviderKind::AWSBedrock | ProviderKind::AWSAnthropic)
}

/// The secret that the config names, if it names one.
fn given(
    variable: Option<&str>,
    file: Option<&std::path::Path>,
    what: &str,
    env: &Env,
) -> Result<Option<SecretText>, String> {
    if let Some(variable) = variable {
        let place = format!("environment variable {variable}");
        let text = env
            .get(variable)
            .ok_or_else(|| format!("{place} is not set; put the provider's {what} into it"))?;
        return Ok(Some(SecretText { text, place }));
    }
    let Some(path) = file else { return Ok(None) };
    let place = format!("file {}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {place}: {error}"))?;
    Ok(Some(SecretText { text, place }))
}
