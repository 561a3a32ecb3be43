//! Arithmetic of cost expressions. CEL refuses `input_tokens * 0.25` (unsigned × double), although the documentation of
//! Envoy AI Gateway writes it; here any two numbers go together. Whole numbers stay whole, and may go below zero.

use std::sync::{Arc, LazyLock};

use cel::{Context, Env, ExecutionError, Value};

use super::{CelError, Pattern};

/// The operators that are ours, and the functions that stand for them. The names cannot be written in CEL.
pub(super) const OPERATORS: [(&str, &str, usize); 6] = [
    ("_+_", "@add", 2),
    ("_-_", "@subtract", 2),
    ("_*_", "@multiply", 2),
    ("_/_", "@divide", 2),
    ("_%_", "@modulo", 2),
    ("-_", "@negate", 1),
];

/// Whether an object has this name, or one of these; and whether it has not.
pub(super) const NAMED: &str = "@named";
pub(super) const NOT_NAMED: &str = "@not-named";

/// Shared: it is large and the same for every expression, and there may be thousands of them.
static STANDARD: LazyLock<Arc<Env>> =
    LazyLock::new(|| Arc::new(Env::default().with_optional_support(false).with_stdlib()));

/// The standard functions, our operators, and one `@matches-N` for each pattern.
pub(super) fn functions(patterns: &[Pattern]) -> Result<Context<'static, 'static>, CelError> {
    let mut context = Context::with_env(Arc::clone(&STANDARD));
    let declared = |error: cel::DeclarationError| CelError::new(error.to_string());
    context.add_function("@add", |a: Value, b: Value| binary("@add", a, b)).map_err(declared)?;
    context.add_function("@subtract", |a: Value, b: Value| binary("@subtract", a, b)).map_err(declared)?;
    context.add_function("@multiply", |a: Value, b: Value| binary("@multiply", a, b)).map_err(declared)?;
    context.add_function("@divide", |a: Value, b: Value| binary("@divide", a, b)).map_err(declared)?;
    context.add_function("@modulo", |a: Value, b: Value| binary("@modulo", a, b)).map_err(declared)?;
    context.add_function("@negate", |a: Value| binary("@subtract", Value::Int(0), a)).map_err(declared)?;
    context.add_function(NAMED, |object: Value, name: Value| named(&object, &name)).map_err(declared)?;
    context.add_function(NOT_NAMED, |object: Value, name: Value| !named(&object, &name)).map_err(declared)?;
    for (number, pattern) in patterns.iter().enumerate() {
        let pattern = pattern.clone();
        let matches = move |text: Arc<String>| pattern.matches(&text);
        context.add_function(&pattern_function(number), matches).map_err(declared)?;
    }
    Ok(context)
}

/// `object`: `namespace/name`. It answers to that, to the official `name.namespace`, and to the bare name, by which the
/// manifests themselves refer to it.
fn named(object: &Value, name: &Value) -> bool {
    let (Value::String(object), name) = (object, name) else { return false };
    match name {
        Value::String(name) => {
            let (namespace, bare) = object.split_once('/').unwrap_or(("", object));
            let rest = name.strip_prefix(bare);
            **name == **object
                || rest.is_some_and(|rest| rest.is_empty() || rest.strip_prefix('.') == Some(namespace))
        }
        Value::List(names) => names.iter().any(|name| named(&Value::String(Arc::clone(object)), name)),
        _ => false,
    }
}

pub(super) fn pattern_function(number: usize) -> String {
    format!("@matches-{number}")
}

/// A number of CEL.
#[derive(Debug, Clone, Copy)]
enum Number {
    Whole(i128),
    Fraction(f64),
}

impl Number {
    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Int(number) => Some(Self::Whole((*number).into())),
            Value::UInt(number) => Some(Self::Whole((*number).into())),
            Value::Float(number) => Some(Self::Fraction(*number)),
            _ => None,
        }
    }

    fn fraction(self) -> f64 {
        match self {
            Self::Whole(number) => number as f64,
            Self::Fraction(number) => number,
        }
    }
}

fn binary(operator: &'static str, left: Value, right: Value) -> Result<Value, ExecutionError> {
    match (Number::of(&left), Number::of(&right)) {
        (Some(Number::Whole(a)), Some(Number::Whole(b))) => whole(operator, a, b, &left, &right),
        (Some(a), Some(b)) => Ok(Value::Float(fraction(operator, a.fraction(), b.fraction()))),
        _ => match (operator, &left, &right) {
            ("@add", Value::String(a), Value::String(b)) => Ok(Value::from(format!("{a}{b}"))),
            _ => {
                let message = format!("{} and {} do not go together", left.type_of(), right.type_of());
                Err(ExecutionError::FunctionError { function: name(operator).to_owned(), message })
            }
        },
    }
}

fn whole(
    operator: &'static str,
    a: i128,
    b: i128,
    left: &Value,
    right: &Value,
) -> Result<Value, ExecutionError> {
    let result = match operator {
        "@add" => a.checked_add(b),
        "@subtract" => a.checked_sub(b),
        "@multiply" => a.checked_mul(b),
        "@divide" if b == 0 => return Err(ExecutionError::DivisionByZero(left.clone())),
        "@divide" => a.checked_div(b),
        _ if b == 0 => return Err(ExecutionError::RemainderByZero(left.clone())),
        _ => a.checked_rem(b),
    };
    let overflow = || ExecutionError::Overflow(name(operator), left.clone(), right.clone());
    let result = result.ok_or_else(overflow)?;
    // What is not below zero is unsigned, as the token counts are.
    match (u64::try_from(result), i64::try_from(result)) {
        (Ok(number), _) => Ok(Value::UInt(number)),
        (_, Ok(number)) => Ok(Value::Int(number)),
        _ => Err(overflow()),
    }
}

fn fraction(operator: &'static str, a: f64, b: f64) -> f64 {
    match operator {
        "@add" => a + b,
        "@subtract" => a - b,
        "@multiply" => a * b,
        "@divide" => a / b,
        _ => a % b,
    }
}

/// As the user knows it.
fn name(operator: &'static str) -> &'static str {
    match operator {
        "@add" => "+",
        "@subtract" => "-",
        "@multiply" => "*",
        "@divide" => "/",
        _ => "%",
    }
}
