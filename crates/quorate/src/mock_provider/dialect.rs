//! Which provider a path belongs to, and what its endpoint does.

use std::borrow::Cow;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    OpenAi,
    Azure,
    Anthropic,
    Bedrock,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    Chat,
    Completions,
    Embeddings,
    Responses,
    Models,
    Images,
    Speech,
    Transcriptions,
    Translations,
    Messages,
    CountTokens,
    Converse,
    ConverseStream,
    Invoke,
    InvokeStream,
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    pub dialect: Dialect,
    pub endpoint: Endpoint,
    /// The model or deployment that the path names.
    pub model: Option<String>,
}

impl Dialect {
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Azure => "azure",
            Self::Anthropic => "anthropic",
            Self::Bedrock => "bedrock",
        }
    }

    pub fn of_name(name: &str) -> Option<Self> {
        [Self::OpenAi, Self::Azure, Self::Anthropic, Self::Bedrock].into_iter().find(|one| one.name() == name)
    }
}

impl Route {
    pub fn of(path: &str) -> Option<Self> {
        let route = |dialect, endpoint, model: Option<Cow<'_, str>>| {
            Some(Self { dialect, endpoint, model: model.map(Cow::into_owned) })
        };
        if let Some(rest) = path.strip_prefix("/v1/") {
            return match rest {
                "messages" => route(Dialect::Anthropic, Endpoint::Messages, None),
                "messages/count_tokens" => route(Dialect::Anthropic, Endpoint::CountTokens, None),
                _ => route(Dialect::OpenAi, openai(rest)?, None),
            };
        }
        if let Some(rest) = path.strip_prefix("/openai/v1/") {
            return route(Dialect::Azure, openai(rest)?, None);
        }
        if let Some(rest) = path.strip_prefix("/openai/deployments/") {
            let (deployment, rest) = rest.split_once('/')?;
            return route(Dialect::Azure, openai(rest)?, Some(decoded(deployment)));
        }
        let (model, action) = path.strip_prefix("/model/")?.rsplit_once('/')?;
        let endpoint = match action {
            "converse" => Endpoint::Converse,
            "converse-stream" => Endpoint::ConverseStream,
            "invoke" => Endpoint::Invoke,
            "invoke-with-response-stream" => Endpoint::InvokeStream,
            "count-tokens" => Endpoint::CountTokens,
            _ => return None,
        };
        route(Dialect::Bedrock, endpoint, Some(decoded(model)))
    }
}

fn openai(path: &str) -> Option<Endpoint> {
    Some(match path {
        "chat/completions" => Endpoint::Chat,
        "completions" => Endpoint::Completions,
        "embeddings" => Endpoint::Embeddings,
        "responses" => Endpoint::Responses,
        "models" => Endpoint::Models,
        "images/generations" => Endpoint::Images,
        "audio/speech" => Endpoint::Speech,
        "audio/transcriptions" => Endpoint::Transcriptions,
        "audio/translations" => Endpoint::Translations,
        _ => return None,
    })
}

/// `%3A` and the like as the bytes they stand for; what is no such code stays as it is.
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return text.into();
    }
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let code = bytes.get(at + 1..at + 3).and_then(|code| std::str::from_utf8(code).ok());
        match code.filter(|_| *byte == b'%').and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(code) => {
                plain.push(code);
                at += 3;
            }
            None => {
                plain.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_their_endpoints() {
        let table = [
            ("/v1/chat/completions", Some((Dialect::OpenAi, Endpoint::Chat, None))),
            ("/v1/messages", Some((Dialect::Anthropic, Endpoint::Messages, None))),
            ("/openai/v1/responses", Some((Dialect::Azure, Endpoint::Responses, None))),
            (
                "/openai/deployments/my%20gpt/chat/completions",
                Some((Dialect::Azure, Endpoint::Chat, Some("my gpt"))),
            ),
            (
                "/model/a.b-v1%3A0/converse-stream",
                Some((Dialect::Bedrock, Endpoint::ConverseStream, Some("a.b-v1:0"))),
            ),
            ("/model/arn%3Aaws%2Fx/invoke", Some((Dialect::Bedrock, Endpoint::Invoke, Some("arn:aws/x")))),
            ("/model/100%/invoke", Some((Dialect::Bedrock, Endpoint::Invoke, Some("100%")))),
            ("/model/x/nothing", None),
            ("/v2/chat/completions", None),
            ("/openai/deployments/x", None),
        ];
        for (path, expected) in table {
            let route = Route::of(path);
            let found = route.as_ref().map(|route| (route.dialect, route.endpoint, route.model.as_deref()));
            assert_eq!(found, expected, "{path}");
        }
    }
}
