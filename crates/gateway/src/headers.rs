//! Which headers cross the gateway, in both directions.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use quorate_policy::runtime::{HeaderMutation, ProviderKind};

use crate::{auth::is_aws, backend::Backend};

/// Client headers that a provider has a use for; everything else (identity, cookies, forwarding) stays here.
const UP: &[&str] = &["user-agent", "x-request-id", "x-client-request-id", "traceparent", "tracestate"];
/// AWS takes the form of its answer from `accept`, and knows none of the SDKs' headers.
const UP_BUT_AWS: &[&str] = &["accept", "idempotency-key"];
const UP_BUT_AWS_PREFIX: &str = "x-stainless-";

/// Anthropic's version of its API, where the client names none.
const ANTHROPIC_VERSION: HeaderName = HeaderName::from_static("anthropic-version");
const ANTHROPIC_VERSION_DEFAULT: HeaderValue = HeaderValue::from_static("2023-06-01");

const ANTHROPIC_BETA: &str = "anthropic-beta";

/// What only this kind of provider understands.
fn up_to_kind(kind: ProviderKind) -> &'static [&'static str] {
    match kind {
        ProviderKind::OpenAI | ProviderKind::AzureOpenAI => &["openai-beta"],
        ProviderKind::Anthropic => &["anthropic-version", ANTHROPIC_BETA],
        _ => &[],
    }
}

/// The client's own key, and with it its choice of organization and project.
fn keys_of_kind(kind: ProviderKind) -> &'static [&'static str] {
    match kind {
        ProviderKind::Anthropic => &["authorization", "x-api-key"],
        ProviderKind::AzureOpenAI => &["authorization", "api-key"],
        _ => &["authorization", "openai-organization", "openai-project"],
    }
}

/// What no route may set: they belong to the connection.
const NOT_SET: &[&str] = &["connection", "content-length", "host", "te", "transfer-encoding", "upgrade"];

/// Headers of an answer that speak about the connection or the provider's host, or that the gateway sets itself.
const NOT_DOWN: &[&str] = &[
    "alt-svc",
    "connection",
    "content-length",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "set-cookie",
    "strict-transport-security",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-ai-gateway-tokens-used",
    "x-ai-provider",
    "x-quorate-attempts",
    "x-quorate-backend",
    "x-quorate-dropped",
    "x-quorate-model-downgraded",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
];

/// The headers of a request to `backend`, without the gateway's own key, which is put on last. Never the client's key,
/// unless the config says so. `consumed`: what the client sent proves its identity here, and is no provider's key.
pub(crate) fn up(
    client: &HeaderMap,
    backend: &Backend,
    consumed: bool,
    mutation: &HeaderMutation,
) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(16);
    for (name, value) in client {
        let text = name.as_str();
        let pass = UP.contains(&text)
            || up_to_kind(backend.kind).contains(&text)
            || (!is_aws(backend.kind) && (UP_BUT_AWS.contains(&text) || text.starts_with(UP_BUT_AWS_PREFIX)))
            || (backend.pass_client_key && !consumed && keys_of_kind(backend.kind).contains(&text));
        if pass {
            headers.append(name.clone(), value.clone());
        }
    }
    for name in &mutation.remove {
        headers.remove(name.as_str());
    }
    for (name, value) in &mutation.set {
        // Names and values that no request may carry are left out.
        let Ok(name) = HeaderName::try_from(name.as_str()) else { continue };
        if let (false, Ok(value)) = (NOT_SET.contains(&name.as_str()), HeaderValue::from_str(value)) {
            headers.insert(name, value);
        }
    }
    if is_aws(backend.kind) {
        // In the body: see `betas`.
        headers.remove(ANTHROPIC_BETA);
    }
    if backend.kind == ProviderKind::Anthropic {
        headers.entry(ANTHROPIC_VERSION).or_insert(ANTHROPIC_VERSION_DEFAULT);
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // Usage has to be read: nothing compressed.
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers
}

/// The value of `anthropic-beta`, for a provider that reads it in the body; empty where there is none.
pub(crate) fn betas(client: &HeaderMap, mutation: &HeaderMutation) -> String {
    let is_it = |name: &String| name.eq_ignore_ascii_case(ANTHROPIC_BETA);
    if let Some((_, value)) = mutation.set.iter().rev().find(|(name, _)| is_it(name)) {
        return value.clone();
    }
    if mutation.remove.iter().any(is_it) {
        return String::new();
    }
    let values = client.get_all(ANTHROPIC_BETA).iter().filter_map(|value| value.to_str().ok());
    values.collect::<Vec<_>>().join(",")
}

/// The provider's headers as the client gets them: its own rate limits (`x-ratelimit-limit-tokens` and the like) stay.
pub(crate) fn down(provider: HeaderMap) -> HeaderMap {
    let mut named_by_connection: Vec<String> = Vec::new();
    for value in provider.get_all(header::CONNECTION) {
        let names = value.to_str().unwrap_or_default().split(',');
        named_by_connection.extend(names.map(|name| name.trim().to_ascii_lowercase()));
    }
    let mut headers = HeaderMap::with_capacity(provider.len() + 8);
    for (name, value) in &provider {
        let text = name.as_str();
        if !NOT_DOWN.contains(&text) && !named_by_connection.iter().any(|named| named == text) {
            headers.append(name.clone(), value.clone());
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(extra: &str) -> Backend {
        let text = format!("{{name: b, provider: OpenAI, base_url: 'http://127.0.0.1/v1'{extra}}}");
        Backend::open(&serde_yaml_ng::from_str(&text).unwrap()).unwrap()
    }

    fn map(headers: &[(&'static str, &'static str)]) -> HeaderMap {
        headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn the_clients_key_and_identity_stay_here() {
        let client = map(&[
            ("authorization", "Bearer client"),
            ("openai-organization", "org"),
            ("x-user-id", "alice"),
            ("cookie", "a=b"),
            ("user-agent", "sdk"),
            ("x-stainless-os", "Linux"),
            ("accept-encoding", "gzip"),
        ]);
        let sent = up(&client, &backend(""), false, &HeaderMutation::default());
        assert_eq!(sent.get("authorization"), None);
        assert_eq!(
            (sent.get("x-user-id"), sent.get("cookie"), sent.get("openai-organization")),
            (None, None, None)
        );
        assert_eq!(
            (&sent["user-agent"], &sent["x-stainless-os"]),
            (&HeaderValue::from_static("sdk"), &HeaderValue::from_static("Linux"))
        );
        assert_eq!(sent["accept-encoding"], "identity");
        let passing = backend(", pass_client_key: true");
        let sent = up(&client, &passing, true, &HeaderMutation::default());
        assert_eq!(sent.get("authorization"), None, "a key of this gateway goes no further");
        let sent = up(&client, &passing, false, &HeaderMutation::default());
        assert_eq!(
            (&sent["authorization"], &sent["openai-organization"]),
            (&HeaderValue::from_static("Bearer client"), &HeaderValue::from_static("org"))
        );
    }

    #[test]
    fn each_kind_gets_what_it_understands() {
        let client = map(&[
            ("accept", "text/event-stream"),
            ("anthropic-beta", "b"),
            ("api-key", "client"),
            ("authorization", "Bearer client"),
            ("openai-beta", "o"),
            ("x-api-key", "client"),
            ("x-stainless-os", "Linux"),
        ]);
        let base = ["accept-encoding", "content-type"];
        for (entry, expected) in [
            ("provider: OpenAI", vec!["accept", "openai-beta", "x-stainless-os"]),
            (
                "provider: OpenAI, pass_client_key: true",
                vec!["accept", "authorization", "openai-beta", "x-stainless-os"],
            ),
            (
                "provider: AzureOpenAI, pass_client_key: true",
                vec!["accept", "api-key", "authorization", "openai-beta", "x-stainless-os"],
            ),
            ("provider: Anthropic", vec!["accept", "anthropic-beta", "anthropic-version", "x-stainless-os"]),
            (
                "provider: Anthropic, pass_client_key: true",
                vec![
                    "accept",
                    "anthropic-beta",
                    "anthropic-version",
                    "authorization",
                    "x-api-key",
                    "x-stainless-os",
                ],
            ),
            ("provider: AWSBedrock, region: r", vec![]),
            ("provider: AWSAnthropic, region: r", vec![]),
        ] {
            let text = format!("{{name: b, base_url: 'http://127.0.0.1', {entry}}}");
            let backend = Backend::open(&serde_yaml_ng::from_str(&text).unwrap()).unwrap();
            let sent = up(&client, &backend, false, &HeaderMutation::default());
            let mut names: Vec<&str> = sent.keys().map(HeaderName::as_str).collect();
            names.sort_unstable();
            let mut expected: Vec<&str> = expected.into_iter().chain(base).collect();
            expected.sort_unstable();
            assert_eq!(names, expected, "{entry}");
        }
        let anthropic = "{name: b, provider: Anthropic}";
        let anthropic = Backend::open(&serde_yaml_ng::from_str(anthropic).unwrap()).unwrap();
        let version = |client: &HeaderMap| {
            up(client, &anthropic, false, &HeaderMutation::default())["anthropic-version"].clone()
        };
        assert_eq!(version(&HeaderMap::new()), "2023-06-01");
        assert_eq!(version(&map(&[("anthropic-version", "2024-01-01")])), "2024-01-01");
    }

    #[test]
    fn a_route_may_set_and_remove_but_not_the_key() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mutation = HeaderMutation {
            set: vec![pair("x-team", "red"), pair("content-length", "1"), pair("bad name", "x")],
            remove: vec!["user-agent".to_owned()],
        };
        let sent = up(&map(&[("user-agent", "sdk"), ("accept", "*/*")]), &backend(""), false, &mutation);
        assert_eq!(
            (&sent["x-team"], sent.get("user-agent"), sent.get("content-length")),
            (&HeaderValue::from_static("red"), None, None)
        );
    }

    #[test]
    fn betas_for_the_body() {
        let client = map(&[("anthropic-beta", "a,b"), ("anthropic-beta", "c")]);
        let mut mutation = HeaderMutation::default();
        assert_eq!(betas(&client, &mutation), "a,b,c");
        mutation.remove.push("Anthropic-Beta".to_owned());
        assert_eq!(betas(&client, &mutation), "");
        mutation.set.push(("anthropic-beta".to_owned(), "d".to_owned()));
        assert_eq!(betas(&client, &mutation), "d");
    }

    #[test]
    fn what_speaks_of_the_connection_or_the_host_is_dropped() {
        let provider = map(&[
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("content-length", "5"),
            ("alt-svc", "h3"),
            ("set-cookie", "a"),
            ("x-ratelimit-limit", "9"),
            ("x-ratelimit-limit-tokens", "10"),
            ("x-request-id", "r"),
        ]);
        let sent = down(provider);
        let mut names: Vec<&str> = sent.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["x-ratelimit-limit-tokens", "x-request-id"]);
    }
}
