//! A prompt that is longer than the model's context, in the words by which clients know it. Agents shorten their
//! conversation and try again when they read these, and give up otherwise.

use crate::provider::reply::ApiError;

/// OpenAI's code.
pub(crate) const CODE: &str = "context_length_exceeded";

/// How messages of Anthropic's API begin; Claude Code looks for it.
const ANTHROPICS: &str = "prompt is too long";
/// Another one of its own, with numbers that clients read.
const ANTHROPICS_LIMIT: &str = "exceed context limit";

/// What providers say, in lower case: Anthropic, Bedrock, OpenAI and vLLM, llama.cpp, Gemini.
const WORDS: [&str; 9] = [
    ANTHROPICS,
    ANTHROPICS_LIMIT,
    "input is too long",
    "too many input tokens",
    "maximum context length",
    "context length exceeded",
    "exceeds the context window",
    "exceeds the available context size",
    "exceeds the maximum number of tokens",
];

/// Only a refused request is read for its words: messages of other errors quote anything.
pub(crate) fn is_it(error: &ApiError) -> bool {
    if error.code.as_deref() == Some(CODE) {
        return true;
    }
    let message = error.message.to_ascii_lowercase();
    matches!(error.status, 400 | 413 | 422) && WORDS.iter().any(|words| message.contains(words))
}

/// The message for a client of Anthropic's API. The provider's own stands behind its words.
pub(crate) fn in_anthropics_words(message: &str) -> String {
    let lower = message.to_ascii_lowercase();
    if lower.contains(ANTHROPICS) || lower.contains(ANTHROPICS_LIMIT) {
        return message.to_owned();
    }
    format!("{ANTHROPICS}: {message}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(status: u16, code: Option<&str>, message: &str) -> ApiError {
        let code = code.map(str::to_owned);
        ApiError { status, kind: String::new(), message: message.to_owned(), code, param: None }
    }

    #[test]
    fn every_houses_words() {
        for (status, code, message, expected) in [
            (400, None, "prompt is too long: 210000 tokens > 200000 maximum", true),
            (400, None, "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000", true),
            (400, None, "Input is too long for requested model.", true),
            (
                400,
                None,
                "This model's maximum context length is 8192 tokens. However, you requested 9000.",
                true,
            ),
            (400, Some(CODE), "too much", true),
            (413, None, "Request exceeds the maximum size", false),
            (500, None, "prompt is too long", false),
            (400, None, "messages: at least one message is required", false),
        ] {
            assert_eq!(is_it(&error(status, code, message)), expected, "{message}");
        }
        assert_eq!(in_anthropics_words("Prompt is too long"), "Prompt is too long");
        assert_eq!(in_anthropics_words("Input is too long."), "prompt is too long: Input is too long.");
    }
}
