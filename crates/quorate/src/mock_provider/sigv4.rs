//! Checks AWS signatures (Signature Version 4) by signing the same request again with the known credentials.

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use hyper::HeaderMap;

use super::error::Refusal;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const SERVICE: &str = "bedrock";
/// How far the clocks may be apart.
const SKEW_MAX: Duration = Duration::from_secs(300);

/// Whom the simulated Bedrock knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsAccount {
    pub access_key_id: String,
    pub secret_access_key: String,
    pub session_token: Option<String>,
    pub region: String,
}

impl Default for AwsAccount {
    /// The example credentials of AWS's own documentation.
    fn default() -> Self {
        Self {
            access_key_id: "AKIDEXAMPLE".into(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into(),
            session_token: None,
            region: "us-east-1".into(),
        }
    }
}

/// What was signed.
#[derive(Debug)]
pub(super) struct Signed<'a> {
    pub method: &'a str,
    pub path_and_query: &'a str,
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
}

struct Claim<'a> {
    access_key_id: &'a str,
    date: &'a str,
    region: &'a str,
    service: &'a str,
    headers: Vec<&'a str>,
    signature: &'a str,
}

/// # Errors
/// The signature is missing, wrong, too old or not for this region and service.
pub(super) fn check(signed: &Signed<'_>, account: &AwsAccount, now: SystemTime) -> Result<(), Refusal> {
    let header = |name: &str| signed.headers.get(name).and_then(|value| value.to_str().ok());
    let authorization = header("authorization").ok_or_else(|| {
        Refusal::new(403, "MissingAuthenticationTokenException", "Missing Authentication Token")
    })?;
    let claim = Claim::read(authorization).ok_or_else(|| {
        Refusal::new(
            403,
            "IncompleteSignatureException",
            "Authorization header requires 'Credential', 'SignedHeaders' and 'Signature' parameters.",
        )
    })?;
    let unknown = || {
        Refusal::new(
            403,
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
        )
    };
    if claim.access_key_id != account.access_key_id
        || header("x-amz-security-token") != account.session_token.as_deref()
    {
        return Err(unknown());
    }
    let scope = |message: String| Refusal::new(403, "InvalidSignatureException", message);
    if claim.region != account.region {
        return Err(scope(format!(
            "Credential should be scoped to a valid region, not '{}' (this is {}).",
            claim.region, account.region
        )));
    }
    if claim.service != SERVICE {
        return Err(scope(format!("Credential should be scoped to correct service: '{SERVICE}'.")));
    }
    let date = header("x-amz-date").unwrap_or("");
    let time = read_date(date).filter(|_| date.starts_with(claim.date));
    let time = time.ok_or_else(|| {
        scope(
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP".into(),
        )
    })?;
    let apart = now.duration_since(time).or_else(|_| time.duration_since(now)).unwrap_or(Duration::MAX);
    if apart > SKEW_MAX {
        return Err(scope(format!("Signature expired: {date} is not within 5 minutes of the time here.")));
    }
    for needed in ["host", "x-amz-date"] {
        if !claim.headers.contains(&needed) {
            return Err(scope(format!("'{needed}' must be a 'SignedHeader' in the AWS Authorization.")));
        }
    }
    let expected = again(signed, &claim, account, time).unwrap_or_default();
    if expected != claim.signature {
        return Err(scope("The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.".into()));
    }
    Ok(())
}

impl<'a> Claim<'a> {
    fn read(authorization: &'a str) -> Option<Self> {
        let parameters = authorization.strip_prefix(ALGORITHM)?;
        let parameter = |name: &str| {
            let mut all = parameters.split(',').filter_map(|one| one.trim().split_once('='));
            all.find(|(key, _)| *key == name).map(|(_, value)| value)
        };
        let mut credential = parameter("Credential")?.split('/');
        let mut next = || credential.next();
        let (access_key_id, date, region, service) = (next()?, next()?, next()?, next()?);
        let headers = parameter("SignedHeaders")?.split(';').collect();
        let signature = parameter("Signature")?;
        (next()? == "aws4_request").then_some(Self {
            access_key_id,
            date,
            region,
            service,
            headers,
            signature,
        })
    }
}

/// The signature that the request should have; none if it cannot be signed at all.
fn again(signed: &Signed<'_>, claim: &Claim<'_>, account: &AwsAccount, time: SystemTime) -> Option<String> {
    let credentials = Credentials::new(
        account.access_key_id.as_str(),
        account.secret_access_key.as_str(),
        account.session_token.clone(),
        None,
        "mock",
    );
    let identity = credentials.into();
    let mut settings = SigningSettings::default();
    // What the client signed is signed, also what this crate would leave out.
    settings.excluded_headers = None;
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(claim.region)
        .name(claim.service)
        .time(time)
        .settings(settings)
        .build()
        .ok()?;
    let headers: Vec<(&str, &str)> = claim
        .headers
        .iter()
        .filter(|name| !matches!(**name, "x-amz-date" | "x-amz-security-token"))
        .map(|name| Some((*name, signed.headers.get(*name)?.to_str().ok()?)))
        .collect::<Option<_>>()?;
    let host = signed.headers.get("host")?.to_str().ok()?;
    let url = format!("http://{host}{}", signed.path_and_query);
    let body = SignableBody::Bytes(signed.body);
    let request = SignableRequest::new(signed.method, url, headers.into_iter(), body).ok()?;
    let (_, signature) = sign(request, &parameters.into()).ok()?.into_parts();
    Some(signature)
}

/// `20260131T120000Z`
fn read_date(text: &str) -> Option<SystemTime> {
    let date = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", text).ok()?;
    let zoned = date.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(zoned.timestamp().into())
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderName, HeaderValue};

    use super::*;

    const PATH: &str = "/model/anthropic.claude-3-5-sonnet-20240620-v1%3A0/converse";

    fn now() -> SystemTime {
        read_date("20260131T120000Z").unwrap()
    }

    /// Headers as a client with these credentials would send them.
    fn headers(account: &AwsAccount, service: &str, time: SystemTime, body: &[u8]) -> HeaderMap {
        let identity = Credentials::new(
            &account.access_key_id,
            &account.secret_access_key,
            account.session_token.clone(),
            None,
            "t",
        )
        .into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(&account.region)
            .name(service)
            .time(time)
            .settings(SigningSettings::default())
            .build()
            .unwrap()
            .into();
        let given = [("host", "127.0.0.1:8090"), ("content-type", "application/json")];
        let url = format!("http://127.0.0.1:8090{PATH}");
        let request =
            SignableRequest::new("POST", url, given.into_iter(), SignableBody::Bytes(body)).unwrap();
        let (instructions, _) = sign(request, &parameters).unwrap().into_parts();
        let mut headers = HeaderMap::new();
        for (name, value) in given.into_iter().chain(instructions.headers()) {
            headers.insert(HeaderName::try_from(name).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn outcome(headers: &HeaderMap, body: &[u8], path: &str) -> Result<(), &'static str> {
        let signed = Signed { method: "POST", path_and_query: path, headers, body };
        check(&signed, &AwsAccount::default(), now()).map_err(|refusal| {
            assert_eq!(refusal.status, 403);
            refusal.code.unwrap()
        })
    }

    #[test]
    fn a_right_signature_is_accepted() {
        let headers = headers(&AwsAccount::default(), SERVICE, now() - Duration::from_secs(200), b"{}");
        assert_eq!(outcome(&headers, b"{}", PATH), Ok(()));
    }

    #[test]
    fn wrong_ones_are_refused() {
        let known = AwsAccount::default();
        let good = headers(&known, SERVICE, now(), b"{}");
        let invalid = Err("InvalidSignatureException");
        assert_eq!(outcome(&good, b"{ }", PATH), invalid, "another body");
        assert_eq!(outcome(&good, b"{}", "/model/other/converse"), invalid, "another path");
        let other = AwsAccount { secret_access_key: "wrong".into(), ..known.clone() };
        assert_eq!(outcome(&headers(&other, SERVICE, now(), b"{}"), b"{}", PATH), invalid, "another secret");
        let other = AwsAccount { region: "eu-west-1".into(), ..known.clone() };
        assert_eq!(outcome(&headers(&other, SERVICE, now(), b"{}"), b"{}", PATH), invalid, "another region");
        assert_eq!(outcome(&headers(&known, "s3", now(), b"{}"), b"{}", PATH), invalid, "another service");
        let old = now() - Duration::from_secs(301);
        assert_eq!(outcome(&headers(&known, SERVICE, old, b"{}"), b"{}", PATH), invalid, "an old date");
        let other = AwsAccount { access_key_id: "AKIAOTHER".into(), ..known.clone() };
        assert_eq!(
            outcome(&headers(&other, SERVICE, now(), b"{}"), b"{}", PATH),
            Err("UnrecognizedClientException")
        );
        let other = AwsAccount { session_token: Some("token".into()), ..known };
        assert_eq!(
            outcome(&headers(&other, SERVICE, now(), b"{}"), b"{}", PATH),
            Err("UnrecognizedClientException")
        );
        assert_eq!(outcome(&HeaderMap::new(), b"{}", PATH), Err("MissingAuthenticationTokenException"));
        let mut changed = good.clone();
        changed.insert("content-type", HeaderValue::from_static("text/plain"));
        assert_eq!(outcome(&changed, b"{}", PATH), invalid, "a signed header changed");
        let mut bare = good;
        bare.insert("authorization", HeaderValue::from_static("AWS4-HMAC-SHA256 Credential=x"));
        assert_eq!(outcome(&bare, b"{}", PATH), Err("IncompleteSignatureException"));
    }
}
