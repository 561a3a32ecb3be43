//! How much the model is to think, in the words that it takes: an effort or a budget of tokens.

use serde::Serialize;

use super::model::Model;
use crate::provider::{
    conversation::{Content, Conversation, Reasoning, Role, ToolChoice},
    reply::Unsupported,
};

/// The API's own least.
const BUDGET_MIN: u64 = 1024;

/// The client's field; only clients of OpenAI's API are translated to this one.
const FIELD: &str = "reasoning_effort";

#[derive(Debug, Default, Serialize)]
pub(super) struct Thinking {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    budget_tokens: Option<u64>,
}

#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) thinking: Option<Thinking>,
    pub(super) effort: Option<&'static str>,
    /// What was asked for could not be had in full.
    pub(super) dropped: Option<&'static str>,
}

impl Plan {
    /// The model may think: then some fields of the request are refused.
    pub(super) fn thinks(&self) -> bool {
        self.thinking.as_ref().is_some_and(|thinking| thinking.r#type != "disabled")
    }

    fn left_out() -> Self {
        Self { dropped: Some(FIELD), ..Self::default() }
    }

    pub(super) fn of(conversation: &Conversation, model: Model, limit: u64) -> Result<Self, Unsupported> {
        let Some(reasoning) = &conversation.reasoning else { return Ok(Self::default()) };
        let reasoning = match reasoning {
            Reasoning::Effort(word) if word == "none" => &Reasoning::Off,
            other => other,
        };
        // With thinking, no tool can be forced; the client relies on the tool.
        let forced = matches!(conversation.tool_choice, Some(ToolChoice::Any | ToolChoice::Named(_)));
        if forced && !conversation.tools.is_empty() && *reasoning != Reasoning::Off {
            return Ok(Self::left_out());
        }
        if model.adaptive { adaptive(reasoning, model) } else { budgeted(conversation, reasoning, limit) }
    }
}

fn unknown(effort: &str) -> Unsupported {
    let why =
        format!("`{effort}` is unknown; use `none`, `minimal`, `low`, `medium`, `high`, `xhigh` or `max`");
    Unsupported { param: FIELD.into(), why }
}

fn adaptive(reasoning: &Reasoning, model: Model) -> Result<Plan, Unsupported> {
    let (effort, dropped) = match reasoning {
        Reasoning::Off if model.always_thinks => (Some("low"), Some(FIELD)),
        Reasoning::Off => {
            let thinking = Some(Thinking { r#type: "disabled", budget_tokens: None });
            return Ok(Plan { thinking, ..Plan::default() });
        }
        Reasoning::Adaptive => (None, None),
        Reasoning::Budget(0..=2048) => (Some("low"), None),
        Reasoning::Budget(..=8192) => (Some("medium"), None),
        Reasoning::Budget(_) => (Some("high"), None),
        Reasoning::Effort(word) => match word.as_str() {
            "minimal" | "low" => (Some("low"), None),
            "medium" => (Some("medium"), None),
            "high" => (Some("high"), None),
            "xhigh" if model.xhigh => (Some("xhigh"), None),
            "xhigh" => (Some("high"), Some(FIELD)),
            "max" => (Some("max"), None),
            other => return Err(unknown(other)),
        },
    };
    let thinking = Some(Thinking { r#type: "adaptive", budget_tokens: None });
    Ok(Plan { thinking, effort, dropped })
}

fn budgeted(conversation: &Conversation, reasoning: &Reasoning, limit: u64) -> Result<Plan, Unsupported> {
    // A budget of the client's own may take all but one token; one that is read from a word leaves room for an answer.
    let answer = limit / 4;
    let (asked, most) = match reasoning {
        // The default of these models.
        Reasoning::Off => return Ok(Plan::default()),
        Reasoning::Budget(tokens) => ((*tokens).max(BUDGET_MIN), limit.saturating_sub(1)),
        Reasoning::Adaptive => (16_384, limit - answer),
        Reasoning::Effort(word) => match word.as_str() {
            "minimal" | "low" => (1024, limit - answer),
            "medium" => (4096, limit - answer),
            "high" => (16_384, limit - answer),
            "xhigh" => (24_576, limit - answer),
            "max" => (32_768, limit - answer),
            other => return Err(unknown(other)),
        },
    };
    if most < BUDGET_MIN || most >= limit || thoughts_missing(conversation) {
        return Ok(Plan::left_out());
    }
    let budget = asked.min(most);
    let thinking = Some(Thinking { r#type: "enabled", budget_tokens: Some(budget) });
    Ok(Plan { thinking, effort: None, dropped: (budget < asked).then_some(FIELD) })
}

/// With a budget, the turn whose tools are being answered must begin with the model's thoughts, signed; clients of other
/// dialects often do not keep them.
fn thoughts_missing(conversation: &Conversation) -> bool {
    let last = conversation.turns.iter().rev().find(|turn| turn.role == Role::Assistant);
    let Some(last) = last else { return false };
    let has = |test: fn(&Content) -> bool| last.blocks.iter().any(|block| test(&block.content));
    has(|content| matches!(content, Content::ToolUse { .. }))
        && !has(|content| {
            matches!(content, Content::Thinking { signature: Some(_), .. } | Content::RedactedThinking(_))
        })
}
