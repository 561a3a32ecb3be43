//! Costs as CEL expressions, such as `input_tokens * 0.25 + output_tokens * 1.0`.
//!
//! The crate `cel` parses and evaluates. What is ours: arithmetic that mixes whole and fractional numbers, bounds on
//! what an expression may be, and the check that it does not fail where that can be seen before it is in force.

use std::fmt;
use std::sync::Arc;
use std::thread;

use cel::common::types::{CelString, CelUInt};
use cel::common::value::CowVal;
use cel::context::VariableResolver;
use cel::parser::Parser;
use cel::{Context, ExecutionError, IdedExpr, Value};
use quorate_ledger::Amount;
use thiserror::Error;

use super::cel_tree::{self, Facts};
use super::{CostContext, CostError, TokenKind, Usage, cel_arithmetic, cel_samples, corners};

/// Of the text of an expression.
pub const EXPRESSION_MAX_BYTES: usize = 2048;
/// Brackets and conditions inside of one another.
const NESTING_MAX: u16 = 48;
/// The parser takes up to 150 KiB of stack for each pair of brackets where it is not optimised: more than a thread has.
const PARSER_STACK_BYTES: usize = 32 << 20;
const MICROS_PER_UNIT: f64 = 1e6;

/// A compiled cost expression. Cheap to copy.
#[derive(Clone)]
pub struct CelCost {
    inner: Arc<Inner>,
}

struct Inner {
    source: String,
    tree: IdedExpr,
    facts: Facts,
    /// Functions only; each evaluation adds its variables in a scope of its own.
    functions: Context<'static, 'static>,
}

/// An expression that was refused, or failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{problem}")]
pub struct CelError {
    problem: String,
    failure: bool,
}

impl CelCost {
    /// Variables: `model`, `backend`, `route_name`, `input_tokens`, `cached_input_tokens`,
    /// `cache_creation_input_tokens`, `output_tokens`, `total_tokens`, `reasoning_tokens`. Whole and fractional numbers
    /// may be mixed; two whole ones divide to a whole one, as CEL has it.
    ///
    /// # Errors
    /// Not CEL, too long or too deep, an unknown variable or function, a result that is no number, a cost below zero or
    /// a failure for one of a few sample usages.
    pub fn new(expression: &str) -> Result<Self, CelError> {
        if expression.len() > EXPRESSION_MAX_BYTES {
            let bytes = expression.len();
            return Err(CelError::new(format!("{bytes} bytes, at most {EXPRESSION_MAX_BYTES} are allowed")));
        }
        cel_tree::check_nesting(expression, NESTING_MAX)?;
        let mut tree = parse(expression)?;
        let facts = cel_tree::prepare(&mut tree)?;
        let functions = cel_arithmetic::functions(&facts.patterns)?;
        let cost = Self { inner: Arc::new(Inner { source: expression.to_owned(), tree, facts, functions }) };
        cel_samples::check(&cost, &cost.inner.facts)?;
        Ok(cost)
    }

    pub fn as_str(&self) -> &str {
        &self.inner.source
    }

    /// Whether it reads a token count of which this holds.
    pub(super) fn reads(&self, holds: impl Fn(TokenKind) -> bool) -> bool {
        self.inner.facts.tokens.iter().copied().any(holds)
    }

    /// What this usage costs, rounded up to a millionth.
    ///
    /// # Errors
    /// The expression fails, or gives no number of 0 or more.
    pub fn of(&self, usage: &Usage, at: &CostContext<'_>) -> Result<Amount, CostError> {
        self.evaluate(usage, at)
            .map_err(|problem| CostError::Cel { expression: self.inner.source.clone(), problem })
    }

    /// The largest cost over the corners of what the expression depends on.
    ///
    /// # Errors
    /// The expression fails where all of `input` and `output` are used, or everywhere.
    pub fn bound(&self, input: u64, output: u64, at: &CostContext<'_>) -> Result<Amount, CostError> {
        corners::largest(&self.inner.facts, input, output, |usage| self.of(usage, at))
    }

    pub(super) fn evaluate(&self, usage: &Usage, at: &CostContext<'_>) -> Result<Amount, CelError> {
        let variables = Variables { usage, at };
        // Shortens the lifetime of the functions to that of the variables.
        let functions: &Context<'_, '_> = &self.inner.functions;
        let mut scope = functions.new_inner_scope();
        scope.set_variable_resolver(&variables);
        let value = Value::resolve(&self.inner.tree, &scope);
        let failed =
            |error: ExecutionError| CelError { problem: first_line(&error.to_string()), failure: true };
        amount(&value.map_err(failed)?)
    }
}

impl CelError {
    pub(super) fn new(problem: impl Into<String>) -> Self {
        Self { problem: problem.into(), failure: false }
    }

    /// The evaluation itself failed, rather than giving a wrong value.
    pub(super) fn is_failure(&self) -> bool {
        self.failure
    }
}

struct Variables<'a> {
    usage: &'a Usage,
    at: &'a CostContext<'a>,
}

impl VariableResolver for Variables<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        if let Some(kind) = cel_tree::token_variable(variable) {
            return Some(CowVal::owned(CelUInt::from(kind.of(self.usage))));
        }
        let text = match variable {
            "model" => self.at.model,
            "route_name" | "@route_name" => self.at.route,
            "@backend" => self.at.backend,
            // The official form. Compared with a name written out, any form will do.
            "backend" => match self.at.backend.split_once('/') {
                Some((namespace, name)) => {
                    return Some(CowVal::owned(CelString::from(format!("{name}.{namespace}"))));
                }
                None => self.at.backend,
            },
            _ => return None,
        };
        Some(CowVal::owned(CelString::from(text)))
    }
}

/// On a thread of its own, for its stack only: memory that is never touched costs nothing.
fn parse(expression: &str) -> Result<IdedExpr, CelError> {
    let parser = Parser::new().max_recursion_depth(NESTING_MAX);
    let parse = || parser.parse(expression).map_err(|errors| CelError::new(first_line(&errors.to_string())));
    let failed = || CelError::new("the parser failed; write the expression in another way");
    thread::scope(|scope| {
        let parser = thread::Builder::new().stack_size(PARSER_STACK_BYTES).spawn_scoped(scope, parse);
        parser.map_err(|_| failed())?.join().map_err(|_| failed())?
    })
}

/// Units to an amount, rounded up.
fn amount(value: &Value) -> Result<Amount, CelError> {
    let negative = |number: &dyn fmt::Display| CelError::new(format!("gives {number}; a cost is 0 or more"));
    let large = || CelError::new("gives more than 10^12; a cost is at most a million million units");
    match *value {
        Value::UInt(units) => Amount::from_units(units).map_err(|_| large()),
        Value::Int(units) => {
            Amount::from_units(u64::try_from(units).map_err(|_| negative(&units))?).map_err(|_| large())
        }
        Value::Float(units) if units.is_nan() => {
            Err(CelError::new("gives something that is no number (0.0 / 0.0)"))
        }
        Value::Float(units) if units < 0.0 => Err(negative(&units)),
        Value::Float(units) => {
            Amount::from_micros(rounded_up(units * MICROS_PER_UNIT).ok_or_else(large)?).map_err(|_| large())
        }
        ref other => {
            let kind = other.type_of();
            Err(CelError::new(format!("gives a value of type {kind}; a cost is a number")))
        }
    }
}

/// Up, except for what binary fractions add: 3 * 0.1 is 300,000 millionths and not 300,001.
fn rounded_up(micros: f64) -> Option<u64> {
    /// Some 4,000 roundings of a 53-bit fraction.
    const TOLERANCE: f64 = 1e-12;
    if micros > 2e18 {
        return None;
    }
    let nearest = micros.round();
    let rounded = if micros - nearest <= nearest * TOLERANCE { nearest } else { micros.ceil() };
    // 0 to 2 * 10^18 and whole: exact.
    Some(rounded as u64)
}

/// The libraries draw arrows below their messages.
fn first_line(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    line.trim_start_matches("ERROR: <input>:").chars().take(200).collect()
}

impl PartialEq for CelCost {
    fn eq(&self, other: &Self) -> bool {
        self.inner.source == other.inner.source
    }
}

impl Eq for CelCost {}

impl fmt::Debug for CelCost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CelCost").field(&self.inner.source).finish()
    }
}
