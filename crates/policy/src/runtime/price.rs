//! What tokens cost in dollars: the prices of models, exact in integers.

use std::collections::BTreeMap;

use quorate_ledger::Amount;

use super::{Usage, builtin_prices};

const PICOS_PER_MICRO: u128 = 1_000_000;
/// Before the names of Bedrock's inference profiles.
const REGIONS: [&str; 8] = ["us", "eu", "apac", "global", "jp", "au", "ca", "us-gov"];

/// Dollars per million tokens. (An `Amount` is in millionths, so this is also picodollars per token.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Price {
    pub input: Amount,
    /// Input read from the cache.
    pub cached_input: Amount,
    /// Input written to the cache.
    pub cache_write: Amount,
    pub output: Amount,
}

impl Price {
    /// `cached_input` and `cache_write` as the input: for providers that have no prices of their own for them.
    pub fn new(input: Amount, output: Amount) -> Self {
        Self { input, cached_input: input, cache_write: input, output }
    }

    /// Dollars, rounded up once to a millionth. `None`: above [`Amount::MAX`].
    pub fn of(&self, usage: &Usage) -> Option<Amount> {
        let cached = usage.cached_input.saturating_add(usage.cache_creation_input);
        let sum = [
            (usage.input.saturating_sub(cached), self.input),
            (usage.cached_input, self.cached_input),
            (usage.cache_creation_input, self.cache_write),
            (usage.output, self.output),
        ];
        dollars(&sum)
    }

    /// The most that up to `input` and `output` tokens can cost: all of the input at its dearest.
    pub fn bound(&self, input: u64, output: u64) -> Option<Amount> {
        let dearest = self.input.max(self.cached_input).max(self.cache_write);
        dollars(&[(input, dearest), (output, self.output)])
    }
}

/// Tokens times dollars per million of them.
fn dollars(sum: &[(u64, Amount)]) -> Option<Amount> {
    let picodollars = sum.iter().try_fold(0u128, |total, (tokens, price)| {
        total.checked_add(u128::from(*tokens).checked_mul(price.micros().into())?)
    })?;
    Amount::from_micros(u64::try_from(picodollars.div_ceil(PICOS_PER_MICRO)).ok()?).ok()
}

/// A price and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedPrice {
    pub price: Price,
    /// The day of the figure, `2025-08-07`.
    pub as_of: String,
    /// From the built-in table, not from a manifest.
    pub builtin: bool,
}

/// The price table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prices {
    models: BTreeMap<String, ListedPrice>,
}

impl Prices {
    /// No prices at all.
    pub fn none() -> Self {
        Self::default()
    }

    /// The list prices of the well-known models.
    pub fn builtin() -> Self {
        let listed = builtin_prices::ROWS.iter().map(|(model, micros, as_of)| {
            let [input, cached_input, cache_write, output] =
                micros.map(|micros| Amount::from_micros(micros).unwrap_or(Amount::MAX));
            let price = Price { input, cached_input, cache_write, output };
            ((*model).to_owned(), ListedPrice { price, as_of: (*as_of).to_owned(), builtin: true })
        });
        Self { models: listed.collect() }
    }

    /// Sets or replaces the price of a model. `as_of`: the day of the figure.
    pub fn set(&mut self, model: &str, price: Price, as_of: &str) {
        let listed = ListedPrice { price, as_of: as_of.to_owned(), builtin: false };
        self.models.insert(model.to_owned(), listed);
    }

    /// The price of a model, and the name it is listed under: its own, or that of its family where the rest of the name
    /// is only a date or a version (`gpt-4o-2024-08-06`). `gpt-4o-audio-preview` is no version of `gpt-4o`: a price that
    /// is not known is better than a wrong one. Bedrock's `us.` and the like count only where they are listed.
    pub fn find(&self, model: &str) -> Option<(&str, &ListedPrice)> {
        self.family(model).or_else(|| {
            let (region, name) = model.split_once('.')?;
            REGIONS.contains(&region).then(|| self.family(name)).flatten()
        })
    }

    fn family(&self, model: &str) -> Option<(&str, &ListedPrice)> {
        let ends = model.rmatch_indices(['-', '@', ':']).map(|(end, _)| end);
        let versions = ends.filter(|end| is_version(&model[end + 1..]));
        [model.len()].into_iter().chain(versions).find_map(|end| {
            self.models.get_key_value(&model[..end]).map(|(name, listed)| (name.as_str(), listed))
        })
    }

    /// All prices, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &ListedPrice)> {
        self.models.iter().map(|(name, listed)| (name.as_str(), listed))
    }
}

/// `2024-08-06`, `20241022-v2:0`, `0613`, `latest`. A lone small number makes another model: `claude-opus-4-1`.
fn is_version(rest: &str) -> bool {
    let mut dated = false;
    rest.split(['-', '@', ':']).all(|part| {
        let digits = part.strip_prefix('v').unwrap_or(part);
        let number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let first = !dated && (digits.len() >= 4 || digits.len() < part.len());
        dated |= number && first;
        (number && dated) || matches!(part, "latest" | "preview")
    })
}
