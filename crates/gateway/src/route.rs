//! The second stage: which endpoint is asked, and for which model. Which backends serve it is in the plan.

use http::{HeaderMap, Method};
use quorate_policy::runtime::MODEL_HEADER;

use crate::{
    backends::Configured,
    provider::{Dialect, Endpoint, Facts},
    refusal::Refusal,
};

/// Models named in an error.
const KNOWN_SHOWN_MAX: usize = 20;

/// What a path and a method ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Spend(Endpoint),
    Models,
    Model(String),
}

impl Target {
    /// For metrics.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Spend(endpoint) => endpoint.label(),
            Self::Models | Self::Model(_) => "models",
        }
    }
}

pub(crate) fn target(method: &Method, path: &str) -> Result<Target, Refusal> {
    let trimmed = path.trim_end_matches('/');
    // Anthropic's SDKs are given a base URL without `/v1`; some installations put the house in front of it.
    let below = trimmed.strip_prefix("/anthropic/v1").or_else(|| trimmed.strip_prefix("/v1"));
    let below = below.ok_or_else(|| Refusal::NoSuchPath { path: shown(path) })?;
    let (target, allowed, allow) = match Endpoint::of_path(below) {
        Some(endpoint) if trimmed.starts_with("/v1") || endpoint.dialect() == Dialect::Anthropic => {
            (Target::Spend(endpoint), Method::POST, "POST")
        }
        None if below == "/models" => (Target::Models, Method::GET, "GET"),
        _ => match below.strip_prefix("/models/").map(decoded) {
            Some(Some(id)) => (Target::Model(id), Method::GET, "GET"),
            _ => return Err(Refusal::NoSuchPath { path: shown(path) }),
        },
    };
    if *method != allowed {
        return Err(Refusal::WrongMethod { path: shown(path), method: method.to_string(), allow });
    }
    Ok(target)
}

/// Whose errors the client of a path understands.
pub(crate) fn dialect(path: &str) -> Dialect {
    let anthropics = path.starts_with("/anthropic/") || path.starts_with("/v1/messages");
    if anthropics { Dialect::Anthropic } else { Dialect::OpenAI }
}

/// The model: the body's wins over the header's.
pub(crate) fn model(facts: &Facts, headers: &HeaderMap) -> Result<String, Refusal> {
    let from_header = || headers.get(MODEL_HEADER).and_then(|value| value.to_str().ok());
    let model = facts.model.as_deref().or_else(from_header).filter(|model| !model.is_empty());
    model.map(str::to_owned).ok_or(Refusal::NoModel)
}

/// The configured models for an error, shortened.
pub(crate) fn known(backends: &Configured) -> String {
    let mut names = backends.all().iter().flat_map(|backend| &backend.models);
    let mut text = names.by_ref().take(KNOWN_SHOWN_MAX).cloned().collect::<Vec<_>>().join(", ");
    let more = names.count();
    if more > 0 {
        text.push_str(&format!(" and {more} more; see GET /v1/models"));
    }
    text
}

/// What a client wrote, short enough for an error.
pub(crate) fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// Percent-decoded; `None` if that is no UTF-8.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = match (first, after) {
            (b'%', [high, low, ..]) => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                digit(*high).zip(digit(*low)).and_then(|(high, low)| u8::try_from(high * 16 + low).ok())
            }
            _ => None,
        };
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_methods() {
        assert_eq!(target(&Method::POST, "/v1/chat/completions").unwrap(), Target::Spend(Endpoint::Chat));
        assert_eq!(target(&Method::POST, "/v1/embeddings/").unwrap(), Target::Spend(Endpoint::Embeddings));
        assert_eq!(target(&Method::GET, "/v1/models").unwrap(), Target::Models);
        for path in ["/v1/messages", "/anthropic/v1/messages"] {
            assert_eq!(target(&Method::POST, path).unwrap(), Target::Spend(Endpoint::Messages));
            assert_eq!(dialect(path), Dialect::Anthropic);
        }
        assert!(target(&Method::POST, "/anthropic/v1/chat/completions").is_err());
        assert_eq!(
            target(&Method::GET, "/v1/models/org%2Fmodel").unwrap(),
            Target::Model("org/model".to_owned())
        );
        assert_eq!(target(&Method::GET, "/v1/models/a/b%").unwrap(), Target::Model("a/b%".to_owned()));
        assert!(matches!(
            target(&Method::GET, "/v1/completions"),
            Err(Refusal::WrongMethod { allow: "POST", .. })
        ));
        for path in ["/", "/v1", "/chat/completions", "/v1/models/%ff", "/v1/chat/completions/x"] {
            assert!(matches!(target(&Method::POST, path), Err(Refusal::NoSuchPath { .. })), "{path}");
        }
    }
}
