//! What an answer costs a budget, and the most that it can cost: token kinds, expressions, prices and plain numbers.

use quorate_ledger::Amount;

use super::{CelCost, CostError, Price, Prices};

/// What is charged for an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
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
        match self {
            Self::Tokens(kind) => Amount::from_units(kind.of(usage)).map_err(|_| CostError::TooLarge),
            Self::Cel(cost) => cost.of(usage, at),
            Self::Dollars => price(at, prices, fallback)?.of(usage).ok_or(CostError::TooLarge),
            Self::Number(amount) => Ok(*amount),
        }
    }

    /// The most that an answer with up to `input` and `output` tokens can cost, whichever of `at` serves it: the largest
    /// over the corners of what the cost depends on. `at` is empty where nothing can serve the request, which is an
    /// error for costs that depend on it.
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
        let dearest = |one: &dyn Fn(&CostContext<'_>) -> Result<Amount, CostError>| {
            let first = at.split_first().ok_or(CostError::NoBackend)?;
            first.1.iter().try_fold(one(first.0)?, |most, at| one(at).map(|amount| most.max(amount)))
        };
        match self {
            Self::Tokens(kind) => {
                Amount::from_units(kind.most(input, output)).map_err(|_| CostError::TooLarge)
            }
            Self::Cel(cost) => dearest(&|at| cost.bound(input, output, at)),
            Self::Dollars => {
                dearest(&|at| price(at, prices, fallback)?.bound(input, output).ok_or(CostError::TooLarge))
            }
            Self::Number(amount) => Ok(*amount),
        }
    }
}

impl Cost {
    /// Whether what is charged depends on the input.
    pub fn counts_input(&self) -> bool {
        self.counts(|kind| kind.most(1, 0) > 0)
    }

    /// Whether what is charged depends on the output.
    pub fn counts_output(&self) -> bool {
        self.counts(|kind| kind.most(0, 1) > 0)
    }

    fn counts(&self, grows: impl Fn(TokenKind) -> bool) -> bool {
        match self {
            Self::Tokens(kind) => grows(*kind),
            Self::Cel(cost) => cost.reads(grows),
            Self::Dollars => true,
            Self::Number(_) => false,
        }
    }
}

fn price<'a>(
    at: &CostContext<'_>,
    prices: &'a Prices,
    fallback: Option<&'a Price>,
) -> Result<&'a Price, CostError> {
    let listed = prices.find(at.model).map(|(_, listed)| &listed.price);
    listed.or(fallback).ok_or_else(|| CostError::NoPrice { model: at.model.chars().take(128).collect() })
}

impl TokenKind {
    /// How many of this kind were used.
    pub fn of(self, usage: &Usage) -> u64 {
        match self {
            Self::Input => usage.input,
            Self::Output => usage.output,
            Self::Total => usage.total,
            Self::CachedInput => usage.cached_input,
            Self::CacheCreationInput => usage.cache_creation_input,
            Self::Reasoning => usage.reasoning,
        }
    }

    /// How many of this kind a request with up to `input` and `output` tokens can use.
    pub fn most(self, input: u64, output: u64) -> u64 {
        match self {
            Self::Input | Self::CachedInput | Self::CacheCreationInput => input,
            Self::Output | Self::Reasoning => output,
            Self::Total => input.saturating_add(output),
        }
    }

    /// The usage with another number of this kind.
    pub(super) fn with(self, mut usage: Usage, tokens: u64) -> Usage {
        match self {
            Self::Input => usage.input = tokens,
            Self::Output => usage.output = tokens,
            Self::Total => usage.total = tokens,
            Self::CachedInput => usage.cached_input = tokens,
            Self::CacheCreationInput => usage.cache_creation_input = tokens,
            Self::Reasoning => usage.reasoning = tokens,
        }
        usage
    }
}
