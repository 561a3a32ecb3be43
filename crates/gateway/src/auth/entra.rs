//! Tokens of Microsoft Entra ID for Azure: an application proves itself with its secret, or with a federated token
//! (workload identity), and gets a bearer token for an hour or so.

use std::{fmt, time::Duration};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::Full;
use serde::Deserialize;

use super::{
    Env, Fetch,
    renewed::{Lease, Renewed},
};
use crate::{
    provider::percent,
    secret::{Secret, SecretText},
};

const SCOPE: &str = "https://cognitiveservices.azure.com/.default";
const AUTHORITY: &str = "https://login.microsoftonline.com";

pub(crate) struct Tokens {
    url: String,
    client_id: String,
    /// `None`: the federated token of the environment.
    client_secret: Option<String>,
    env: Env,
    token: Renewed<Secret>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Tokens");
        shown.field("url", &self.url).field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Given {
    access_token: String,
    expires_in: u64,
}

impl Tokens {
    pub(super) fn new(
        tenant_id: &str,
        client_id: &str,
        client_secret: Option<&SecretText>,
        env: Env,
    ) -> Result<Self, String> {
        let authority = env.get("AZURE_AUTHORITY_HOST").unwrap_or_else(|| AUTHORITY.to_owned());
        let url =
            format!("{}/{}/oauth2/v2.0/token", authority.trim_end_matches('/'), percent::encoded(tenant_id));
        let client_secret = client_secret.map(|secret| secret.text.trim().to_owned());
        if client_secret.as_ref().is_some_and(String::is_empty) {
            return Err("its client secret is empty".to_owned());
        }
        if client_secret.is_none() && env.get("AZURE_FEDERATED_TOKEN_FILE").is_none() {
            return Err(
                "AzureCredentials need a client secret, or a workload identity (AZURE_FEDERATED_TOKEN_FILE)"
                    .to_owned(),
            );
        }
        Ok(Self { url, client_id: client_id.to_owned(), client_secret, env, token: Renewed::default() })
    }

    /// Ready for `authorization`.
    pub(super) async fn token(&self, fetch: &Fetch) -> Result<Secret, String> {
        self.token.get(|| self.fetch(fetch)).await
    }

    async fn fetch(&self, fetch: &Fetch) -> Result<Lease<Secret>, String> {
        let proof = match &self.client_secret {
            Some(secret) => format!("client_secret={}", percent::encoded(secret)),
            None => {
                let file = self.env.get("AZURE_FEDERATED_TOKEN_FILE").unwrap_or_default();
                let token = tokio::fs::read_to_string(&file)
                    .await
                    .map_err(|error| format!("cannot read {file}: {error}"))?;
                let kind = percent::encoded("urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
                format!("client_assertion_type={kind}&client_assertion={}", percent::encoded(token.trim()))
            }
        };
        let form = format!(
            "grant_type=client_credentials&client_id={}&scope={}&{proof}",
            percent::encoded(&self.client_id),
            percent::encoded(SCOPE)
        );
        let request = Request::post(&self.url)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::new(Bytes::from(form)))
            .map_err(|error| format!("Entra ID has no usable address: {error}"))?;
        let text = fetch.outside(request).await?.success("a token of Entra ID")?;
        // The parser's own words may quote a value.
        let given: Given = serde_json::from_str(&text)
            .map_err(|_| "a token of Entra ID: the answer is not what it should be".to_owned())?;
        let token = Secret::bearer(&given.access_token)
            .ok_or("a token of Entra ID: the answer holds no usable token")?;
        Ok(Lease::new(token, Some(Duration::from_secs(given.expires_in))))
    }
}
