//! kind: QuotaPolicy. Budgets of a backend, per model.

use quorate_ledger::Amount;

use crate::manifests::kinds::{ClientSelector, Targets};
use crate::manifests::reader::{Cursor, Fields};
use crate::manifests::values;
use crate::runtime::{CelCost, Cost, TokenKind};

#[derive(Debug, Clone)]
pub(crate) struct QuotaPolicy {
    pub targets: Targets,
    /// For all models together: cost and bucket.
    pub service: Option<(Cost, Bucket)>,
    pub models: Vec<ModelQuota>,
}

#[derive(Debug, Clone)]
pub(crate) struct ModelQuota {
    /// As the backend knows it.
    pub model: String,
    pub cost: Cost,
    pub default: Option<Bucket>,
    pub rules: Vec<Bucket>,
}

/// So much in any interval of that length.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    pub limit: Amount,
    pub window_ms: u64,
    pub selector: ClientSelector,
    pub shadow: bool,
}

const MODELS_MAX: usize = 128;
const RULES_MAX: usize = 128;
const DURATIONS: [(&str, u64); 4] = [("1s", 1_000), ("1m", 60_000), ("1h", 3_600_000), ("1d", 86_400_000)];

impl QuotaPolicy {
    pub fn read(spec: &Cursor<'_>) -> Option<Self> {
        let fields = spec.fields()?;
        let targets = Targets::read(&fields, &["AIServiceBackend", "AIBackend"]);
        let service = fields.get("serviceQuota").map(|service| service_quota(&service));
        let models = fields.list("perModelQuotas", MODELS_MAX).iter().filter_map(model_quota).collect();
        fields.done();
        let service = match service {
            Some(service) => Some(service?),
            None => None,
        };
        Some(Self { targets, service, models })
    }
}

/// `{costExpression, quota}`
fn service_quota(at: &Cursor<'_>) -> Option<(Cost, Bucket)> {
    let fields = at.fields()?;
    let cost = cost(&fields);
    let bucket = fields.need("quota").and_then(|quota| bucket(&quota));
    fields.done();
    Some((cost?, bucket?))
}

/// `{modelName, quota: {costExpression, mode, defaultBucket, bucketRules}}`
fn model_quota(at: &Cursor<'_>) -> Option<ModelQuota> {
    let fields = at.fields()?;
    let model = fields.need("modelName").and_then(|model| values::name(&model));
    let quota = fields.need("quota").and_then(|quota| quota.fields());
    fields.done();
    let quota = quota?;
    let cost = cost(&quota);
    if let Some(mode) = quota.get("mode") {
        mode.choice(&[("Shared", ())]);
    }
    let default = quota.get("defaultBucket").map(|default| bucket(&default));
    let rules = quota.list("bucketRules", RULES_MAX).iter().filter_map(rule).collect();
    quota.done();
    let default = match default {
        Some(default) => Some(default?),
        None => None,
    };
    Some(ModelQuota { model: model?, cost: cost?, default, rules })
}

/// `{clientSelectors, quota, shadowMode}`
fn rule(at: &Cursor<'_>) -> Option<Bucket> {
    let fields = at.fields()?;
    let selector = ClientSelector::read_all(&fields);
    let quota = fields.need("quota").and_then(|quota| bucket(&quota));
    let shadow = fields.flag("shadowMode");
    fields.done();
    Some(Bucket { selector, shadow, ..quota? })
}

/// `{limit, duration}`
fn bucket(at: &Cursor<'_>) -> Option<Bucket> {
    let fields = at.fields()?;
    let limit = fields.need("limit").and_then(|limit| limit.integer(0, Amount::MAX.units_floor()));
    let window_ms = fields.need("duration").and_then(|duration| duration.choice(&DURATIONS));
    fields.done();
    let limit = Amount::from_units(limit?).ok()?;
    Some(Bucket { limit, window_ms: window_ms?, selector: ClientSelector::default(), shadow: false })
}

/// Total tokens, where there is no expression.
fn cost(fields: &Fields<'_>) -> Option<Cost> {
    match fields.get("costExpression") {
        Some(expression) => values::expression(&expression).map(|cel: CelCost| Cost::Cel(cel)),
        None => Some(Cost::Tokens(TokenKind::Total)),
    }
}
