//! What a model's id tells: its house, how it thinks, its place in a path. Not a list of models.

use crate::provider::percent;

/// Whose fields a model knows beyond those of every model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Anthropic,
    Nova,
    /// gpt-oss.
    OpenAi,
    Other,
}

impl Family {
    /// An ARN that names no model (of an application's inference profile, of provisioned throughput) counts as
    /// Anthropic's, the house that most of them are for: Bedrock refuses what another model does not know.
    pub(super) fn of(model: &str) -> Self {
        let opaque = ["application-inference-profile/", "provisioned-model/", "custom-model-deployment/"];
        if model.contains("anthropic.") || model.contains("claude") {
            Self::Anthropic
        } else if model.contains("amazon.nova") {
            Self::Nova
        } else if model.contains("openai.") {
            Self::OpenAi
        } else if model.starts_with("arn:") && opaque.iter().any(|kind| model.contains(kind)) {
            Self::Anthropic
        } else {
            Self::Other
        }
    }
}

/// Major and minor version of a Claude: `claude-sonnet-4-5-20250929-v1:0`, `claude-3-7-sonnet-…`. `None`: its id names
/// none, as those of previews and profiles.
pub(super) fn claude_version(model: &str) -> Option<(u32, u32)> {
    let (_, name) = model.rsplit_once("claude-")?;
    // Dates are longer than versions.
    let mut numbers = name.split('-').map(|part| part.parse().ok().filter(|_| part.len() <= 2));
    let major = numbers.by_ref().find_map(|number| number)?;
    Some((major, numbers.next().flatten().unwrap_or(0)))
}

/// Which sampling parameters a model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sampling {
    All,
    /// Temperature or top-p, not both: Claude from 4.1 on.
    One,
    /// Claude from 4.7 on, and any that thinks.
    None,
}

impl Sampling {
    pub(super) fn of(model: &str) -> Self {
        match (Family::of(model), claude_version(model)) {
            (Family::Anthropic, Some(version)) if version >= (4, 7) => Self::None,
            (Family::Anthropic, Some(version)) if version >= (4, 1) => Self::One,
            _ => Self::All,
        }
    }
}

/// `/model/{model}/{operation}`, the model percent-encoded whole: the signature is over these very bytes.
pub(super) fn path(model: &str, operation: &str) -> String {
    format!("/model/{}/{operation}", percent::encoded(model))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_and_versions() {
        for (model, family, version) in [
            ("anthropic.claude-3-7-sonnet-20250219-v1:0", Family::Anthropic, Some((3, 7))),
            ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", Family::Anthropic, Some((4, 5))),
            ("anthropic.claude-opus-4-20250514-v1:0", Family::Anthropic, Some((4, 0))),
            ("global.anthropic.claude-opus-4-8", Family::Anthropic, Some((4, 8))),
            ("anthropic.claude-opus-5", Family::Anthropic, Some((5, 0))),
            ("anthropic.claude-mythos-preview", Family::Anthropic, None),
            (
                "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc",
                Family::Anthropic,
                None,
            ),
            ("us.amazon.nova-2-lite-v1:0", Family::Nova, None),
            ("openai.gpt-oss-120b-1:0", Family::OpenAi, None),
            ("meta.llama3-1-8b-instruct-v1:0", Family::Other, None),
            ("", Family::Other, None),
        ] {
            assert_eq!((Family::of(model), claude_version(model)), (family, version), "{model}");
        }
    }

    #[test]
    fn samplings() {
        for (model, sampling) in [
            ("anthropic.claude-opus-4-20250514-v1:0", Sampling::All),
            ("anthropic.claude-opus-4-1-20250805-v1:0", Sampling::One),
            ("anthropic.claude-opus-4-6-v1", Sampling::One),
            ("anthropic.claude-opus-4-7", Sampling::None),
            ("anthropic.claude-sonnet-5", Sampling::None),
            ("meta.llama4-maverick-17b-instruct-v1:0", Sampling::All),
        ] {
            assert_eq!(Sampling::of(model), sampling, "{model}");
        }
    }

    #[test]
    fn paths() {
        assert_eq!(path("amazon.nova-lite-v1:0", "converse"), "/model/amazon.nova-lite-v1%3A0/converse");
        assert_eq!(path("arn:aws:a/ü b", "invoke"), "/model/arn%3Aaws%3Aa%2F%C3%BC%20b/invoke");
    }
}
