//! How much the model is to think, in the words of its house: Converse itself only knows the effort.
//!
//! Sources: Bedrock's user guide on Claude's extended and adaptive thinking (a budget of at least 1,024 tokens and below
//! the limit, no sampling parameters beside it, only adaptive from Claude 4.7 on), Nova 2's `reasoningConfig`, gpt-oss's
//! `reasoning_effort`.

use serde_json::{Value, json};

use super::model::{Family, claude_version};
use crate::provider::{conversation::Reasoning, reply::Unsupported};

const BUDGET_MIN: u64 = 1024;
/// The budgets of efforts, for models that know no effort.
const BUDGET_LOW: u64 = 1024;
const BUDGET_MEDIUM: u64 = 4096;
const BUDGET_HIGH: u64 = 16_384;

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Members of `additionalModelRequestFields`.
    pub(super) fields: Vec<(&'static str, Value)>,
    /// `outputConfig.effort`.
    pub(super) effort: Option<&'static str>,
    /// Claude thinks: it then takes no sampling parameters.
    pub(super) thinks: bool,
    /// Was asked for in a way that this model has no word for.
    pub(super) dropped: Option<&'static str>,
}

/// `limit`: tokens of the answer, thoughts included.
pub(super) fn plan(
    asked: Option<&Reasoning>,
    family: Family,
    model: &str,
    limit: Option<u64>,
) -> Result<Plan, Unsupported> {
    let Some(asked) = asked else { return Ok(Plan::default()) };
    match (asked, family) {
        (Reasoning::Off, _) => Ok(Plan::default()),
        (Reasoning::Effort(effort), _) if effort == "none" => Ok(Plan::default()),
        (_, Family::Anthropic) => claude(asked, model, limit),
        // The first generation does not think.
        (_, Family::Nova) if model.contains("nova-2") => {
            let config = json!({"type": "enabled", "maxReasoningEffort": word(asked)?});
            Ok(Plan { fields: vec![("reasoningConfig", config)], ..Plan::default() })
        }
        (_, Family::OpenAi) => {
            Ok(Plan { fields: vec![("reasoning_effort", json!(word(asked)?))], ..Plan::default() })
        }
        // A hint: what the model does not know it cannot follow. Agents ask every model for it.
        (Reasoning::Effort(_), _) => Ok(Plan { dropped: Some("reasoning_effort"), ..Plan::default() }),
        (_, _) => Ok(Plan { dropped: Some("thinking"), ..Plan::default() }),
    }
}

/// For models that know an effort and no budget.
fn word(asked: &Reasoning) -> Result<&'static str, Unsupported> {
    Ok(match asked {
        Reasoning::Effort(effort) => at_most_high(level(effort)?),
        Reasoning::Budget(..=2048) => "low",
        Reasoning::Budget(8193..) => "high",
        Reasoning::Budget(_) | Reasoning::Adaptive | Reasoning::Off => "medium",
    })
}

fn claude(asked: &Reasoning, model: &str, limit: Option<u64>) -> Result<Plan, Unsupported> {
    // Ids without a version are of previews and profiles: newer than those that do not adapt.
    let version = claude_version(model).unwrap_or((u32::MAX, 0));
    let (adapts, takes_budgets) = (version >= (4, 6), version < (4, 7));
    let adaptive = |effort| Plan {
        fields: vec![("thinking", json!({"type": "adaptive"}))],
        effort,
        thinks: true,
        dropped: None,
    };
    let budget = match asked {
        Reasoning::Effort(effort) if adapts => return Ok(adaptive(Some(level(effort)?))),
        Reasoning::Adaptive if adapts => return Ok(adaptive(None)),
        Reasoning::Budget(_) if !takes_budgets => {
            return Ok(Plan { dropped: Some("thinking.budget_tokens"), ..adaptive(None) });
        }
        Reasoning::Off => return Ok(Plan::default()),
        Reasoning::Budget(budget) => *budget,
        Reasoning::Effort(effort) => match level(effort)? {
            "low" => BUDGET_LOW,
            "medium" => BUDGET_MEDIUM,
            _ => BUDGET_HIGH,
        },
        Reasoning::Adaptive => BUDGET_HIGH,
    };
    let budget = limit.map_or(budget, |limit| budget.min(limit.saturating_sub(1)));
    if budget < BUDGET_MIN {
        let hint = matches!(asked, Reasoning::Effort(_) | Reasoning::Adaptive);
        if hint {
            return Ok(Plan { dropped: Some("reasoning_effort"), ..Plan::default() });
        }
        return Err(Unsupported {
            param: "thinking.budget_tokens".to_owned(),
            why: format!(
                "must be at least {BUDGET_MIN} and below `max_tokens` for `{model}`; raise `max_tokens`"
            ),
        });
    }
    let thinking = json!({"type": "enabled", "budget_tokens": budget});
    Ok(Plan { fields: vec![("thinking", thinking)], effort: None, thinks: true, dropped: None })
}

fn level(effort: &str) -> Result<&'static str, Unsupported> {
    Ok(match effort {
        "minimal" | "low" => "low",
        "medium" => "medium",
        "high" => "high",
        "xhigh" => "xhigh",
        "max" => "max",
        _ => {
            return Err(Unsupported {
                param: "reasoning_effort".to_owned(),
                why: "is not known to Bedrock; send low, medium or high".to_owned(),
            });
        }
    })
}

fn at_most_high(level: &'static str) -> &'static str {
    if matches!(level, "xhigh" | "max") { "high" } else { level }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "anthropic.claude-sonnet-4-5-20250929-v1:0";
    const BOTH: &str = "anthropic.claude-opus-4-6-v1";
    const NEW: &str = "us.anthropic.claude-opus-4-8";

    fn fields(asked: &Reasoning, model: &str, limit: Option<u64>) -> (String, Option<&'static str>) {
        let plan = plan(Some(asked), Family::of(model), model, limit).unwrap();
        let fields: serde_json::Map<String, Value> =
            plan.fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        (Value::Object(fields).to_string(), plan.effort)
    }

    #[test]
    fn each_model_in_its_own_words() {
        let effort = |level: &str| Reasoning::Effort(level.to_owned());
        let adaptive = r#"{"thinking":{"type":"adaptive"}}"#;
        let enabled = |budget| format!(r#"{{"thinking":{{"type":"enabled","budget_tokens":{budget}}}}}"#);
        for (asked, model, limit, expected, said) in [
            (effort("low"), OLD, None, enabled(1024), None),
            (effort("medium"), OLD, Some(3000), enabled(2999), None),
            (effort("high"), OLD, Some(1024), "{}".to_owned(), None),
            (effort("minimal"), NEW, Some(100), adaptive.to_owned(), Some("low")),
            (effort("max"), BOTH, None, adaptive.to_owned(), Some("max")),
            (effort("none"), NEW, None, "{}".to_owned(), None),
            (Reasoning::Off, OLD, None, "{}".to_owned(), None),
            (Reasoning::Budget(5000), OLD, Some(8000), enabled(5000), None),
            (Reasoning::Budget(5000), BOTH, None, enabled(5000), None),
            (Reasoning::Budget(5000), NEW, None, adaptive.to_owned(), None),
            (Reasoning::Adaptive, NEW, None, adaptive.to_owned(), None),
            (Reasoning::Adaptive, OLD, Some(64_000), enabled(16_384), None),
            (
                effort("xhigh"),
                "us.amazon.nova-2-lite-v1:0",
                None,
                r#"{"reasoningConfig":{"type":"enabled","maxReasoningEffort":"high"}}"#.to_owned(),
                None,
            ),
            (effort("low"), "openai.gpt-oss-20b-1:0", None, r#"{"reasoning_effort":"low"}"#.to_owned(), None),
            (effort("low"), "meta.llama4", None, "{}".to_owned(), None),
            (
                Reasoning::Budget(20_000),
                "amazon.nova-2-lite-v1:0",
                None,
                r#"{"reasoningConfig":{"type":"enabled","maxReasoningEffort":"high"}}"#.to_owned(),
                None,
            ),
            (
                Reasoning::Adaptive,
                "openai.gpt-oss-20b-1:0",
                None,
                r#"{"reasoning_effort":"medium"}"#.to_owned(),
                None,
            ),
        ] {
            assert_eq!(fields(&asked, model, limit), (expected, said), "{asked:?} {model}");
        }
    }

    #[test]
    fn refusals_and_what_is_left_out() {
        for (asked, model, param) in [
            (Reasoning::Budget(500), OLD, "thinking.budget_tokens"),
            (Reasoning::Effort("much".to_owned()), NEW, "reasoning_effort"),
        ] {
            assert_eq!(plan(Some(&asked), Family::of(model), model, None).unwrap_err().param, param);
        }
        let dropped = |asked: &Reasoning, model| {
            plan(Some(asked), Family::of(model), model, Some(900)).unwrap().dropped
        };
        assert_eq!(dropped(&Reasoning::Budget(2000), NEW), Some("thinking.budget_tokens"));
        assert_eq!(dropped(&Reasoning::Effort("high".to_owned()), OLD), Some("reasoning_effort"));
        assert_eq!(dropped(&Reasoning::Adaptive, "meta.llama4"), Some("thinking"));
        assert_eq!(dropped(&Reasoning::Budget(2000), "amazon.nova-pro-v1:0"), Some("thinking"));
        assert_eq!(plan(None, Family::Anthropic, OLD, None), Ok(Plan::default()));
    }
}
