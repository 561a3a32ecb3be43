//! The header `anthropic-beta` on its way to Bedrock, which reads it in the body and refuses a request ("invalid beta flag")
//! for one name that it does not know. Agents name features that only Anthropic's own servers have, with every request.

/// Those that InvokeModel takes.
///
/// Source: AWS's page "Anthropic Claude Messages API", `anthropic_beta`, and what users of gateways report.
const OF_BEDROCK: [&str; 11] = [
    "compact-2026-01-12",
    "computer-use-2024-10-22",
    "computer-use-2025-01-24",
    "computer-use-2025-11-24",
    "context-1m-2025-08-07",
    "context-management-2025-06-27",
    "effort-2025-11-24",
    "fine-grained-tool-streaming-2025-05-14",
    "interleaved-thinking-2025-05-14",
    "thinking-binding-controls-2026-08-01",
    "tool-search-tool-2025-10-19",
];

/// Anthropic's name for several features, of which Bedrock has the search for tools.
const ADVANCED_TOOLS: (&str, &str) = ("advanced-tool-use-2025-11-20", "tool-search-tool-2025-10-19");

/// Of the header's value (several ones joined by commas): what Bedrock takes, and the names that were left out.
pub(crate) fn for_bedrock(header: &str) -> (Vec<&str>, Vec<String>) {
    let (mut kept, mut dropped) = (Vec::new(), Vec::new());
    for name in header.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let name = if name == ADVANCED_TOOLS.0 { ADVANCED_TOOLS.1 } else { name };
        if !OF_BEDROCK.contains(&name) {
            dropped.push(format!("anthropic-beta={name}"));
        } else if !kept.contains(&name) {
            kept.push(name);
        }
    }
    (kept, dropped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_bedrock_knows_goes_along() {
        let header = "claude-code-20250219, interleaved-thinking-2025-05-14,,advanced-tool-use-2025-11-20,\
                      tool-search-tool-2025-10-19";
        let (kept, dropped) = for_bedrock(header);
        assert_eq!(kept, ["interleaved-thinking-2025-05-14", "tool-search-tool-2025-10-19"]);
        assert_eq!(dropped, ["anthropic-beta=claude-code-20250219"]);
        assert_eq!(for_bedrock(""), (vec![], vec![]));
    }
}
