//! A policy document as the gateway's compiled policy.

use quorate_policy::{manifests::ManifestSet, runtime::CompiledPolicy};

/// # Errors
/// Names the place in the document.
pub(crate) fn compile(document: &str) -> Result<CompiledPolicy, String> {
    let set = ManifestSet::from_document(document).map_err(|error| error.to_string())?;
    let (policy, _) = set.compile().map_err(|error| error.to_string())?;
    Ok(policy)
}
