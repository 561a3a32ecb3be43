//! Counts tokens as OpenAI's models do, and knows what a model adds around the text. An upper bound where the exact
//! rules are not public.
//!
//! Models of other houses have tokenizers of their own: for them only the bytes of the text are a safe bound (a byte-pair
//! token covers at least one byte), unless the backend's config names a tokenizer.

use crate::{
    piece_counts,
    pieces::Rules,
    provider::{Api, Endpoint, tally::Input},
};

/// How the text of a model is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tokenizer {
    /// gpt-4o and later, the o series.
    O200k,
    /// gpt-4, gpt-3.5, the embeddings, davinci-002 and babbage-002.
    Cl100k,
    /// Unknown: one token a byte.
    Bytes,
}

const CL100K: &[&str] = &["gpt-4", "gpt-3.5", "gpt-35", "text-embedding-", "davinci-002", "babbage-002"];
const O200K: &[&str] = &[
    "gpt-4o",
    "gpt-4.",
    "gpt-5",
    "gpt-6",
    "gpt-oss",
    "gpt-audio",
    "gpt-realtime",
    "chatgpt-",
    "codex-",
    "o1",
    "o3",
    "o4",
];

/// Words of the schema that stand in every message: one token each, in every vocabulary here.
const ONE_TOKEN: [&str; 5] = ["user", "assistant", "system", "tool", "text"];

/// Fine-tuned models count like the model they are made of.
fn base_name(model: &str) -> &str {
    let model = model.strip_prefix("ft:").unwrap_or(model);
    model.strip_prefix("openai/").unwrap_or(model)
}

/// A model that OpenAI itself serves (gpt-oss is served by others).
pub(crate) fn is_openai(model: &str) -> bool {
    let name = base_name(model);
    !name.starts_with("gpt-oss") && Tokenizer::for_model(name) != Tokenizer::Bytes
}

fn speaks_openai(api: Api) -> bool {
    matches!(api, Api::OpenAI | Api::Azure)
}

impl Tokenizer {
    /// By the family in the model's name.
    pub(crate) fn for_model(model: &str) -> Self {
        let name = base_name(model);
        let family = |families: &[&str]| families.iter().any(|family| name.starts_with(family));
        if family(O200K) {
            Self::O200k
        } else if family(CL100K) {
            Self::Cl100k
        } else {
            Self::Bytes
        }
    }

    /// The same behind `api`: what does not speak OpenAI's serves no model of theirs, whatever its name looks like.
    pub(crate) fn at(api: Api, model: &str) -> Self {
        if speaks_openai(api) { Self::for_model(model) } else { Self::Bytes }
    }

    pub(crate) fn count(self, text: &str) -> u64 {
        match self {
            Self::O200k | Self::Cl100k if ONE_TOKEN.contains(&text) => 1,
            Self::O200k => piece_counts::count(Rules::O200k, text),
            Self::Cl100k => piece_counts::count(Rules::Cl100k, text),
            Self::Bytes => text.len() as u64,
        }
    }

    /// Compiles the expressions for text beyond ASCII (some milliseconds each), so that no request pays for it.
    pub(crate) fn warm_up() {
        Self::O200k.count("é");
        Self::Cl100k.count("é");
    }
}

/// What comes before the first tool definition, and around each one. Not public; measured on recordings, with a margin.
const TOOLS: u64 = 64;
const TOOL: u64 = 32;
/// Anthropic's models get a system prompt of up to 530 tokens with their tools (its page on tool use); later ones grow.
const TOOLS_OF_OTHERS: u64 = 1_024;
/// A tool that a turn used and the request does not define: it is defined in its place.
const UNDEFINED_TOOL: u64 = 128;
/// Where the answer is to be JSON, Anthropic's models get a prompt that says so, of their own or of the gateway's.
const FORMAT_OF_OTHERS: u64 = 512;
/// Claude counts up to 1,600 tokens an image, from 4.7 on three times as many (Anthropic's page on vision). With a margin.
const IMAGE_OF_CLAUDE: u64 = 8_192;

/// What a model adds around the text, in tokens. Sources: OpenAI's cookbook "How to count tokens" (3 a message, 1 for a
/// name, 3 to prime the reply), its vision guide, and the recordings in the tests; each with a margin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overheads {
    message: u64,
    /// Once a request.
    fixed: u64,
    image: u64,
    /// Before the first tool.
    tools: u64,
    /// Defines tools that only the turns name.
    defines_tools: bool,
    /// For an answer in JSON.
    format: u64,
    /// The most audio that it listens to.
    audio_max: u64,
}

/// What is spoken is written into a prompt of a model's own.
const SPOKEN: u64 = 64;

/// The models of OpenAI that write down what they hear take 16,000 tokens (25 minutes) and write 2,000 (their pages in its
/// list of models). With a margin.
fn transcribes(name: &str) -> bool {
    name.starts_with("gpt-4o-") && name.contains("-transcribe")
}

/// The most that a model writes of a transcript.
pub(crate) fn transcript_max(model: &str) -> u64 {
    if transcribes(base_name(model)) { 4_096 } else { u64::MAX }
}

impl Overheads {
    pub(crate) fn for_model(model: &str) -> Self {
        let name = base_name(model);
        // gpt-4o-mini counts images at 33 times the tokens of gpt-4o: 2,833 + 8 tiles × 5,667.
        let image = if is_openai(name) && !name.starts_with("gpt-4o-mini") { 4_096 } else { 50_000 };
        let audio_max = if transcribes(name) { 20_000 } else { u64::MAX };
        if is_openai(name) {
            Self { message: 4, fixed: 3, image, tools: TOOLS, defines_tools: false, format: 0, audio_max }
        } else if name.starts_with("gpt-oss") {
            // Its template opens with a system message of its own.
            Self { message: 8, fixed: 128, image, tools: TOOLS, defines_tools: false, format: 0, audio_max }
        } else {
            let (tools, format) = (TOOLS_OF_OTHERS, FORMAT_OF_OTHERS);
            Self { message: 8, fixed: 8, image, tools, defines_tools: false, format, audio_max }
        }
    }

    /// The same behind `api`.
    pub(crate) fn at(api: Api, model: &str) -> Self {
        if speaks_openai(api) {
            return Self::for_model(model);
        }
        // No name of OpenAI's means anything there.
        let others = Self::for_model("");
        let image = if model.contains("claude") { IMAGE_OF_CLAUDE } else { others.image };
        Self { image, defines_tools: true, ..others }
    }

    /// The upper bound of the prompt's tokens, its text measured in tokens or in bytes.
    pub(crate) fn bound(self, endpoint: Endpoint, input: &Input) -> u64 {
        let structure = match endpoint {
            Endpoint::Chat | Endpoint::Messages | Endpoint::CountTokens | Endpoint::Responses => {
                let undefined = if self.defines_tools && input.tools == 0 { input.calls } else { 0 };
                let each = input.tools.saturating_mul(TOOL);
                let most =
                    each.saturating_add(undefined.saturating_mul(UNDEFINED_TOOL)).saturating_add(self.tools);
                let tools = if input.tools + undefined == 0 { 0 } else { most };
                let format = input.formats.saturating_mul(self.format);
                let messages = input.messages.saturating_mul(self.message);
                self.fixed.saturating_add(messages).saturating_add(tools).saturating_add(format)
            }
            // A prompt may get a begin-of-text token.
            Endpoint::Completions | Endpoint::Embeddings => 1,
            Endpoint::Images | Endpoint::Speech | Endpoint::Transcriptions | Endpoint::Translations => SPOKEN,
        };
        let images = input.images.saturating_mul(self.image);
        let audio = input.audio.min(self.audio_max);
        input.text.saturating_add(structure).saturating_add(images).saturating_add(audio)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn audio_is_bounded_by_what_a_model_listens_to() {
        let input = Input { audio: 300_000, ..Input::default() };
        let bound = |model: &str| Overheads::for_model(model).bound(Endpoint::Transcriptions, &input);
        assert_eq!(bound("gpt-4o-mini-transcribe"), 20_000 + SPOKEN);
        assert_eq!((bound("whisper-1"), transcript_max("whisper-1")), (300_000 + SPOKEN, u64::MAX));
    }

    #[test]
    fn words_of_the_schema_are_one_token_each() {
        for word in ONE_TOKEN {
            for tokenizer in [bpe_openai::o200k_base(), bpe_openai::cl100k_base()] {
                assert_eq!(tokenizer.count(word), 1, "{word}");
            }
        }
    }

    #[test]
    fn families() {
        for (model, tokenizer, openai) in [
            ("gpt-4o-mini", Tokenizer::O200k, true),
            ("gpt-4.1-nano", Tokenizer::O200k, true),
            ("gpt-5-nano-2025-08-07", Tokenizer::O200k, true),
            ("o3-mini", Tokenizer::O200k, true),
            ("gpt-4-turbo", Tokenizer::Cl100k, true),
            ("ft:gpt-3.5-turbo:org::id", Tokenizer::Cl100k, true),
            ("openai/gpt-oss-120b", Tokenizer::O200k, false),
            ("llama-3.1-8b", Tokenizer::Bytes, false),
            ("", Tokenizer::Bytes, false),
        ] {
            assert_eq!((Tokenizer::for_model(model), is_openai(model)), (tokenizer, openai), "{model}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn bytes_bound_every_tokenizer(text in "\\PC{0,200}|[ \\t\\r\\n]{0,40}|(\\x00|\u{1F600}|é|가){0,40}") {
            for tokenizer in [Tokenizer::O200k, Tokenizer::Cl100k] {
                prop_assert!(tokenizer.count(&text) <= Tokenizer::Bytes.count(&text));
            }
        }
    }
}
