//! Where this node finds secrets: the environment, or a folder as Kubernetes mounts one. They are read when they are
//! needed, so that one that was changed is taken up, and they never reach the cluster or a log line.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

/// A secret is a line or a small file.
const SECRET_MAX_BYTES: usize = 65_536;

/// Never printed.
pub(crate) struct Secret(Vec<u8>);

#[derive(Debug, Clone, Error)]
pub(crate) enum SecretError {
    #[error("secret {name}, key {key}: there is none; set {variable}{or_file}", or_file = or_file(.file))]
    Missing { name: String, key: String, variable: String, file: Option<PathBuf> },
    #[error("secret {name}, key {key}: {problem}")]
    Unusable { name: String, key: String, problem: String },
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Secrets {
    /// `<dir>/<name>/<key>`
    pub dir: Option<PathBuf>,
}

impl Secrets {
    /// `QUORATE_SECRET_<NAME>_<KEY>` if it is set, else the file. White space around it is not part of it.
    ///
    /// # Errors
    /// Says where it was looked for.
    pub async fn find(&self, name: &str, key: &str) -> Result<Secret, SecretError> {
        let unusable =
            |problem: String| SecretError::Unusable { name: name.to_owned(), key: key.to_owned(), problem };
        if ![name, key].into_iter().all(is_plain) {
            return Err(unusable("a name has letters, digits, '-', '_' and '.' only".to_owned()));
        }
        let variable = variable(name, key);
        if let Some(value) = std::env::var_os(&variable) {
            return Secret::new(value.as_encoded_bytes()).map_err(unusable);
        }
        let file = self.dir.as_ref().map(|dir| dir.join(name).join(key));
        if let Some(file) = &file {
            match tokio::fs::read(file).await {
                Ok(bytes) => return Secret::new(&bytes).map_err(unusable),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(unusable(format!("{}: {error}", file.display()))),
            }
        }
        Err(SecretError::Missing { name: name.to_owned(), key: key.to_owned(), variable, file })
    }
}

impl Secret {
    fn new(bytes: &[u8]) -> Result<Self, String> {
        let trimmed = bytes.trim_ascii();
        match trimmed.len() {
            0 => Err("is empty".to_owned()),
            length if length > SECRET_MAX_BYTES => Err(format!("has more than {SECRET_MAX_BYTES} bytes")),
            _ => Ok(Self(trimmed.to_vec())),
        }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.len() <= 253 && name.chars().all(plain) && !name.chars().all(|c| c == '.')
}

fn variable(name: &str, key: &str) -> String {
    let part = |text: &str| -> String {
        text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
    };
    format!("QUORATE_SECRET_{}_{}", part(name), part(key))
}

fn or_file(file: &Option<PathBuf>) -> String {
    file.as_ref().map_or_else(
        || ", or name a folder in secrets.dir".to_owned(),
        |file| format!(" or put it in {}", file.display()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_found_and_what_is_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("pager")).unwrap();
        std::fs::write(folder.path().join("pager/token"), "hush\n").unwrap();
        let secrets = Secrets { dir: Some(folder.path().to_owned()) };
        let found = secrets.find("pager", "token").await.unwrap();
        assert_eq!((found.bytes(), format!("{found:?}").as_str()), (&b"hush"[..], "Secret(hidden)"));
        let missing = secrets.find("pager", "api-key").await.unwrap_err().to_string();
        assert!(missing.contains("QUORATE_SECRET_PAGER_API_KEY"), "{missing}");
        assert!(missing.contains("pager/api-key"), "{missing}");
        for (name, key) in [("..", "token"), ("a/b", "token"), ("", "token"), ("pager", "../pager/token")] {
            let refused = secrets.find(name, key).await.unwrap_err();
            assert!(matches!(refused, SecretError::Unusable { .. }), "{name} {key}: {refused}");
        }
    }
}
