//! What must hold of any text as a cost expression.

use quorate_policy::runtime::{CelCost, CostContext, EXPRESSION_MAX_BYTES, Usage};

/// Input and output tokens: none, few, many, more than there are.
const SIZES: [(u64, u64); 5] = [(0, 0), (1, 0), (700, 300), (2_000_000, 100_000), (u64::MAX, u64::MAX)];
const MODELS: [&str; 3] = ["gpt-4o", "", "a model that nobody names"];

/// # Panics
/// It does not hold.
pub fn hold(text: &str) {
    let cost = match CelCost::new(text) {
        Ok(cost) => cost,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    assert!(text.len() <= EXPRESSION_MAX_BYTES);
    assert_eq!(cost.as_str(), text);
    for model in MODELS {
        let at = CostContext { model, backend: "ns/backend", route: "" };
        for (input, output) in SIZES {
            let all = Usage { input, output, total: input.saturating_add(output), ..Usage::default() };
            let charged = cost.of(&all, &at);
            assert_eq!(charged, cost.of(&all, &at));
            // Where all of it is used is always a point that the bound looks at.
            match (cost.bound(input, output, &at), charged) {
                (Ok(bound), Ok(charged)) => assert!(bound >= charged, "{bound} < {charged}"),
                (Err(_), Err(_)) => {}
                (bound, charged) => panic!("{bound:?}, {charged:?}"),
            }
        }
    }
}
