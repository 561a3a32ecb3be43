//! Which of OpenAI's models think before they answer, and the word for how much.
//!
//! Source: OpenAI's guide "Reasoning models" and the reference of `reasoning_effort`: `none` from GPT-5.1 on in place of
//! `minimal`, `xhigh` from GPT-5.2 on; the o-series knows `low`, `medium` and `high` only.

use crate::provider::conversation::Reasoning;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    /// The o-series, and the open gpt-oss.
    O,
    /// GPT-5 and its minor version.
    Five(u32),
}

fn family(model: &str) -> Option<Family> {
    let name = model.rsplit('/').next().unwrap_or(model);
    if name.starts_with("gpt-oss") {
        return Some(Family::O);
    }
    if let Some(series) = name.strip_prefix('o') {
        return series.starts_with(|first: char| first.is_ascii_digit()).then_some(Family::O);
    }
    let rest = name.strip_prefix("gpt-5")?;
    if rest.starts_with("-chat") || rest.contains("-chat-") {
        return None;
    }
    let minor: String = match rest.strip_prefix('.') {
        Some(minor) => minor.chars().take_while(char::is_ascii_digit).collect(),
        None if rest.is_empty() || rest.starts_with('-') => "0".to_owned(),
        None => return None,
    };
    minor.parse().ok().map(Family::Five)
}

pub(crate) fn is_reasoning(model: &str) -> bool {
    family(model).is_some()
}

/// What is sent as `reasoning_effort`. `Err`: the model does not think, or does not let itself be told.
pub(crate) fn word(reasoning: &Reasoning, model: &str) -> Result<Option<String>, ()> {
    let Some(family) = family(model) else {
        // A model that does not think does as it was told.
        return if matches!(reasoning, Reasoning::Off | Reasoning::Adaptive) { Ok(None) } else { Err(()) };
    };
    let least = match family {
        Family::O => "low",
        Family::Five(0) => "minimal",
        Family::Five(_) => "none",
    };
    let word = match reasoning {
        Reasoning::Off => least,
        // What these models do where nothing is said.
        Reasoning::Adaptive => return Ok(None),
        Reasoning::Budget(tokens) => match tokens {
            0..4_096 => "low",
            4_096..16_384 => "medium",
            _ => "high",
        },
        Reasoning::Effort(word) => match (word.as_str(), family) {
            ("minimal", Family::O | Family::Five(1..)) => "low",
            ("max" | "xhigh", Family::Five(2..)) => "xhigh",
            ("max" | "xhigh", _) => "high",
            (word, _) => word,
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
            ("gpt-50", false),
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
            ("gpt-5", Reasoning::Adaptive, Ok(None)),
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
