//! What answers cost: LLMRequestCost objects, `llmRequestCosts` of a route, `globalLLMRequestCosts` of a GatewayConfig.

use crate::manifests::reader::{Cursor, Fields};
use crate::manifests::values;
use crate::runtime::{Cost, TokenKind};

/// A cost under the metadata key by which rules refer to it.
#[derive(Debug, Clone)]
pub(crate) struct CostDefinition {
    pub key: String,
    pub cost: Cost,
}

/// kind: LLMRequestCost
#[derive(Debug, Clone)]
pub(crate) struct RequestCosts {
    pub costs: Vec<CostDefinition>,
}

/// kind: GatewayConfig. Only its costs matter here.
#[derive(Debug, Clone)]
pub(crate) struct GatewayConfig {
    pub costs: Vec<CostDefinition>,
}

#[derive(Clone, Copy)]
enum CostType {
    Tokens(TokenKind),
    Cel,
}

const COSTS_MAX: usize = 36;
const TYPES: [(&str, CostType); 8] = [
    ("InputToken", CostType::Tokens(TokenKind::Input)),
    ("OutputToken", CostType::Tokens(TokenKind::Output)),
    ("TotalToken", CostType::Tokens(TokenKind::Total)),
    ("CachedInputToken", CostType::Tokens(TokenKind::CachedInput)),
    ("CacheCreationInputToken", CostType::Tokens(TokenKind::CacheCreationInput)),
    ("ReasoningToken", CostType::Tokens(TokenKind::Reasoning)),
    ("CEL", CostType::Cel),
    // As v1alpha1 spelled it for a while.
    ("CachedCreationInputToken", CostType::Tokens(TokenKind::CacheCreationInput)),
];

impl RequestCosts {
    pub fn read(spec: &Cursor<'_>) -> Option<Self> {
        let fields = spec.fields()?;
        fields.need("llmRequestCosts");
        let costs = read_costs(&fields, "llmRequestCosts");
        fields.done();
        Some(Self { costs })
    }
}

impl GatewayConfig {
    pub fn read(spec: &Cursor<'_>) -> Option<Self> {
        let fields = spec.fields()?;
        let costs = read_costs(&fields, "globalLLMRequestCosts");
        fields.without_effect(&["extProc", "forwardProxy"]);
        fields.done();
        Some(Self { costs })
    }
}

/// A list of costs; each key once.
pub(crate) fn read_costs(fields: &Fields<'_>, name: &'static str) -> Vec<CostDefinition> {
    let mut costs: Vec<CostDefinition> = Vec::new();
    for at in fields.list(name, COSTS_MAX) {
        let Some(cost) = definition(&at) else { continue };
        if costs.iter().any(|other| other.key == cost.key) {
            at.error(format!("metadataKey {} stands twice", cost.key));
        }
        costs.push(cost);
    }
    costs
}

/// `{metadataKey, type, cel}`
fn definition(at: &Cursor<'_>) -> Option<CostDefinition> {
    let fields = at.fields()?;
    let key = fields.need("metadataKey").and_then(|key| values::name(&key));
    let kind = fields.need("type").and_then(|kind| kind.choice(&TYPES));
    let cel = fields.get("cel");
    fields.done();
    let cost = match (kind?, cel) {
        (CostType::Tokens(kind), cel) => {
            if let Some(cel) = cel {
                cel.error("is only for type CEL; leave it out or change the type");
            }
            Cost::Tokens(kind)
        }
        (CostType::Cel, Some(cel)) => Cost::Cel(values::expression(&cel)?),
        (CostType::Cel, None) => return at.refuse("field cel is missing; type CEL needs an expression"),
    };
    Some(CostDefinition { key: key?, cost })
}

/// Keys that the tutorials and examples use by convention; they count tokens also where nothing defines them.
pub(crate) fn token_cost(key: &str) -> Option<TokenKind> {
    let kind = match key.strip_suffix('s').unwrap_or(key) {
        "llm_input_token" => TokenKind::Input,
        "llm_output_token" => TokenKind::Output,
        "llm_total_token" => TokenKind::Total,
        "llm_cached_input_token" => TokenKind::CachedInput,
        "llm_cache_creation_input_token" => TokenKind::CacheCreationInput,
        "llm_reasoning_token" => TokenKind::Reasoning,
        _ => return None,
    };
    Some(kind)
}

/// Whether two costs charge the same for every answer.
pub(crate) fn same_cost(a: &Cost, b: &Cost) -> bool {
    match (a, b) {
        (Cost::Tokens(a), Cost::Tokens(b)) => a == b,
        (Cost::Cel(a), Cost::Cel(b)) => a.as_str() == b.as_str(),
        (Cost::Dollars, Cost::Dollars) => true,
        (Cost::Number(a), Cost::Number(b)) => a == b,
        _ => false,
    }
}
