//! The folder of `quorate certs`: certificates for all to read, keys for their owner only, nothing overwritten unasked.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

const OWNER_ONLY: u32 = 0o600;
const ALL_READ: u32 = 0o644;

pub(super) struct CertFiles {
    folder: PathBuf,
    replace: bool,
}

impl CertFiles {
    pub fn new(folder: &Path, replace: bool) -> Self {
        Self { folder: folder.to_owned(), replace }
    }

    pub fn certificate(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.crt"))
    }

    pub fn key(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.key"))
    }

    /// # Errors
    /// A file of one of them is there already.
    pub fn check_free<'a>(&self, names: impl Iterator<Item = &'a str>) -> Result<()> {
        for path in names.flat_map(|name| [self.certificate(name), self.key(name)]) {
            if !self.replace && path.symlink_metadata().is_ok() {
                bail!(
                    "{} is there already, and nothing was written; `certs issue --replace` renews a holder's \
                     certificate, another --dir starts anew",
                    path.display()
                );
            }
        }
        Ok(())
    }

    /// Each file is there whole or not at all; the key first, so that a certificate never waits for its key.
    ///
    /// # Errors
    /// Names the file.
    pub fn write(&self, name: &str, certificate: &str, key: &str) -> Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .with_context(|| format!("cannot make folder {}", self.folder.display()))?;
        self.write_one(&self.key(name), key, OWNER_ONLY)?;
        self.write_one(&self.certificate(name), certificate, ALL_READ)
    }

    fn write_one(&self, path: &Path, text: &str, mode: u32) -> Result<()> {
        let cannot = || format!("cannot write {}", path.display());
        let draft = path.with_added_extension("new");
        // What an earlier run left behind, if it was stopped.
        let _ = std::fs::remove_file(&draft);
        let mut file: File =
            OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft).with_context(cannot)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).with_context(cannot)?;
        if self.replace {
            std::fs::rename(&draft, path).with_context(cannot)
        } else {
            // Unlike a rename, this does not overwrite.
            std::fs::hard_link(&draft, path).with_context(cannot)?;
            std::fs::remove_file(&draft).with_context(cannot)
        }
    }
}

pub(super) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn keys_are_their_owners_and_nothing_is_overwritten_unasked() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("new");
        let files = CertFiles::new(&folder, false);
        files.check_free(["n1"].into_iter()).unwrap();
        files.write("n1", "certificate", "key").unwrap();
        let mode = |path: PathBuf| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(files.key("n1")), 0o600);
        assert_eq!(mode(folder.clone()), 0o700);
        assert!(files.check_free(["n1"].into_iter()).unwrap_err().to_string().contains("n1.crt is there"));
        assert!(files.write("n1", "other", "other").is_err());
        assert_eq!(std::fs::read_to_string(files.key("n1")).unwrap(), "key");
        let replacing = CertFiles::new(&folder, true);
        replacing.check_free(["n1"].into_iter()).unwrap();
        replacing.write("n1", "certificate 2", "key 2").unwrap();
        assert_eq!(std::fs::read_to_string(files.certificate("n1")).unwrap(), "certificate 2");
        assert_eq!(mode(files.key("n1")), 0o600);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2);
    }
}
