//! The top-level fields of request bodies, by what the gateway does with them. Which values they may have is decided in
//! [`super::facts`].

use crate::provider::{endpoint::Endpoint, tally::Place};

/// Fields that act on the answer or on the gateway and never become tokens.
pub(crate) const WITHOUT_TOKENS: &[&str] = &[
    "anthropic_beta",
    "anthropic_version",
    "audio",
    "cache_control",
    "dimensions",
    "echo",
    "encoding_format",
    "frequency_penalty",
    "include",
    "logit_bias",
    "logprobs",
    "max_tool_calls",
    "metadata",
    "modalities",
    "moderation",
    "output_compression",
    "parallel_tool_calls",
    "presence_penalty",
    "prompt_cache_key",
    "prompt_cache_retention",
    "reasoning",
    "reasoning_effort",
    "safety_identifier",
    "seed",
    "service_tier",
    "speed",
    "stop",
    "stop_sequences",
    "store",
    "style",
    "temperature",
    "thinking",
    "tool_choice",
    "function_call",
    "top_k",
    "top_logprobs",
    "top_p",
    "truncation",
    "user",
    "verbosity",
    "voice",
    "web_search_options",
];

/// What a field means to the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    /// A value that the gateway acts on.
    Setting,
    /// Input, measured as it is walked.
    Input(Place),
    /// Input that the provider holds: its size is not known here.
    Kept,
}

/// Fields that may be there once only, with a number each; `None`: any other.
pub(crate) fn known(endpoint: Endpoint, key: &str) -> Option<(u32, &'static str, Field)> {
    use Field::{Input, Kept, Setting};
    const ALL: [(&str, Field); 13] = [
        ("model", Setting),
        ("stream", Setting),
        ("stream_options", Setting),
        ("max_tokens", Setting),
        ("max_completion_tokens", Setting),
        ("n", Setting),
        ("best_of", Setting),
        ("messages", Input(Place::Messages)),
        ("prompt", Input(Place::Prompt)),
        ("input", Input(Place::Prompt)),
        ("tools", Input(Place::Tools)),
        ("functions", Input(Place::Tools)),
        // Anthropic's; a field that OpenAI does not know counts no less than any other.
        ("system", Input(Place::Content)),
    ];
    // Others' names for a limit say nothing there.
    const MESSAGES: [(&str, Field); 6] = [
        ("model", Setting),
        ("stream", Setting),
        ("max_tokens", Setting),
        ("system", Input(Place::Content)),
        ("messages", Input(Place::Messages)),
        ("tools", Input(Place::Tools)),
    ];
    const RESPONSES: [(&str, Field); 10] = [
        ("model", Setting),
        ("stream", Setting),
        ("max_output_tokens", Setting),
        ("background", Setting),
        ("input", Input(Place::Items)),
        ("instructions", Input(Place::Content)),
        ("tools", Input(Place::Tools)),
        ("previous_response_id", Kept),
        ("conversation", Kept),
        ("prompt", Kept),
    ];
    const IMAGES: [(&str, Field); 7] = [
        ("model", Setting),
        ("stream", Setting),
        ("n", Setting),
        ("quality", Setting),
        ("size", Setting),
        ("partial_images", Setting),
        ("prompt", Input(Place::Prompt)),
    ];
    const SPEECH: [(&str, Field); 4] = [
        ("model", Setting),
        ("stream_format", Setting),
        ("input", Input(Place::Prompt)),
        ("instructions", Input(Place::Prompt)),
    ];
    let fields: &'static [(&str, Field)] = match endpoint {
        Endpoint::Messages | Endpoint::CountTokens => &MESSAGES,
        Endpoint::Responses => &RESPONSES,
        Endpoint::Images => &IMAGES,
        Endpoint::Speech => &SPEECH,
        _ => &ALL,
    };
    let index = fields.iter().position(|(name, _)| *name == key)?;
    fields.get(index).map(|(name, field)| (1 << index, *name, *field))
}
