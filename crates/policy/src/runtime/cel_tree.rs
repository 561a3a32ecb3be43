//! The tree of a cost expression: what it may be made of, what it depends on, and how its cost grows.

use cel::IdedExpr;
use cel::common::ast::{CallExpr, EntryExpr, Expr, LiteralValue, operators};

use super::{CelError, Pattern, TokenKind, cel_arithmetic};
use crate::nearest::nearest;

/// Nodes below one another. Evaluation, and letting go of the tree, take stack for each.
const DEPTH_MAX: usize = 48;
/// What an expression may call besides arithmetic. No macros: nothing loops.
const FUNCTIONS: [&str; 21] = [
    operators::CONDITIONAL,
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::GREATER_EQUALS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::LESS,
    operators::INDEX,
    operators::IN,
    "contains",
    "double",
    "endsWith",
    "int",
    "matches",
    "size",
    "startsWith",
    "string",
    "uint",
];
const VARIABLES: [&str; 6] = [
    "input_tokens",
    "cached_input_tokens",
    "cache_creation_input_tokens",
    "output_tokens",
    "total_tokens",
    "reasoning_tokens",
];
const TEXT_VARIABLES: [&str; 3] = ["model", "backend", "route_name"];
/// Those that hold the names of objects, and what stands for them where they are compared: `namespace/name`.
pub(super) const OBJECT_VARIABLES: [(&str, &str); 2] =
    [("backend", "@backend"), ("route_name", "@route_name")];

/// What an expression depends on.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// The token counts that it reads, each once.
    pub tokens: Vec<TokenKind>,
    /// Whether it reads `model`, `backend`, `route_name`.
    pub reads_texts: bool,
    /// A sum of token counts times constants, at least for each model, backend and route.
    pub linear: bool,
    /// Numbers that it names, as whole ones: where a cost that is not linear may bend.
    pub numbers: Vec<u64>,
    /// Texts that it names.
    pub texts: Vec<String>,
    /// Of its `matches`, in the order of their functions.
    pub patterns: Vec<Pattern>,
}

/// How a value depends on the token counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Shape {
    Constant,
    Linear,
    Other,
}

/// The token count behind a variable.
pub(super) fn token_variable(name: &str) -> Option<TokenKind> {
    Some(match name {
        "input_tokens" => TokenKind::Input,
        "cached_input_tokens" => TokenKind::CachedInput,
        "cache_creation_input_tokens" => TokenKind::CacheCreationInput,
        "output_tokens" => TokenKind::Output,
        "total_tokens" => TokenKind::Total,
        "reasoning_tokens" => TokenKind::Reasoning,
        _ => return None,
    })
}

/// Refuses what would make the parser's stack deep, before it is parsed.
pub(super) fn check_nesting(expression: &str, most: u16) -> Result<(), CelError> {
    let (mut depth, mut deepest) = (0u16, 0u16);
    for c in expression.chars() {
        match c {
            '(' | '[' | '{' | '?' | '!' => depth = depth.saturating_add(1),
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    // `?` and `!` never close, which only makes this stricter: a few dozen are more than a cost needs.
    if deepest > most.saturating_mul(2) { Err(too_deep()) } else { Ok(()) }
}

fn too_deep() -> CelError {
    CelError::new("too deep; use fewer parentheses, conditions and terms inside of one another")
}

/// Checks the tree, and puts our arithmetic and our patterns in the place of CEL's.
pub(super) fn prepare(tree: &mut IdedExpr) -> Result<Facts, CelError> {
    let mut facts = Facts::default();
    let shape = visit(tree, DEPTH_MAX, &mut facts)?;
    facts.linear = shape != Shape::Other;
    Ok(facts)
}

fn visit(node: &mut IdedExpr, depth: usize, facts: &mut Facts) -> Result<Shape, CelError> {
    let below = depth.checked_sub(1).ok_or_else(too_deep)?;
    match &mut node.expr {
        Expr::Literal(literal) => {
            note(literal, facts);
            Ok(Shape::Constant)
        }
        Expr::Ident(name) => variable(name, facts),
        Expr::Call(call) => visit_call(call, below, facts),
        Expr::List(list) => all(list.elements.iter_mut(), below, facts),
        Expr::Map(map) => {
            let mut shape = Shape::Constant;
            for entry in &mut map.entries {
                if let EntryExpr::MapEntry(entry) = &mut entry.expr {
                    shape = shape.max(all([&mut entry.key, &mut entry.value].into_iter(), below, facts)?);
                }
            }
            Ok(shape)
        }
        Expr::Comprehension(_) => {
            Err(CelError::new("loops (all, exists, map, filter) are not allowed in a cost"))
        }
        Expr::Select(select) => {
            Err(CelError::new(format!("there is no field {}: variables are numbers and texts", select.field)))
        }
        Expr::Struct(_) | Expr::Unspecified => {
            Err(CelError::new("only numbers, texts, lists and maps are allowed"))
        }
    }
}

/// What depends on the token counts in no way that is looked into.
fn all<'a>(
    nodes: impl Iterator<Item = &'a mut IdedExpr>,
    depth: usize,
    facts: &mut Facts,
) -> Result<Shape, CelError> {
    let mut shape = Shape::Constant;
    for node in nodes {
        shape = shape.max(visit(node, depth, facts)?);
    }
    Ok(if shape == Shape::Constant { Shape::Constant } else { Shape::Other })
}

fn variable(name: &str, facts: &mut Facts) -> Result<Shape, CelError> {
    if let Some(kind) = token_variable(name) {
        if !facts.tokens.contains(&kind) {
            facts.tokens.push(kind);
        }
        return Ok(Shape::Linear);
    }
    if TEXT_VARIABLES.contains(&name) {
        facts.reads_texts = true;
        return Ok(Shape::Constant);
    }
    let known = VARIABLES.iter().chain(&TEXT_VARIABLES).copied();
    let meant = nearest(name, known.clone()).map(|meant| format!(" (did you mean {meant}?)"));
    let known: Vec<&str> = known.collect();
    Err(CelError::new(format!(
        "there is no variable {name}{}; there are {}",
        meant.unwrap_or_default(),
        known.join(", ")
    )))
}

fn note(literal: &LiteralValue, facts: &mut Facts) {
    match literal {
        LiteralValue::Int(number) => facts.numbers.extend(u64::try_from(*number.inner()).ok()),
        LiteralValue::UInt(number) => facts.numbers.push(*number.inner()),
        // Saturates, and NaN becomes 0.
        LiteralValue::Double(number) => facts.numbers.push(*number.inner() as u64),
        LiteralValue::String(text) => facts.texts.push(text.inner().to_owned()),
        LiteralValue::Boolean(_) | LiteralValue::Bytes(_) | LiteralValue::Null => {}
    }
}

fn visit_call(call: &mut CallExpr, depth: usize, facts: &mut Facts) -> Result<Shape, CelError> {
    let arguments = call.args.len();
    let ours = cel_arithmetic::OPERATORS
        .iter()
        .find(|(name, _, wanted)| call.target.is_none() && *name == call.func_name && *wanted == arguments);
    let operator = ours.map(|(_, operator, _)| *operator);
    if operator.is_none() && !FUNCTIONS.contains(&call.func_name.as_str()) {
        return Err(CelError::new(format!("there is no function {}", call.func_name)));
    }
    if call.func_name == "matches" {
        return visit_matches(call, depth, facts);
    }
    if call.target.is_none()
        && let Some(function) = names_object(call)
    {
        function.clone_into(&mut call.func_name);
        facts.reads_texts = true;
        // The variable has another name by now.
        let [_, named] = call.args.as_mut_slice() else { return Ok(Shape::Constant) };
        return visit(named, depth, facts);
    }
    if let Some(target) = &mut call.target {
        let target = all([&mut **target].into_iter(), depth, facts)?;
        return Ok(target.max(all(call.args.iter_mut(), depth, facts)?));
    }
    let Some(operator) = operator else {
        return match (call.func_name.as_str(), call.args.as_mut_slice()) {
            (operators::CONDITIONAL, [condition, yes, no]) => {
                let condition = all([condition].into_iter(), depth, facts)?;
                Ok(condition.max(visit(yes, depth, facts)?).max(visit(no, depth, facts)?))
            }
            ("double", [number]) => visit(number, depth, facts),
            (_, arguments) => all(arguments.iter_mut(), depth, facts),
        };
    };
    let shape = match call.args.as_mut_slice() {
        [one] => visit(one, depth, facts)?,
        [left, right] => {
            let divisor_is_fraction = matches!(right.expr, Expr::Literal(LiteralValue::Double(_)));
            let (left, right) = (visit(left, depth, facts)?, visit(right, depth, facts)?);
            match operator {
                "@add" | "@subtract" => left.max(right),
                "@multiply" if left == Shape::Constant || right == Shape::Constant => left.max(right),
                "@divide" if right == Shape::Constant && divisor_is_fraction => left,
                _ if left.max(right) == Shape::Constant => Shape::Constant,
                _ => Shape::Other,
            }
        }
        _ => Shape::Other,
    };
    operator.clone_into(&mut call.func_name);
    Ok(shape)
}

/// `backend == "openai.llm"`, `route_name in ["a", "b"]`: what compares an object's name with one written out, whichever
/// way people write it. The variable comes to stand first.
fn names_object(call: &mut CallExpr) -> Option<&'static str> {
    let function = match call.func_name.as_str() {
        operators::EQUALS | operators::IN => cel_arithmetic::NAMED,
        operators::NOT_EQUALS => cel_arithmetic::NOT_NAMED,
        _ => return None,
    };
    let is_text = |node: &IdedExpr| matches!(node.expr, Expr::Literal(LiteralValue::String(_)));
    let [left, right] = call.args.as_mut_slice() else { return None };
    if call.func_name == operators::IN {
        let Expr::List(list) = &right.expr else { return None };
        if !list.elements.iter().all(is_text) {
            return None;
        }
    } else if is_text(left) {
        std::mem::swap(left, right);
    }
    if call.func_name != operators::IN && !is_text(right) {
        return None;
    }
    let Expr::Ident(name) = &mut left.expr else { return None };
    let (_, ours) = OBJECT_VARIABLES.iter().find(|(known, _)| known == name)?;
    (*ours).clone_into(name);
    Some(function)
}

/// `model.matches("gpt-.*")` or `matches(model, "gpt-.*")`: compiled here, once.
fn visit_matches(call: &mut CallExpr, depth: usize, facts: &mut Facts) -> Result<Shape, CelError> {
    let mut arguments: Vec<IdedExpr> = call.target.take().map(|target| *target).into_iter().collect();
    arguments.append(&mut call.args);
    let pattern = match (arguments.pop().map(|last| last.expr), arguments.len()) {
        (Some(Expr::Literal(LiteralValue::String(pattern))), 1) => pattern,
        _ => return Err(CelError::new("matches needs a text and a pattern written out")),
    };
    let pattern = Pattern::anywhere(pattern.inner()).map_err(|error| CelError::new(error.to_string()))?;
    call.func_name = cel_arithmetic::pattern_function(facts.patterns.len());
    facts.patterns.push(pattern);
    call.args = arguments;
    all(call.args.iter_mut(), depth, facts)
}
