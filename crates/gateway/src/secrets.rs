//! Where the keys (and certificates) of backends that a policy describes are: a folder, the environment, or Secret and
//! ConfigMap manifests of this gateway. A policy names them; their values never leave this process but towards their backend.

use std::{collections::HashMap, fmt, fs, io::Read, path::Path, path::PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;

use crate::{config::SecretsConfig, error::GatewayError, secret::SecretText};

/// A key is a line, a bundle of certificates a few hundred kilobytes.
const VALUE_BYTES_MAX: u64 = 1 << 20;

/// Names one value of a Secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SecretName<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) key: &'a str,
}

impl fmt::Display for SecretName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}, key {}", self.namespace, self.name, self.key)
    }
}

/// The sources of one gateway. Folder and environment are looked at whenever a policy comes, files at the start.
pub(crate) struct Secrets {
    dir: PathBuf,
    env_prefix: String,
    files: Vec<PathBuf>,
    /// By namespace, name and key.
    manifests: HashMap<(String, String, String), String>,
    /// AWS credentials may be asked for from the machine.
    pub(crate) aws_instance: bool,
}

/// The values stay hidden.
impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Secrets");
        shown.field("dir", &self.dir).field("env_prefix", &self.env_prefix).field("files", &self.files);
        shown.finish_non_exhaustive()
    }
}

impl Secrets {
    /// Reads the manifests.
    pub(crate) fn open(config: &SecretsConfig) -> Result<Self, GatewayError> {
        let mut manifests = HashMap::new();
        for path in &config.files {
            let wrong = |problem: String| {
                GatewayError::Config(format!("secrets.files: {}: {problem}", path.display()))
            };
            let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
            for document in serde_yaml_ng::Deserializer::from_str(&text) {
                read_manifest(document, &mut manifests).map_err(wrong)?;
            }
        }
        Ok(Self {
            dir: config.dir.clone(),
            env_prefix: config.env_prefix.clone(),
            files: config.files.clone(),
            manifests,
            aws_instance: config.aws_instance,
        })
    }

    /// The value, and where it was.
    ///
    /// # Errors
    /// All places that were looked at, or the one that cannot be read.
    pub(crate) fn find(&self, secret: SecretName<'_>) -> Result<SecretText, String> {
        if [secret.namespace, secret.name, secret.key].into_iter().any(|part| !is_file_name(part)) {
            return Err(format!("secret {secret} has a name that no Secret can have; correct the policy"));
        }
        let SecretName { namespace, name, key } = secret;
        let mounted = [self.dir.join(namespace).join(name).join(key), self.dir.join(name).join(key)];
        for path in &mounted {
            if let Some(value) = read_value(path)? {
                return Ok(SecretText { text: value, place: format!("file {}", path.display()) });
            }
        }
        let variable = format!("{}{}_{}", self.env_prefix, upper(name), upper(key));
        if let Ok(text) = std::env::var(&variable) {
            return Ok(SecretText { text, place: format!("environment variable {variable}") });
        }
        if let Some(value) = self.manifests.get(&(namespace.to_owned(), name.to_owned(), key.to_owned())) {
            let place = format!("the manifest of {namespace}/{name}");
            return Ok(SecretText { text: value.clone(), place });
        }
        let mut places: Vec<String> = mounted.iter().map(|path| path.display().to_string()).collect();
        places.push(format!("environment variable {variable}"));
        places.extend(self.files.iter().map(|file| file.display().to_string()));
        Err(format!("secret {secret} is missing; put it into one of: {}", places.join(", ")))
    }
}

/// `None`: there is no such file.
fn read_value(path: &Path) -> Result<Option<String>, String> {
    let unreadable = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error)
            if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(unreadable(error)),
    };
    let mut value = String::new();
    let read = file.take(VALUE_BYTES_MAX + 1).read_to_string(&mut value).map_err(unreadable)?;
    if read as u64 > VALUE_BYTES_MAX {
        return Err(format!(
            "{} is longer than {VALUE_BYTES_MAX} bytes; a secret is shorter",
            path.display()
        ));
    }
    Ok(Some(value))
}

/// What may be joined to a path: nothing that leads out of the folder.
fn is_file_name(part: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    !part.is_empty() && part.len() <= 253 && !part.starts_with('.') && part.bytes().all(known)
}

/// As an environment variable has it.
fn upper(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

/// A Kubernetes Secret or ConfigMap, as far as it matters here.
#[derive(Deserialize)]
struct Manifest {
    kind: String,
    metadata: Metadata,
    #[serde(default)]
    data: HashMap<String, String>,
    #[serde(default, rename = "stringData")]
    string_data: HashMap<String, String>,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    #[serde(default = "default_namespace")]
    namespace: String,
}

fn default_namespace() -> String {
    "default".to_owned()
}

fn read_manifest(
    document: serde_yaml_ng::Deserializer<'_>,
    found: &mut HashMap<(String, String, String), String>,
) -> Result<(), String> {
    // The parser's own words may quote a value.
    let misread = |error: serde_yaml_ng::Error| {
        let place = error
            .location()
            .map_or(String::new(), |at| format!(", line {} column {}", at.line(), at.column()));
        format!("is no Secret manifest{place}; wanted kind, metadata.name, data and stringData of text")
    };
    let Some(manifest) = Option::<Manifest>::deserialize(document).map_err(misread)? else {
        return Ok(());
    };
    let Metadata { name, namespace } = manifest.metadata;
    let at = |key: &str| (namespace.clone(), name.clone(), key.to_owned());
    match manifest.kind.as_str() {
        "Secret" => {}
        // Its data is plain.
        "ConfigMap" => {
            found.extend(manifest.data.iter().map(|(key, value)| (at(key), value.clone())));
            return Ok(());
        }
        kind => return Err(format!("{kind} {name} is no Secret; apply it to the cluster instead")),
    }
    for (key, encoded) in &manifest.data {
        let text: String = encoded.split_whitespace().collect();
        let bytes = STANDARD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let value = bytes.ok_or_else(|| {
            format!(
                "Secret {namespace}/{name}: data.{key} is no base64 of text; use stringData for plain text"
            )
        })?;
        found.insert(at(key), value);
    }
    // As in Kubernetes: stringData wins.
    found.extend(manifest.string_data.iter().map(|(key, value)| (at(key), value.clone())));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "
apiVersion: v1
kind: Secret
metadata: {name: openai-credentials, namespace: ai-services}
type: Opaque
data: {api-key: c2stZW5jb2RlZA==, other: c2stb2xk}
stringData: {other: sk-plain}
---
kind: ConfigMap
metadata: {name: internal-ca, namespace: ai-services}
data: {ca.crt: PEM}
---
";

    fn secrets(dir: &Path, manifest: &str) -> Result<Secrets, GatewayError> {
        let file = dir.join("secrets.yaml");
        fs::write(&file, manifest).unwrap();
        Secrets::open(&SecretsConfig {
            dir: dir.join("mounted"),
            env_prefix: "QUORATE_TEST_SECRET_".to_owned(),
            files: vec![file],
            ..SecretsConfig::default()
        })
    }

    fn key<'a>(name: &'a str, key: &'a str) -> SecretName<'a> {
        SecretName { namespace: "ai-services", name, key }
    }

    fn shown(found: &Result<SecretText, String>) -> &str {
        found.as_ref().unwrap().text.trim()
    }

    #[test]
    fn mounted_folders_come_before_manifests() {
        let dir = tempfile::tempdir().unwrap();
        let secrets = secrets(dir.path(), MANIFEST).unwrap();
        assert_eq!(shown(&secrets.find(key("openai-credentials", "api-key"))), "sk-encoded");
        assert_eq!(shown(&secrets.find(key("openai-credentials", "other"))), "sk-plain");
        assert_eq!(shown(&secrets.find(key("internal-ca", "ca.crt"))), "PEM");
        for (place, value) in
            [("openai-credentials", "sk-mounted\n"), ("ai-services/openai-credentials", "sk-full")]
        {
            let folder = dir.path().join("mounted").join(place);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("api-key"), value).unwrap();
            let found = secrets.find(key("openai-credentials", "api-key"));
            assert_eq!(shown(&found), value.trim());
        }
        assert!(!format!("{secrets:?}").contains("sk-"));
    }

    #[test]
    fn a_missing_secret_names_every_place() {
        let dir = tempfile::tempdir().unwrap();
        let secrets = secrets(dir.path(), "").unwrap();
        let said = secrets.find(key("no-such", "api-key")).unwrap_err();
        for place in [
            "secret ai-services/no-such, key api-key",
            "mounted/ai-services/no-such/api-key",
            "mounted/no-such/api-key",
            "QUORATE_TEST_SECRET_NO_SUCH_API_KEY",
            "secrets.yaml",
        ] {
            assert!(said.contains(place), "{place}: {said}");
        }
    }

    #[test]
    fn nothing_leads_out_of_the_folder_and_other_kinds_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("key"), "sk-outside").unwrap();
        let found = secrets(dir.path(), "").unwrap();
        for name in ["..", "../..", "a/b", "", ".hidden"] {
            assert!(found.find(key(name, "key")).unwrap_err().contains("no Secret can have"), "{name}");
        }
        for (manifest, said) in [
            (MANIFEST.replace("kind: Secret", "kind: Budget"), "is no Secret"),
            (MANIFEST.replace("c2stb2xk", "sk-no"), "data.other"),
            (MANIFEST.replace("{other: sk-plain}", "sk-no"), "line 7"),
        ] {
            let error = secrets(dir.path(), &manifest).unwrap_err().to_string();
            assert!(error.contains(said) && !error.contains("sk-no"), "{error}");
        }
    }
}
