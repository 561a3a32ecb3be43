//! What an answer costs a budget, and the most that it can cost: token kinds, expressions, prices and plain numbers.

use quorate_ledger::Amount;

use super::{CelCost, CostError, Price, Prices};

/// What is charged for an answer.
#[derive(Debug, Clone)]
pub enum Cost {
    Tokens(TokenKind),
    Cel(CelCost),
    /// By the price table, in dollars.
    Dollars,
    /// The same for every answer.
    Number(Amount),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TokenKind {
    Input,
    Output,
    Total,
    CachedInput,
    CacheCreationInput,
    Reasoning,
}

/// What a provider reports, in tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Usage {
    /// All of the input, read from and written to the cache included.
    pub input: u64,
    /// Of the input: read from the cache.
    pub cached_input: u64,
    /// Of the input: written to the cache.
    pub cache_creation_input: u64,
    /// All of the output, reasoning included.
    pub output: u64,
    /// Of the output: reasoning.
    pub reasoning: u64,
    pub total: u64,
}

/// Who serves a request: what expressions and prices see besides tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CostContext<'a> {
    /// As the backend knows it.
    pub model: &'a str,
    /// `namespace/name`.
    pub backend: &'a str,
    /// `namespace/name`; empty: none.
    pub route: &'a str,
}

impl Cost {
    /// What this usage costs, in millionths of a token, cost unit or dollar, rounded up.
    ///
    /// # Errors
    /// A model without a price, an expression that fails, or a sum above [`Amount::MAX`].
    pub fn of(
        &self,
        usage: &Usage,
        at: &CostContext<'_>,
        prices: &Prices,
        fallback: Option<&Price>,
    ) -> Result<Amount, CostError> {
        let _ = (usage, at, prices, fallback);
        Err(CostError::TooLarge)
    }

    /// The most that an answer with up to `input` and `output` tokens can cost, whichever of `at` serves it: the largest
    /// over the corners of what the cost depends on.
    ///
    /// # Errors
    /// As for [`Self::of`], for any of `at`.
    pub fn bound(
        &self,
        input: u64,
        output: u64,
        at: &[CostContext<'_>],
        prices: &Prices,
        fallback: Option<&Price>,
    ) -> Result<Amount, CostError> {
        let _ = (input, output, at, prices, fallback);
        Err(CostError::TooLarge)
    }
}
