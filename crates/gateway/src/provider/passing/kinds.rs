//! Which kinds of items and tools a request may hold, and what is known of their size. How they are measured is the
//! tally's business.

/// What `bash_…`, `text_editor_…`, `computer_…` and `memory_…` stand for: up to 735 tokens, and a prompt of up to 499 beside
/// them (Anthropic's pages on these tools). With a margin.
pub(super) const OWN_TOOL_TOKENS: u64 = 2_048;

/// Items of Responses that hold all that they mean.
pub(super) const ITEMS: [&str; 8] = [
    "computer_call",
    "computer_call_output",
    "custom_tool_call",
    "custom_tool_call_output",
    "function_call",
    "function_call_output",
    "message",
    "reasoning",
];

/// Definitions that cost their text and a little more; others are run by the provider, with results of any size.
pub(super) fn is_run_by_the_client(kind: &str) -> bool {
    const CLIENTS: [&str; 6] = ["function", "custom", "bash_", "text_editor_", "computer_", "memory_"];
    // Of Responses: its instructions are the provider's own.
    kind != "computer_use_preview"
        && CLIENTS.iter().any(|known| kind == *known || (known.ends_with('_') && kind.starts_with(known)))
}
