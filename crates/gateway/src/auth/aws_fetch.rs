//! Credentials for AWS from those that give them out: the token service for a web identity (EKS), and, only when the
//! config asks for it, the machine's own services (ECS, EKS, EC2), which are at link-local addresses.

use std::time::Duration;

use aws_credential_types::Credentials;
use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::Full;
use serde::Deserialize;

use super::{Env, Fetch, aws_file::PROVIDER, renewed::Lease};
use crate::provider::percent;

/// Where ECS and EKS answer; only these, this machine and TLS may be named.
const CONTAINER_HOSTS: [&str; 5] =
    ["169.254.170.2", "169.254.170.23", "[fd00:ec2::23]", "127.0.0.1", "localhost"];

/// `None`: the environment names no web identity.
pub(super) async fn web_identity(
    fetch: &Fetch,
    env: &Env,
    region: &str,
) -> Result<Option<Lease<Credentials>>, String> {
    let (Some(file), Some(role)) = (env.get("AWS_WEB_IDENTITY_TOKEN_FILE"), env.get("AWS_ROLE_ARN")) else {
        return Ok(None);
    };
    let token =
        tokio::fs::read_to_string(&file).await.map_err(|error| format!("cannot read {file}: {error}"))?;
    let session = env.get("AWS_ROLE_SESSION_NAME").unwrap_or_else(|| "quorate-gateway".to_owned());
    let form = format!(
        "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn={}&RoleSessionName={}&WebIdentityToken={}",
        percent::encoded(&role),
        percent::encoded(&session),
        percent::encoded(token.trim())
    );
    let url = env.get("AWS_ENDPOINT_URL_STS").unwrap_or_else(|| {
        let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        format!("https://sts.{region}.{domain}/")
    });
    let request = Request::post(url)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Full::new(Bytes::from(form)))
        .map_err(|error| format!("AWS's token service has no usable address: {error}"))?;
    let text = fetch.outside(request).await?.success("AssumeRoleWithWebIdentity")?;
    let tag = |name: &str| {
        // Keys, tokens and times: nothing that XML would escape.
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        rest.split_once('<').map(|(value, _)| value.trim().to_owned())
    };
    let given = Given {
        access_key_id: tag("AccessKeyId").unwrap_or_default(),
        secret_access_key: tag("SecretAccessKey").unwrap_or_default(),
        token: tag("SessionToken"),
        expiration: tag("Expiration"),
    };
    given.lease("AssumeRoleWithWebIdentity").map(Some)
}

/// `None`: the environment names no service of a container.
pub(super) async fn container(fetch: &Fetch, env: &Env) -> Result<Option<Lease<Credentials>>, String> {
    let url = match (
        env.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
        env.get("AWS_CONTAINER_CREDENTIALS_FULL_URI"),
    ) {
        (Some(path), _) => format!("http://169.254.170.2{path}"),
        (None, Some(url)) => url,
        (None, None) => return Ok(None),
    };
    let parsed: Uri = url
        .parse()
        .map_err(|error| format!("the container's credentials have no usable address: {error}"))?;
    let host = parsed.host().unwrap_or_default();
    if parsed.scheme_str() != Some("https") && !CONTAINER_HOSTS.contains(&host) {
        return Err(format!("AWS_CONTAINER_CREDENTIALS_FULL_URI names {host}, which needs https"));
    }
    let token = match env.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
        Some(file) => Some(
            tokio::fs::read_to_string(&file).await.map_err(|error| format!("cannot read {file}: {error}"))?,
        ),
        None => env.get("AWS_CONTAINER_AUTHORIZATION_TOKEN"),
    };
    let mut request = Request::get(parsed);
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, token.trim());
    }
    let request =
        request.body(Full::default()).map_err(|_| "the container's token is no header".to_owned())?;
    let what = "the container's credentials";
    let text = fetch.machine(request).await?.success(what)?;
    Given::parse(&text, what)?.lease(what).map(Some)
}

/// EC2, in the second version of its protocol.
pub(super) async fn machine(fetch: &Fetch, env: &Env) -> Result<Lease<Credentials>, String> {
    const ROLES: &str = "/latest/meta-data/iam/security-credentials/";
    let what = "the machine's credentials";
    let base = env.get("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    let base = base.unwrap_or_else(|| "http://169.254.169.254".to_owned());
    let base = base.trim_end_matches('/');
    let wrong = |error: http::Error| format!("{what} have no usable address: {error}");
    let request = Request::put(format!("{base}/latest/api/token"))
        .header("x-aws-ec2-metadata-token-ttl-seconds", "300")
        .body(Full::default())
        .map_err(wrong)?;
    let token = fetch.machine(request).await?.success(what)?;
    let get = |path: String| {
        let request = Request::get(format!("{base}{path}")).header("x-aws-ec2-metadata-token", token.trim());
        request.body(Full::default()).map_err(wrong)
    };
    let roles = fetch.machine(get(ROLES.to_owned())?).await?.success(what)?;
    let role = roles.lines().next().map(str::trim).filter(|role| !role.is_empty());
    let role = role.ok_or("the machine has no role; give it one, or name credentials")?;
    let text = fetch.machine(get(format!("{ROLES}{}", percent::encoded(role)))?).await?.success(what)?;
    Given::parse(&text, what)?.lease(what)
}

/// As ECS, EKS and EC2 say it.
#[derive(Deserialize)]
struct Given {
    #[serde(rename = "AccessKeyId")]
    access_key_id: String,
    #[serde(rename = "SecretAccessKey")]
    secret_access_key: String,
    #[serde(rename = "Token")]
    token: Option<String>,
    #[serde(rename = "Expiration")]
    expiration: Option<String>,
}

impl Given {
    fn parse(text: &str, what: &str) -> Result<Self, String> {
        // The parser's own words may quote a value.
        serde_json::from_str(text).map_err(|_| format!("{what}: the answer is not what it should be"))
    }

    fn lease(self, what: &str) -> Result<Lease<Credentials>, String> {
        if self.access_key_id.is_empty() || self.secret_access_key.is_empty() {
            return Err(format!("{what}: the answer holds no keys"));
        }
        let lives = match &self.expiration {
            None => None,
            Some(end) => {
                let end: jiff::Timestamp =
                    end.parse().map_err(|_| format!("{what}: the answer's Expiration is no time"))?;
                let left = end.duration_since(jiff::Timestamp::now());
                Some(Duration::try_from(left).map_err(|_| format!("{what}: they have already ended"))?)
            }
        };
        let credentials =
            Credentials::new(self.access_key_id, self.secret_access_key, self.token, None, PROVIDER);
        Ok(Lease::new(credentials, lives))
    }
}
