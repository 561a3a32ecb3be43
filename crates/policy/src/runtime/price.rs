//! What tokens cost in dollars: the prices of models, exact in integers.

use std::collections::BTreeMap;

use quorate_ledger::Amount;

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
        Self::default()
    }

    /// Sets or replaces the price of a model. `as_of`: the day of the figure.
    pub fn set(&mut self, model: &str, price: Price, as_of: &str) {
        let listed = ListedPrice { price, as_of: as_of.to_owned(), builtin: false };
        self.models.insert(model.to_owned(), listed);
    }

    /// The price of a model, and the name it is listed under: its own, or that of its family where the rest of the name
    /// is only a date or a version (`gpt-4o-2024-08-06`).
    pub fn find(&self, model: &str) -> Option<(&str, &ListedPrice)> {
        self.models.get_key_value(model).map(|(name, listed)| (name.as_str(), listed))
    }

    /// All prices, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &ListedPrice)> {
        self.models.iter().map(|(name, listed)| (name.as_str(), listed))
    }
}
