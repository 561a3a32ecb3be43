//! Which of OpenAI's models think before they answer, and the word for how much.
//!
//! Source: OpenAI's guide "Reasoning models" and the reference of `reasoning_effort`. The o-series knows `low`, `medium` and
//! `high`; GPT-5 adds `minimal`; from GPT-5.1 on there is `none` in its place (and is the default), from 5.2 on `xhigh`, from
//! 5.6 on `max`. Codex models always think.

use crate::provider::conversation::Reasoning;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    /// The o-series, and the open gpt-oss.
    O,
    Gpt {
        /// Major and minor.
        version: (u32, u32),
        codex: bool,
    },
}

fn family(model: &str) -> Option<Family> {
    let name = model.rsplit('/').next().unwrap_or(model);
    if name.starts_with("gpt-oss") {
        return Some(Family::O);
    }
    if let Some(series) = name.strip_prefix('o') {
        return series.starts_with(|first: char| first.is_ascii_digit()).then_some(Family::O);
    }
    let mut parts = name.strip_prefix("gpt-")?.split('-');
    let number = parts.next()?;
    let (major, minor) = number.split_once('.').unwrap_or((number, "0"));
    let version = (major.parse().ok()?, minor.parse().ok()?);
    let variant: Vec<&str> = parts.collect();
    // Those named `chat` do not think. 35 is how Azure writes 3.5.
    if !(5..=30).contains(&version.0) || variant.contains(&"chat") {
        return None;
    }
    Some(Family::Gpt { version, codex: variant.contains(&"codex") })
}

pub(crate) fn is_reasoning(model: &str) -> bool {
    family(model).is_some()
}

/// What is sent as `reasoning_effort`. `Err`: the model does not think, or does not let itself be told.
pub(crate) fn word(reasoning: &Reasoning, model: &str) -> Result<Option<String>, ()> {
    let Some(family) = family(model) else {
        // A model that does not think does as it was told.
        return if matches!(reasoning, Reasoning::Off) { Ok(None) } else { Err(()) };
    };
    let (version, codex) = match family {
        Family::O => ((0, 0), false),
        Family::Gpt { version, codex } => (version, codex),
    };
    let (least, little) = match version {
        (5, 0) if !codex => ("minimal", "minimal"),
        _ if family == Family::O || codex => ("low", "low"),
        _ => ("none", "low"),
    };
    let word = match reasoning {
        Reasoning::Off => least,
        // The middle, which was the default before `none` was.
        Reasoning::Adaptive => "medium",
        Reasoning::Budget(tokens) => match tokens {
            0..4_096 => "low",
            4_096..16_384 => "medium",
            _ => "high",
        },
        Reasoning::Effort(word) => match word.as_str() {
            "minimal" => little,
            "max" if version >= (5, 6) => "max",
            "max" | "xhigh" if version >= (5, 2) => "xhigh",
            "max" | "xhigh" => "high",
            word => word,
        },
    };
    Ok(Some(word.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families() {
        for (model, expected) in [
            ("o3-mini", true),
            ("o1", true),
            ("openai/gpt-oss-120b", true),
            ("gpt-5", true),
            ("gpt-5-nano-2025-08-07", true),
            ("openai/gpt-5.1", true),
            ("gpt-5-chat-latest", false),
            ("gpt-5.2-chat-latest", false),
            ("gpt-6.2-astra", true),
            ("gpt-50", false),
            ("gpt-35-turbo", false),
            ("gpt-4o", false),
            ("omni-moderation", false),
            ("orca", false),
            ("llama-3", false),
            ("", false),
        ] {
            assert_eq!(is_reasoning(model), expected, "{model}");
        }
    }

    #[test]
    fn words() {
        let effort = |word: &str| Reasoning::Effort(word.to_owned());
        for (model, reasoning, expected) in [
            ("gpt-5", Reasoning::Off, Ok(Some("minimal"))),
            ("gpt-5.1", Reasoning::Off, Ok(Some("none"))),
            ("o3", Reasoning::Off, Ok(Some("low"))),
            ("gpt-4o", Reasoning::Off, Ok(None)),
            ("gpt-5.1-codex", Reasoning::Off, Ok(Some("low"))),
            ("gpt-6-sol", Reasoning::Off, Ok(Some("none"))),
            ("gpt-5.5", Reasoning::Adaptive, Ok(Some("medium"))),
            ("gpt-4o", Reasoning::Adaptive, Err(())),
            ("gpt-5.1", effort("minimal"), Ok(Some("low"))),
            ("gpt-5.6-sol", effort("max"), Ok(Some("max"))),
            ("gpt-5", Reasoning::Budget(1_024), Ok(Some("low"))),
            ("gpt-5", Reasoning::Budget(8_000), Ok(Some("medium"))),
            ("gpt-5", Reasoning::Budget(32_000), Ok(Some("high"))),
            ("o3", effort("minimal"), Ok(Some("low"))),
            ("gpt-5", effort("minimal"), Ok(Some("minimal"))),
            ("gpt-5.2", effort("max"), Ok(Some("xhigh"))),
            ("gpt-5.1", effort("max"), Ok(Some("high"))),
            ("gpt-4o", Reasoning::Budget(1_024), Err(())),
            ("llama-3", effort("high"), Err(())),
        ] {
            assert_eq!(
                word(&reasoning, model),
                expected.map(|word| word.map(str::to_owned)),
                "{model} {reasoning:?}"
            );
        }
    }
}
