//! What a model of Anthropic's takes, told by its name: `claude-sonnet-4-5-20250929`, `claude-3-7-sonnet-20250219`,
//! `us.anthropic.claude-opus-4-6-v1`. A name that tells nothing counts as an older model, whose fields the servers of
//! other houses that speak this dialect know.
//!
//! Sources: Anthropic's pages "Adaptive thinking", "Effort", "Extended thinking" and "What's new in Claude Opus 4.7".

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Model {
    /// 4.6 and later: it decides itself how much it thinks, steered by an effort; budgets are deprecated or refused.
    pub(super) adaptive: bool,
    /// It thinks always: `disabled` is refused.
    pub(super) always_thinks: bool,
    /// It takes `temperature`, `top_p`, `top_k`.
    pub(super) sampling: bool,
    /// It takes `temperature` or `top_p`, not both.
    pub(super) one_sampler: bool,
    /// It knows the effort `xhigh`.
    pub(super) xhigh: bool,
}

impl Model {
    pub(super) fn named(name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        let words = name.split_once("claude").map_or("", |(_, rest)| rest);
        let words: Vec<&str> = words.split(['-', '.', '@', ':']).filter(|word| !word.is_empty()).collect();
        // Dates have eight digits.
        let number = |word: &&str| word.len() <= 2 && word.bytes().all(|byte| byte.is_ascii_digit());
        let first = words.iter().position(number);
        let part = |at: Option<usize>| {
            let word = at.and_then(|at| words.get(at)).filter(|word| number(word));
            word.and_then(|word| word.parse::<u32>().ok()).unwrap_or(0)
        };
        let version = (part(first), part(first.map(|at| at + 1)));
        let fable = words.contains(&"fable") || words.contains(&"mythos");
        let newest = fable || version >= (5, 0) || (version >= (4, 7) && words.contains(&"opus"));
        Self {
            adaptive: fable || version >= (4, 6),
            always_thinks: fable,
            sampling: !newest,
            one_sampler: version >= (4, 1),
            xhigh: newest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (name, adaptive, always_thinks, sampling, one_sampler, xhigh) in [
            ("claude-3-7-sonnet-20250219", false, false, true, false, false),
            ("claude-opus-4-20250514", false, false, true, false, false),
            ("claude-sonnet-4-5-20250929", false, false, true, true, false),
            ("us.anthropic.claude-haiku-4-5-20251001-v1:0", false, false, true, true, false),
            ("anthropic.claude-opus-4-6-v1", true, false, true, true, false),
            ("claude-opus-4-7", true, false, false, true, true),
            ("claude-sonnet-5", true, false, false, true, true),
            ("anthropic/claude-opus-4.8", true, false, false, true, true),
            ("claude-mythos-preview", true, true, false, false, true),
            ("claude-fable-5-1", true, true, false, true, true),
            ("claude-latest", false, false, true, false, false),
            ("kimi-k2", false, false, true, false, false),
        ] {
            let expected = Model { adaptive, always_thinks, sampling, one_sampler, xhigh };
            assert_eq!(Model::named(name), expected, "{name}");
        }
    }
}
