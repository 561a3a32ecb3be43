//! Cuts off the first piece of text that has other characters than ASCII in it, by the regular expressions that OpenAI's
//! vocabularies are defined with. Plain text is cut by `pieces.rs`, several times as fast.
//!
//! The expressions look ahead at the end of white space (`\s+(?!\S)`), which the engine here does not: that is done by hand.

use std::sync::LazyLock;

use regex::Regex;

use crate::pieces::Rules;

/// tiktoken's `o200k_base`, all but its last two alternatives: white space without an end of a line.
const O200K: &str = concat!(
    r"^(?:[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+)",
);
/// tiktoken's `cl100k_base`, likewise.
const CL100K: &str = concat!(
    r"^(?:(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+)",
);

/// `None` never happens: a test builds both.
static O200K_FIRST: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(O200K).ok());
static CL100K_FIRST: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(CL100K).ok());

/// How long the first piece is, in bytes; 0 of nothing.
pub(crate) fn first(text: &str, rules: Rules) -> usize {
    let expression = match rules {
        Rules::O200k => &O200K_FIRST,
        Rules::Cl100k => &CL100K_FIRST,
    };
    let found = expression.as_ref().and_then(|expression| expression.find(text));
    found.map_or_else(|| white_space(text), |found| found.end())
}

/// All of it at the end of the text; else all but the last character, which belongs to what follows, unless it is alone.
fn white_space(text: &str) -> usize {
    let after = text.trim_start();
    let white = &text[..text.len() - after.len()];
    match white.char_indices().next_back() {
        Some((at, _)) if !after.is_empty() && at > 0 => at,
        Some(_) => white.len(),
        // Nothing is left to any alternative.
        None => text.len(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn agrees(text: &str) {
        for (rules, tokenizer) in
            [(Rules::O200k, bpe_openai::o200k_base()), (Rules::Cl100k, bpe_openai::cl100k_base())]
        {
            let wanted = tokenizer.split(text).next().map_or(0, str::len);
            assert_eq!(first(text, rules), wanted, "{rules:?} {text:?}");
        }
    }

    #[test]
    fn expressions_are_valid_and_white_space_is_cut_as_their_look_ahead_would() {
        assert!(O200K_FIRST.is_some() && CL100K_FIRST.is_some());
        for text in
            ["", " ", "  ", " \u{a0}", "\u{a0}\u{a0}x", "\u{2003}é", " \u{85}\n x", "\u{3000} 中", "x\u{301}"]
        {
            agrees(text);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]
        #[test]
        fn agrees_on_anything(
            text in "([\\s]{0,3}|[éſǅʰ中\u{301}\u{a0}²Ⅷ]{0,2}|['sStTlLrRvVeE]{0,3}|\\PC{0,2}|[0-9/.\\r\\n]{0,2}){0,6}"
        ) {
            agrees(&text);
        }
    }
}
