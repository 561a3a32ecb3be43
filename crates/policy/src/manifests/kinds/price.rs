//! kind: ModelPrice. What the tokens of a model cost, in dollars per million.

use quorate_ledger::Amount;

use crate::manifests::reader::{Cursor, Fields};
use crate::manifests::values;
use crate::runtime::Price;

/// One price for one or more models.
#[derive(Debug, Clone)]
pub(crate) struct ModelPrices {
    pub models: Vec<String>,
    pub price: Price,
    /// The day of the figure, or nothing.
    pub as_of: String,
}

const MODELS_MAX: usize = 64;

impl ModelPrices {
    pub fn read(spec: &Cursor<'_>) -> Option<Self> {
        let fields = spec.fields()?;
        let mut models: Vec<String> =
            fields.list("models", MODELS_MAX).iter().filter_map(values::name).collect();
        models.extend(fields.get("model").and_then(|model| values::name(&model)));
        let price = read_price(&fields);
        let as_of = fields.get("asOf").map(|day| date(&day));
        fields.done();
        if models.is_empty() && fields.get("model").is_none() && fields.get("models").is_none() {
            return spec.refuse("field model is missing");
        }
        let as_of = as_of.unwrap_or_else(|| Some(String::new()))?;
        Some(Self { models, price: price?, as_of })
    }
}

/// `{input, cachedInput, cacheWrite, output}`: dollars per million tokens. Absent ones of the cache cost as input.
pub(crate) fn read_price(fields: &Fields<'_>) -> Option<Price> {
    let dollars = |at: Cursor<'_>| values::amount(&at, Amount::ZERO);
    let input = fields.need("input").and_then(dollars);
    let cached_input = fields.get("cachedInput").map(dollars);
    let cache_write = fields.get("cacheWrite").map(dollars);
    let output = fields.need("output").and_then(dollars);
    let input = input?;
    Some(Price {
        input,
        cached_input: cached_input.unwrap_or(Some(input))?,
        cache_write: cache_write.unwrap_or(Some(input))?,
        output: output?,
    })
}

/// `2025-08-07`
fn date(at: &Cursor<'_>) -> Option<String> {
    let text = at.text()?;
    if text.parse::<jiff::civil::Date>().is_err() {
        return at.refuse(format!("`{text}` is no day; wanted something like 2025-08-07"));
    }
    Some(text.to_owned())
}
