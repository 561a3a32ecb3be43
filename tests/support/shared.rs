//! The manifests and recordings that may stand in a folder `shared` beside the repository. Tests that need them are passed
//! over where they are missing, unless `QUORATE_NEEDS_SHARED=1` says that they are to be there.

use std::path::{Path, PathBuf};

/// A file or folder of it.
pub(crate) fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared").join(name);
    if path.exists() {
        return Some(path);
    }
    let needed = std::env::var_os("QUORATE_NEEDS_SHARED").is_some_and(|needed| needed == "1");
    assert!(!needed, "there is no {}", path.display());
    eprintln!("skipped: there is no {}", path.display());
    None
}
