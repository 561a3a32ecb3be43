//! Credentials for AWS and what is signed with them. Where they come from, in the order of AWS's SDKs: environment,
//! profile of the credentials file, web identity, and the machine itself where the config allows it.
//!
//! Deliberately absent: profiles that assume roles, SSO and `credential_process`.

use std::{path::PathBuf, time::Duration, time::SystemTime};

use aws_credential_types::Credentials;
use bytes::Bytes;
use http::Request;
use http_body_util::Full;

use super::{
    Env, Fetch, aws_fetch,
    aws_file::{self, PROVIDER},
    renewed::{Lease, Renewed},
    sign::sign_request,
};

/// Files and variables are looked at again: somebody may rotate the keys.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) enum Source {
    /// From a secret of the policy.
    Fixed(Credentials),
    File {
        path: PathBuf,
        /// `None`: `default`.
        profile: Option<String>,
    },
    Surroundings {
        env: Env,
        profile: Option<String>,
        /// The machine may be asked.
        instance: bool,
    },
}

#[derive(Debug)]
pub(crate) struct Signer {
    region: String,
    source: Source,
    credentials: Renewed<Credentials>,
}

impl Signer {
    pub(super) fn new(region: &str, source: Source) -> Self {
        Self { region: region.to_owned(), source, credentials: Renewed::default() }
    }

    pub(super) async fn sign(
        &self,
        fetch: &Fetch,
        request: &mut Request<Full<Bytes>>,
        body: &[u8],
    ) -> Result<(), String> {
        let credentials = self.credentials.get(|| self.find(fetch)).await?;
        sign_request(request, body, &credentials, &self.region, SystemTime::now())
    }

    async fn find(&self, fetch: &Fetch) -> Result<Lease<Credentials>, String> {
        match &self.source {
            Source::Fixed(credentials) => Ok(Lease::new(credentials.clone(), None)),
            Source::File { path, profile } => {
                let profile = profile.as_deref().unwrap_or("default");
                let found = aws_file::read(path, profile).await?;
                let found = found.ok_or_else(|| format!("{} is missing", path.display()))?;
                Ok(Lease::looked_at_again(found, LOOK_AGAIN))
            }
            Source::Surroundings { env, profile, instance } => {
                self.surroundings(fetch, env, profile.as_deref(), *instance).await
            }
        }
    }

    async fn surroundings(
        &self,
        fetch: &Fetch,
        env: &Env,
        profile: Option<&str>,
        instance: bool,
    ) -> Result<Lease<Credentials>, String> {
        if let (None, Some(credentials)) = (profile, of_variables(env)?) {
            return Ok(Lease::looked_at_again(credentials, LOOK_AGAIN));
        }
        let named = profile.map(str::to_owned).or_else(|| env.get("AWS_PROFILE"));
        if let Some(path) = file(env)
            && let Some(found) =
                aws_file::find(&path, named.as_deref().unwrap_or("default"), named.is_some()).await?
        {
            return Ok(Lease::looked_at_again(found, LOOK_AGAIN));
        }
        if let Some(profile) = named {
            return Err(format!("there is no credentials file with the profile {profile}"));
        }
        if let Some(lease) = aws_fetch::web_identity(fetch, env, &self.region).await? {
            return Ok(lease);
        }
        if instance {
            return match aws_fetch::container(fetch, env).await? {
                Some(lease) => Ok(lease),
                None => aws_fetch::machine(fetch, env).await,
            };
        }
        Err("no credentials for AWS: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, write ~/.aws/credentials, or let \
             the machine be asked (aws.instance of the backend, secrets.aws_instance for those of the policy)"
            .to_owned())
    }
}

fn of_variables(env: &Env) -> Result<Option<Credentials>, String> {
    match (env.get("AWS_ACCESS_KEY_ID"), env.get("AWS_SECRET_ACCESS_KEY")) {
        (Some(id), Some(secret)) => {
            Ok(Some(Credentials::new(id, secret, env.get("AWS_SESSION_TOKEN"), None, PROVIDER)))
        }
        (None, None) => Ok(None),
        (Some(_), None) => Err("AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not".to_owned()),
        (None, Some(_)) => Err("AWS_SECRET_ACCESS_KEY is set and AWS_ACCESS_KEY_ID is not".to_owned()),
    }
}

/// The shared credentials file, whether it is there or not.
fn file(env: &Env) -> Option<PathBuf> {
    if let Some(path) = env.get("AWS_SHARED_CREDENTIALS_FILE") {
        return Some(PathBuf::from(path));
    }
    Some(PathBuf::from(env.get("HOME")?).join(".aws/credentials"))
}
