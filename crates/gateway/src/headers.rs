//! Which headers cross the gateway, in both directions.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::backend::Backend;

/// Client headers that a provider has a use for; everything else (identity, cookies, forwarding) stays here.
const UP: &[HeaderName] = &[header::ACCEPT, header::USER_AGENT];
const UP_NAMES: &[&str] =
    &["idempotency-key", "x-request-id", "x-client-request-id", "traceparent", "tracestate", "openai-beta"];
const UP_PREFIX: &str = "x-stainless-";

/// With the client's own key, its choice of organization and project goes along.
const UP_WITH_CLIENT_KEY: &[&str] = &["authorization", "openai-organization", "openai-project"];

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
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
];

/// The headers of a request to `backend`: its key, never the client's, unless the config says so.
pub(crate) fn up(client: &HeaderMap, backend: &Backend) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(16);
    for (name, value) in client {
        let text = name.as_str();
        let pass = UP.contains(name)
            || UP_NAMES.contains(&text)
            || text.starts_with(UP_PREFIX)
            || (backend.pass_client_key && UP_WITH_CLIENT_KEY.contains(&text));
        if pass {
            headers.append(name.clone(), value.clone());
        }
    }
    if let Some(key) = &backend.key {
        headers.insert(header::AUTHORIZATION, key.header());
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // Usage has to be read: nothing compressed.
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers
}

/// The provider's headers as the client gets them: its own rate limits (`x-ratelimit-limit-tokens` and the like) stay.
pub(crate) fn down(provider: HeaderMap, backend: &str) -> HeaderMap {
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
    if let Ok(value) = HeaderValue::from_str(backend) {
        headers.insert("x-ai-provider", value);
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
        let sent = up(&client, &backend(""));
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
        let sent = up(&client, &backend(", pass_client_key: true"));
        assert_eq!(
            (&sent["authorization"], &sent["openai-organization"]),
            (&HeaderValue::from_static("Bearer client"), &HeaderValue::from_static("org"))
        );
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
        let sent = down(provider, "b");
        let mut names: Vec<&str> = sent.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["x-ai-provider", "x-ratelimit-limit-tokens", "x-request-id"]);
    }
}
