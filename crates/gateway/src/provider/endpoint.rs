//! Which endpoints clients may ask, which APIs backends speak, and what lies between the two.

/// An endpoint that clients ask and that may cost tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Endpoint {
    Chat,
    Completions,
    Embeddings,
    Responses,
    Images,
    Speech,
    Transcriptions,
    Translations,
    /// Anthropic's.
    Messages,
    /// Anthropic's: costs nothing.
    CountTokens,
}

/// Whose words a client uses, in requests, answers and errors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) enum Dialect {
    #[default]
    OpenAI,
    Anthropic,
}

impl Dialect {
    /// Of the ids of chat answers.
    pub(crate) fn id_prefix(self) -> &'static str {
        match self {
            Self::OpenAI => "chatcmpl-",
            Self::Anthropic => "msg_",
        }
    }
}

/// What a backend speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Api {
    /// OpenAI's, and that of all compatible servers.
    OpenAI,
    /// The same at other paths.
    Azure,
    Anthropic,
    /// AWS Bedrock's Converse, for all its models.
    Converse,
    /// AWS Bedrock's InvokeModel with Anthropic's messages inside.
    InvokeAnthropic,
}

/// How a request for an endpoint reaches a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Way {
    /// Both speak the same: bytes pass as they are.
    Pass,
    /// The same words in another envelope: paths and the frames of streams differ.
    Rewrap,
    /// Decoded, and encoded anew.
    Translate,
    /// Answered by the gateway itself.
    Here,
}

impl Endpoint {
    pub(crate) const ALL: [Self; 10] = [
        Self::Chat,
        Self::Completions,
        Self::Embeddings,
        Self::Responses,
        Self::Images,
        Self::Speech,
        Self::Transcriptions,
        Self::Translations,
        Self::Messages,
        Self::CountTokens,
    ];

    /// For metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Responses => "responses",
            Self::Images => "images",
            Self::Speech => "speech",
            Self::Transcriptions => "transcriptions",
            Self::Translations => "translations",
            Self::Messages => "messages",
            Self::CountTokens => "count_tokens",
        }
    }

    /// The path below a base URL that ends in `/v1`.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Chat => "/chat/completions",
            Self::Completions => "/completions",
            Self::Embeddings => "/embeddings",
            Self::Responses => "/responses",
            Self::Images => "/images/generations",
            Self::Speech => "/audio/speech",
            Self::Transcriptions => "/audio/transcriptions",
            Self::Translations => "/audio/translations",
            Self::Messages => "/messages",
            Self::CountTokens => "/messages/count_tokens",
        }
    }

    /// The endpoint of a path below `/v1`.
    pub(crate) fn of_path(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|endpoint| endpoint.path() == path)
    }

    pub(crate) fn dialect(self) -> Dialect {
        match self {
            Self::Messages | Self::CountTokens => Dialect::Anthropic,
            _ => Dialect::OpenAI,
        }
    }

    /// No budget is charged for it.
    pub(crate) fn is_free(self) -> bool {
        self == Self::CountTokens
    }

    /// Its streams carry usage only where `stream_options.include_usage` asks for it.
    pub(crate) fn has_stream_options(self) -> bool {
        matches!(self, Self::Chat | Self::Completions)
    }

    /// Its requests are forms with a file in them (`multipart/form-data`), all others JSON.
    pub(crate) fn takes_form(self) -> bool {
        matches!(self, Self::Transcriptions | Self::Translations)
    }

    /// The events of its streams are named by a `type` in them.
    pub(crate) fn has_typed_events(self) -> bool {
        matches!(self, Self::Responses | Self::Images | Self::Speech) || self.takes_form()
    }

    /// How a backend of `api` serves it; `None`: it cannot.
    pub(crate) fn way(self, api: Api) -> Option<Way> {
        match (self, api) {
            (Self::Messages | Self::CountTokens, Api::Anthropic) => Some(Way::Pass),
            (Self::Messages, Api::InvokeAnthropic) => Some(Way::Rewrap),
            (Self::Messages, _) => Some(Way::Translate),
            (Self::CountTokens, _) => Some(Way::Here),
            (_, Api::OpenAI) => Some(Way::Pass),
            (_, Api::Azure) => Some(Way::Rewrap),
            (Self::Chat, Api::Anthropic | Api::Converse | Api::InvokeAnthropic) => Some(Way::Translate),
            (_, Api::Anthropic | Api::Converse | Api::InvokeAnthropic) => None,
        }
    }

    /// The kinds of backends that serve it, for an error.
    pub(crate) fn served_by(self) -> String {
        let kinds = Api::ALL.into_iter().filter(|api| self.way(*api).is_some());
        kinds.map(Api::name).collect::<Vec<_>>().join(", ")
    }
}

impl Api {
    const ALL: [Self; 5] =
        [Self::OpenAI, Self::Azure, Self::Anthropic, Self::Converse, Self::InvokeAnthropic];

    /// As manifests and the config name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::OpenAI => "OpenAI",
            Self::Azure => "AzureOpenAI",
            Self::Anthropic => "Anthropic",
            Self::Converse => "AWSBedrock",
            Self::InvokeAnthropic => "AWSAnthropic",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_says_who_serves_it() {
        assert_eq!(Endpoint::Chat.served_by(), "OpenAI, AzureOpenAI, Anthropic, AWSBedrock, AWSAnthropic");
        for endpoint in [Endpoint::Embeddings, Endpoint::Responses, Endpoint::Images, Endpoint::Translations]
        {
            assert_eq!(endpoint.served_by(), "OpenAI, AzureOpenAI");
        }
        for endpoint in Endpoint::ALL {
            assert_eq!(Endpoint::of_path(endpoint.path()), Some(endpoint));
        }
    }
}
