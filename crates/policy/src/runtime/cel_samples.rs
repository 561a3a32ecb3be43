//! Tries a cost expression before it is in force: one that fails or gives less than zero is refused at apply, where a
//! person sees it, and not at the first request that meets it.

use super::cel_tree::Facts;
use super::{CelCost, CelError, CostContext, Usage};

/// Input and output tokens. Embeddings have no output; no request is without input.
const SIZES: [(u64, u64); 5] = [(1, 0), (1, 1), (7, 3), (1_000, 500), (1_000_000, 100_000)];
/// Stands for every model, backend and route that the expression does not name.
const UNNAMED: &str = "unnamed";
/// Combinations of names that are tried.
const NAMES_MAX: usize = 64;

pub(super) fn check(cost: &CelCost, facts: &Facts) -> Result<(), CelError> {
    for at in contexts(facts) {
        for usage in usages() {
            match cost.evaluate(&usage, &at) {
                Ok(_) => {}
                // `{"gpt-4o": 2.5}[model]` fails for other models; those are charged their tokens.
                Err(error) if error.is_failure() && names_others(&at, facts) => {}
                Err(error) => {
                    return Err(CelError::new(format!("{error}, for {}", described(&usage, &at, facts))));
                }
            }
        }
    }
    Ok(())
}

fn names_others(at: &CostContext<'_>, facts: &Facts) -> bool {
    facts.reads_texts && !facts.texts.is_empty() && [at.model, at.backend, at.route].contains(&UNNAMED)
}

fn usages() -> impl Iterator<Item = Usage> {
    SIZES.into_iter().flat_map(|(input, output)| {
        let half = input / 2;
        let caches = [(0, 0), (input, 0), (0, input), (half, input - half)];
        caches.into_iter().flat_map(move |(cached_input, cache_creation_input)| {
            [0, output].map(|reasoning| Usage {
                input,
                cached_input,
                cache_creation_input,
                output,
                reasoning,
                total: input + output,
            })
        })
    })
}

fn contexts(facts: &Facts) -> Vec<CostContext<'_>> {
    let mut names = vec![UNNAMED];
    if facts.reads_texts {
        names.extend(facts.texts.iter().map(String::as_str));
        names.dedup();
    }
    let same = |name| CostContext { model: name, backend: name, route: name };
    if !facts.reads_texts || names.len().pow(3) > NAMES_MAX {
        return names.into_iter().take(NAMES_MAX).map(same).collect();
    }
    let mut contexts = Vec::new();
    for model in &names {
        for backend in &names {
            contexts.extend(names.iter().map(|route| CostContext { model, backend, route }));
        }
    }
    contexts
}

fn described(usage: &Usage, at: &CostContext<'_>, facts: &Facts) -> String {
    let Usage { input, cached_input, cache_creation_input, output, reasoning, .. } = usage;
    let mut text =
        format!("{input} input tokens ({cached_input} cached, {cache_creation_input} cache creation)");
    text.push_str(&format!(" and {output} output tokens ({reasoning} reasoning)"));
    if facts.reads_texts {
        text.push_str(&format!(" of model {}", at.model));
    }
    text
}
