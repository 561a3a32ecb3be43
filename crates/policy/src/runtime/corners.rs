//! Where a cost is largest: the usages that a request with a bounded input and output may end with, reduced to their
//! corners.
//!
//! A sum of token counts times constants is largest in a corner of what is possible (linear programming). Anything else
//! is tried in the corners of the box of all its variables, possible or not, which covers products of different
//! counts; and around the numbers that it names, which covers most conditions. An expression that peaks elsewhere can
//! cost more than was reserved: that is charged as overdraft.

use quorate_ledger::Amount;

use super::cel_tree::Facts;
use super::{CostError, TokenKind, Usage};

/// Beyond this many points the numbers of an expression are left out.
const POINTS_MAX: usize = 2048;

/// The largest `cost`.
pub(super) fn largest(
    facts: &Facts,
    input: u64,
    output: u64,
    cost: impl Fn(&Usage) -> Result<Amount, CostError>,
) -> Result<Amount, CostError> {
    let all = Usage { input, output, total: input.saturating_add(output), ..Usage::default() };
    // It may fail in a corner, for example divide by no output. Not where everything is used.
    let mut largest = cost(&all)?;
    let points = if facts.linear { possible(facts, &all) } else { boxed(facts, &all) };
    for usage in points {
        if let Ok(amount) = cost(&usage) {
            largest = largest.max(amount);
        }
    }
    Ok(largest)
}

/// The corners of: cached + cache creation <= input <= `all.input`, reasoning <= output <= `all.output`.
fn possible(facts: &Facts, all: &Usage) -> Vec<Usage> {
    let reads = |kind: TokenKind| facts.tokens.contains(&kind);
    let mut points = vec![Usage::default(), Usage { input: all.input, ..Usage::default() }];
    if reads(TokenKind::CachedInput) {
        points.push(Usage { input: all.input, cached_input: all.input, ..Usage::default() });
    }
    if reads(TokenKind::CacheCreationInput) {
        points.push(Usage { input: all.input, cache_creation_input: all.input, ..Usage::default() });
    }
    let mut outputs = vec![(0, 0), (all.output, 0)];
    if reads(TokenKind::Reasoning) {
        outputs.push((all.output, all.output));
    }
    let with = |point: &Usage, (output, reasoning): &(u64, u64)| Usage {
        output: *output,
        reasoning: *reasoning,
        total: point.input.saturating_add(*output),
        ..*point
    };
    points.iter().flat_map(|point| outputs.iter().map(move |end| with(point, end))).collect()
}

/// Every combination of the values that each variable may have.
fn boxed(facts: &Facts, all: &Usage) -> Vec<Usage> {
    let most = |kind: TokenKind| match kind {
        TokenKind::Input | TokenKind::CachedInput | TokenKind::CacheCreationInput => all.input,
        TokenKind::Output | TokenKind::Reasoning => all.output,
        TokenKind::Total => all.total,
    };
    let around =
        facts.numbers.iter().flat_map(|number| [number.saturating_sub(1), *number, number.saturating_add(1)]);
    let around: Vec<u64> = around.collect();
    let values = |kind: TokenKind, with_numbers: bool| {
        let mut values = vec![0, most(kind)];
        if with_numbers {
            values.extend(around.iter().filter(|number| **number < most(kind)));
        }
        values.sort_unstable();
        values.dedup();
        values
    };
    let axes = |with_numbers| facts.tokens.iter().map(move |kind| (*kind, values(*kind, with_numbers)));
    let size = |axes: &[(TokenKind, Vec<u64>)]| {
        axes.iter().try_fold(1usize, |size, (_, values)| size.checked_mul(values.len()))
    };
    let mut chosen: Vec<(TokenKind, Vec<u64>)> = axes(true).collect();
    if size(&chosen).is_none_or(|size| size > POINTS_MAX) {
        chosen = axes(false).collect();
    }
    let mut points = vec![Usage::default()];
    for (kind, values) in &chosen {
        points = points
            .iter()
            .flat_map(|point| values.iter().map(move |value| kind.with(*point, *value)))
            .collect();
    }
    points
}
