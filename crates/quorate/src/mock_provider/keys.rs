//! Who may ask: the keys and versions that each provider looks for in the headers. AWS signatures: `sigv4.rs`.

use std::time::SystemTime;

use hyper::HeaderMap;

use super::Settings;
use super::dialect::{Dialect, Endpoint, Route};
use super::error::Refusal;
use super::read;
use super::sigv4::{self, Signed};

/// # Errors
/// The key is missing or wrong, or a version is missing.
pub(super) fn check(route: &Route, settings: &Settings, signed: &Signed<'_>) -> Result<(), Refusal> {
    let headers = signed.headers;
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let key = settings.api_key.as_deref();
    match route.dialect {
        Dialect::OpenAi => match (key, bearer(headers)) {
            (None, _) => Ok(()),
            (Some(key), Some(given)) if given == key => Ok(()),
            _ => Err(Refusal::new(
                401,
                "invalid_api_key",
                "Incorrect API key provided. You can find your API key at https://platform.openai.com/account/api-keys.",
            )),
        },
        Dialect::Anthropic => {
            let given = header("x-api-key").or_else(|| bearer(headers));
            match (key, given) {
                (Some(_), None) => return Err(unauthenticated("x-api-key header is required")),
                (Some(key), Some(given)) if given != key => return Err(unauthenticated("invalid x-api-key")),
                _ => {}
            }
            match header("anthropic-version") {
                Some(version) if read::is_date(version) => Ok(()),
                Some(other) => {
                    Err(Refusal::bad(format!("anthropic-version: \"{other}\" is not a valid version")))
                }
                None => Err(Refusal::bad("anthropic-version: header is required")),
            }
        }
        Dialect::Azure => {
            let given = header("api-key").or_else(|| bearer(headers)).filter(|given| !given.is_empty());
            if given.is_none() || key.is_some_and(|key| given != Some(key)) {
                return Err(Refusal { status: 401, code: None, message: "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for an active subscription and use a correct regional API endpoint for your resource.".into() });
            }
            let versioned =
                query(signed.path_and_query, "api-version").is_some_and(|version| !version.is_empty());
            if route.model.is_some() && !versioned {
                return Err(Refusal {
                    status: 404,
                    code: None,
                    message: "Resource not found: the query parameter api-version is required".into(),
                });
            }
            Ok(())
        }
        Dialect::Bedrock => match (key, bearer(headers)) {
            (Some(key), Some(given)) if given == key => Ok(()),
            _ => sigv4::check(signed, &settings.aws, SystemTime::now()),
        },
    }
}

/// Paths that Azure has for deployments only, or not for them.
pub(super) fn check_place(route: &Route) -> Result<(), Refusal> {
    let of_deployment = route.dialect == Dialect::Azure && route.model.is_some();
    if of_deployment && matches!(route.endpoint, Endpoint::Responses | Endpoint::Models) {
        return Err(Refusal { status: 404, code: None, message: "Resource not found".into() });
    }
    Ok(())
}

fn unauthenticated(message: &str) -> Refusal {
    Refusal { status: 401, code: None, message: message.into() }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get("authorization")?.to_str().ok()?.strip_prefix("Bearer ")
}

fn query<'a>(path_and_query: &'a str, name: &str) -> Option<&'a str> {
    let (_, query) = path_and_query.split_once('?')?;
    query
        .split('&')
        .filter_map(|one| one.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(path: &str, headers: &[(&'static str, &str)], key: Option<&str>) -> u16 {
        let settings = Settings { api_key: key.map(str::to_owned), ..Settings::default() };
        let headers: HeaderMap =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        let signed = Signed { method: "POST", path_and_query: path, headers: &headers, body: b"" };
        let route = Route::of(path.split('?').next().unwrap()).unwrap();
        let outcome = check(&route, &settings, &signed).and_then(|()| check_place(&route));
        outcome.map_or_else(|refusal| refusal.status, |()| 200)
    }

    #[test]
    fn each_provider_looks_for_its_own_proof() {
        let version = ("anthropic-version", "2023-06-01");
        let chat = "/openai/deployments/d/chat/completions";
        type Row<'a> = (&'a str, &'a [(&'static str, &'a str)], Option<&'a str>, u16);
        let table: &[Row<'_>] = &[
            ("/v1/chat/completions", &[], None, 200),
            ("/v1/chat/completions", &[], Some("k"), 401),
            ("/v1/chat/completions", &[("authorization", "Bearer k")], Some("k"), 200),
            ("/v1/messages", &[version], None, 200),
            ("/v1/messages", &[], None, 400),
            ("/v1/messages", &[("anthropic-version", "latest")], None, 400),
            ("/v1/messages", &[version], Some("k"), 401),
            ("/v1/messages", &[version, ("x-api-key", "x")], Some("k"), 401),
            ("/v1/messages", &[version, ("x-api-key", "k")], Some("k"), 200),
            (&format!("{chat}?api-version=1"), &[("api-key", "any")], None, 200),
            (&format!("{chat}?api-version=1"), &[("api-key", "x")], Some("k"), 401),
            (&format!("{chat}?api-version=1"), &[], None, 401),
            (chat, &[("api-key", "any")], None, 404),
            ("/openai/v1/chat/completions", &[("api-key", "any")], None, 200),
            ("/openai/deployments/d/responses?api-version=1", &[("api-key", "any")], None, 404),
            ("/model/m/converse", &[], None, 403),
            ("/model/m/converse", &[("authorization", "Bearer k")], Some("k"), 200),
        ];
        for (path, headers, key, expected) in table {
            assert_eq!(status(path, headers, *key), *expected, "{path} {headers:?} {key:?}");
        }
    }
}
