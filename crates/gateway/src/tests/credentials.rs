//! What a backend of each kind is shown, and where it comes from: through real sockets, with environments of their own.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method};
use quorate_policy::runtime::{AuthSpec, Endpoint, ProviderKind, SecretRef};

use super::{
    policies::spec,
    provider::{FakeProvider, answer},
};
use crate::{
    auth::Env,
    backend::Backend,
    config::{BackendConfig, SecretsConfig, Timeouts},
    secrets::Secrets,
    upstream::{SendError, Upstream},
};

async fn send(backend: &Backend) -> Result<u16, SendError> {
    let upstream = Upstream::new(&Timeouts::default()).unwrap();
    send_with(&upstream, backend).await
}

async fn send_with(upstream: &Upstream, backend: &Backend) -> Result<u16, SendError> {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", "application/json".parse().unwrap());
    let target = ("/model/a%3A0/converse", None);
    let sent = upstream.send(backend, Method::POST, target, headers, Bytes::from_static(b"{}")).await;
    sent.map(|response| response.status().as_u16())
}

async fn provider() -> Arc<FakeProvider> {
    let provider = FakeProvider::start().await;
    provider.plays([answer("200 OK", "{}")]);
    provider
}

/// At this provider, without the version in its URL.
fn configured(provider: &FakeProvider, entry: &str, env: &Env) -> Result<Backend, String> {
    let base = provider.base_url.trim_end_matches("/v1");
    let text = format!("{{name: b, base_url: '{base}', {entry}}}");
    let config: BackendConfig = serde_yaml_ng::from_str(&text).unwrap();
    config.check().unwrap();
    Backend::configured(&config, env)
}

/// The value of a header of the last request.
fn shown(provider: &FakeProvider, name: &str) -> Option<String> {
    let got = provider.got();
    let head = &got.last()?.head;
    head.lines().find_map(|line| line.strip_prefix(&format!("{name}: "))).map(str::to_owned)
}

const CREDENTIALS: &str = r#"{"Code":"Success","AccessKeyId":"AKIDGIVEN","SecretAccessKey":"hush","Token":"session","Expiration":"2099-01-01T00:00:00Z"}"#;

#[tokio::test]
async fn each_kind_is_shown_its_key() {
    let env = Env::of(&[("KEY", " sk-hidden\n")]);
    for (entry, header, value) in [
        ("provider: OpenAI", "authorization", "bearer sk-hidden"),
        ("provider: AzureOpenAI", "api-key", "sk-hidden"),
        ("provider: Anthropic", "x-api-key", "sk-hidden"),
        ("provider: AWSBedrock", "authorization", "bearer sk-hidden"),
        ("provider: AWSAnthropic", "authorization", "bearer sk-hidden"),
    ] {
        let provider = provider().await;
        let backend = configured(&provider, &format!("{entry}, api_key_env: KEY"), &env).unwrap();
        assert!(!format!("{backend:?}").contains("sk-hidden"));
        assert_eq!(send(&backend).await.unwrap(), 200);
        for name in ["authorization", "api-key", "x-api-key"] {
            let expected = (name == header).then(|| value.to_owned());
            assert_eq!(shown(&provider, name), expected, "{entry}: {name}");
        }
    }
}

#[tokio::test]
async fn aws_requests_are_signed_with_what_the_surroundings_have() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("credentials");
    let profiles = "[default]\naws_access_key_id = AKIDFILE\naws_secret_access_key = hush\n\
                    [other]\naws_access_key_id = AKIDOTHER\naws_secret_access_key = hush\n";
    std::fs::write(&file, profiles).unwrap();
    let file = file.to_str().unwrap();
    let keys = [("AWS_ACCESS_KEY_ID", "AKIDENV"), ("AWS_SECRET_ACCESS_KEY", "hush")];
    let shared = ("AWS_SHARED_CREDENTIALS_FILE", file);
    let own_file = format!("aws: {{credentials_file: '{file}'}}");
    for (aws, variables, expected) in [
        ("aws: {}", vec![keys[0], keys[1], shared], "akidenv"),
        ("aws: {}", vec![shared], "akidfile"),
        ("aws: {}", vec![shared, ("AWS_PROFILE", "other")], "akidother"),
        ("aws: {profile: other}", vec![keys[0], keys[1], shared], "akidother"),
        (own_file.as_str(), vec![], "akidfile"),
    ] {
        let provider = provider().await;
        let entry = format!("provider: AWSBedrock, region: eu-central-1, {aws}");
        let backend = configured(&provider, &entry, &Env::of(&variables)).unwrap();
        assert_eq!(send(&backend).await.unwrap(), 200, "{aws}");
        let authorization = shown(&provider, "authorization").unwrap();
        let begin = format!("aws4-hmac-sha256 credential={expected}/");
        assert!(authorization.starts_with(&begin), "{aws}: {authorization}");
        assert!(authorization.contains("/eu-central-1/bedrock/aws4_request"), "{authorization}");
        // What goes over the wire is what was signed.
        assert!(provider.got()[0].head.starts_with("post /model/a%3a0/converse http/1.1\r\n"));
        assert!(!format!("{backend:?}").contains("hush"));
    }
    let bearer = Env::of(&[keys[0], keys[1], ("AWS_BEARER_TOKEN_BEDROCK", "abc")]);
    let provider = provider().await;
    let backend = configured(&provider, "provider: AWSBedrock, region: r", &bearer).unwrap();
    assert_eq!(send(&backend).await.unwrap(), 200);
    assert_eq!(shown(&provider, "authorization").as_deref(), Some("bearer abc"));
}

#[tokio::test]
async fn without_credentials_nothing_is_sent_and_the_remedy_is_named() {
    let provider = provider().await;
    for (aws, variables, said) in [
        ("aws: {}", vec![], "AWS_ACCESS_KEY_ID"),
        ("aws: {}", vec![("AWS_ACCESS_KEY_ID", "x")], "AWS_SECRET_ACCESS_KEY is not"),
        ("aws: {profile: p}", vec![("HOME", "/no/such/home")], "the profile p"),
        ("aws: {credentials_file: /no/such/file}", vec![], "/no/such/file is missing"),
    ] {
        let entry = format!("provider: AWSBedrock, region: r, {aws}");
        let backend = configured(&provider, &entry, &Env::of(&variables)).unwrap();
        match send(&backend).await {
            Err(SendError::NoCredentials(error)) => assert!(error.contains(said), "{error}"),
            other => panic!("{aws}: {other:?}"),
        }
    }
    assert!(provider.got().is_empty());
}

#[tokio::test]
async fn a_web_identity_is_exchanged_once() {
    let (provider, sts) = (provider().await, FakeProvider::start().await);
    sts.plays([answer(
        "200 OK",
        "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>\
         <AccessKeyId>AKIDGIVEN</AccessKeyId><SecretAccessKey>hush</SecretAccessKey>\
         <SessionToken>session</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>\
         </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>",
    )]);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "proof.of/identity\n").unwrap();
    let env = Env::of(&[
        ("AWS_WEB_IDENTITY_TOKEN_FILE", file.path().to_str().unwrap()),
        ("AWS_ROLE_ARN", "arn:aws:iam::1:role/gateway"),
        ("AWS_ENDPOINT_URL_STS", &sts.base_url),
    ]);
    let backend = configured(&provider, "provider: AWSAnthropic, region: us-east-1", &env).unwrap();
    let upstream = Upstream::new(&Timeouts::default()).unwrap();
    for _ in 0..2 {
        assert_eq!(send_with(&upstream, &backend).await.unwrap(), 200);
        assert!(shown(&provider, "authorization").unwrap().contains("credential=akidgiven/"));
        assert_eq!(shown(&provider, "x-amz-security-token").as_deref(), Some("session"));
    }
    let asked = sts.got();
    let form = String::from_utf8(asked[0].body.clone()).unwrap();
    assert_eq!(asked.len(), 1);
    for part in ["RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fgateway&", "WebIdentityToken=proof.of%2Fidentity"] {
        assert!(form.contains(part), "{form}");
    }
    sts.plays([answer("403 Forbidden", "<Error><Code>AccessDenied</Code></Error>")]);
    let refused = configured(&provider, "provider: AWSAnthropic, region: us-east-1", &env).unwrap();
    let error = send(&refused).await.unwrap_err().to_string();
    assert!(error.contains("status 403") && error.contains("AccessDenied"), "{error}");
}

#[tokio::test]
async fn the_machine_is_asked_only_where_the_config_says_so() {
    let (provider, machine) = (provider().await, FakeProvider::start().await);
    machine.plays_at("put /v1/latest/api/token", [answer("200 OK", "token")]);
    machine.plays_at("security-credentials/gateway", [answer("200 OK", CREDENTIALS)]);
    machine.plays_at("security-credentials/", [answer("200 OK", "gateway\n")]);
    machine.plays_at("/container", [answer("200 OK", &CREDENTIALS.replace("GIVEN", "BOX"))]);
    let ec2 = ("AWS_EC2_METADATA_SERVICE_ENDPOINT", machine.base_url.as_str());
    let url = format!("{}/container", machine.base_url);
    let container =
        [("AWS_CONTAINER_CREDENTIALS_FULL_URI", url.as_str()), ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "pod")];
    let entry = "provider: AWSBedrock, region: us-east-1";
    let silent = configured(&provider, entry, &Env::of(&[ec2, container[0]])).unwrap();
    assert!(matches!(send(&silent).await, Err(SendError::NoCredentials(_))));
    assert!(machine.got().is_empty());

    let entry = format!("{entry}, aws: {{instance: true}}");
    for (variables, expected) in
        [(vec![ec2], "akidgiven"), (vec![ec2, container[0], container[1]], "akidbox")]
    {
        let backend = configured(&provider, &entry, &Env::of(&variables)).unwrap();
        assert_eq!(send(&backend).await.unwrap(), 200);
        assert!(shown(&provider, "authorization").unwrap().contains(&format!("credential={expected}/")));
    }
    let got = machine.got();
    assert!(got[2].head.contains("x-aws-ec2-metadata-token: token"), "{}", got[2].head);
    assert!(got[3].head.contains("authorization: pod"), "{}", got[3].head);
    let elsewhere = Env::of(&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://10.0.0.1/x")]);
    let backend = configured(&provider, &entry, &elsewhere).unwrap();
    assert!(send(&backend).await.unwrap_err().to_string().contains("needs https"));
}

#[tokio::test]
async fn an_application_of_entra_gets_one_token_for_all() {
    let (provider, entra) = (provider().await, FakeProvider::start().await);
    let token = r#"{"token_type":"Bearer","expires_in":3599,"access_token":"abc"}"#;
    entra.plays([answer("200 OK", token)]);
    let federated = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(federated.path(), "assertion\n").unwrap();
    let env = Env::of(&[
        ("AZURE_AUTHORITY_HOST", &entra.base_url),
        ("SECRET", "h/u+sh"),
        ("AZURE_FEDERATED_TOKEN_FILE", federated.path().to_str().unwrap()),
    ]);
    let entry = "provider: AzureOpenAI, entra: {tenant_id: t, client_id: c";
    let backend = configured(&provider, &format!("{entry}, client_secret_env: SECRET}}"), &env).unwrap();
    let (backend, upstream) = (Arc::new(backend), Arc::new(Upstream::new(&Timeouts::default()).unwrap()));
    let asking = (0..8).map(|_| {
        let (backend, upstream) = (Arc::clone(&backend), Arc::clone(&upstream));
        tokio::spawn(async move { send_with(&upstream, &backend).await.unwrap() })
    });
    for one in asking.collect::<Vec<_>>() {
        assert_eq!(one.await.unwrap(), 200);
    }
    assert_eq!(shown(&provider, "authorization").as_deref(), Some("bearer abc"));
    assert_eq!(shown(&provider, "api-key"), None);
    let asked = entra.got();
    let form = String::from_utf8(asked[0].body.clone()).unwrap();
    assert_eq!(asked.len(), 1);
    assert!(asked[0].head.starts_with("post /v1/t/oauth2/v2.0/token "), "{}", asked[0].head);
    assert!(form.contains("client_secret=h%2Fu%2Bsh"), "{form}");
    assert!(!format!("{backend:?}").contains("h/u+sh") && !format!("{backend:?}").contains("abc"));

    let workload = configured(&provider, &format!("{entry}}}"), &env).unwrap();
    assert_eq!(send(&workload).await.unwrap(), 200);
    let form = String::from_utf8(entra.got()[1].body.clone()).unwrap();
    assert!(form.ends_with("client_assertion=assertion"), "{form}");
    assert!(configured(&provider, &format!("{entry}}}"), &Env::of(&[])).is_err());
}

#[tokio::test]
async fn credentials_of_a_policy() {
    let dir = tempfile::tempdir().unwrap();
    let profiles = "[gateway]\naws_access_key_id = AKIDSECRET\naws_secret_access_key = hush\n";
    for (name, key, value) in
        [("aws", "credentials", profiles), ("azure", "apiKey", "sk-azure"), ("junk", "credentials", "hush")]
    {
        let folder = dir.path().join("ns").join(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(key), value).unwrap();
    }
    let secrets = SecretsConfig { dir: dir.path().to_owned(), ..SecretsConfig::default() };
    let secrets = Secrets::open(&secrets).unwrap();
    let secret = |name: &str, key: &str| SecretRef {
        namespace: "ns".to_owned(),
        name: name.to_owned(),
        key: key.to_owned(),
    };
    let provider = provider().await;
    let port = provider.base_url.trim_end_matches("/v1").rsplit(':').next().unwrap().parse().unwrap();
    let described = |kind, auth| {
        let mut spec = spec("b", kind);
        spec.endpoint = Some(Endpoint { host: "127.0.0.1".to_owned(), port, tls: false });
        spec.auth = Some(auth);
        Backend::described(&spec, &secrets)
    };
    let aws = |name| AuthSpec::Aws {
        region: "us-west-2".to_owned(),
        secret: Some(secret(name, "credentials")),
        profile: Some("gateway".to_owned()),
    };
    let bedrock = described(ProviderKind::AWSBedrock, aws("aws")).unwrap();
    assert_eq!(send(&bedrock).await.unwrap(), 200);
    let authorization = shown(&provider, "authorization").unwrap();
    assert!(
        authorization.contains("credential=akidsecret/") && authorization.contains("/us-west-2/bedrock/")
    );
    let azure = AuthSpec::ApiKey { secret: secret("azure", "apiKey") };
    let azure = described(ProviderKind::AzureOpenAI, azure).unwrap();
    assert_eq!(send(&azure).await.unwrap(), 200);
    assert_eq!(shown(&provider, "api-key").as_deref(), Some("sk-azure"));
    assert!(provider.got()[1].head.contains("?api-version=2024-10-21 "));
    let gcp = AuthSpec::Gcp { project: "p".to_owned(), region: "r".to_owned(), secret: None };
    for (kind, auth, said) in [
        (ProviderKind::AWSBedrock, aws("junk"), "no profile [gateway]"),
        (ProviderKind::AWSBedrock, aws("none"), "missing"),
        (ProviderKind::OpenAI, aws("aws"), "of no use to a backend of kind OpenAI"),
        (ProviderKind::OpenAI, gcp, "GCPCredentials"),
    ] {
        let error = described(kind, auth).unwrap_err().to_string();
        assert!(error.contains(said) && !error.contains("hush"), "{error}");
    }
}
