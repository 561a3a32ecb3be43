//! Configuration: a YAML file, overruled by the environment, overruled by flags. Unknown keys are refused.
//!
//! Knows nothing of what the keys mean: the node's and the gateway's own types say that.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use serde::de::DeserializeOwned;
use serde_yaml_ng::{Mapping, Value};

/// A value for a key that the file leaves to the machine, or that is tried out.
#[derive(Debug, Clone)]
pub struct Override {
    /// As the user wrote it: `--listen`, `--set limits.drain_ms=…`.
    source: String,
    /// `limits.drain_ms`
    key: String,
    value: Value,
}

/// Options that servers share.
#[derive(Debug, Clone, Args)]
pub struct SetOptions {
    /// Instead of the file's value of any key, as in `limits.drain_ms=1000`; the value is YAML. Several in the
    /// environment are separated by `;`
    #[arg(long = "set", env = "QUORATE_SET", value_delimiter = ';', value_name = "KEY=VALUE", value_parser = key_value)]
    pub set: Vec<Override>,
}

fn key_value(text: &str) -> Result<Override, String> {
    let (key, value) = text.split_once('=').ok_or("wanted: KEY=VALUE")?;
    if key.split('.').any(str::is_empty) {
        return Err(format!("{key:?} is no key"));
    }
    let value = serde_yaml_ng::from_str(value).map_err(|error| format!("the value is no YAML: {error}"))?;
    Ok(Override { source: format!("--set {key}"), key: key.to_owned(), value })
}

impl Override {
    /// `None` if the flag was not given.
    pub fn flag(name: &str, key: &str, value: Option<impl Into<Value>>) -> Option<Self> {
        Some(Self { source: format!("--{name}"), key: key.to_owned(), value: value?.into() })
    }

    fn apply(&self, root: &mut Mapping) -> Result<()> {
        let (parents, last) = self.key.rsplit_once('.').unwrap_or(("", &self.key));
        let mut mapping = root;
        for part in parents.split('.').filter(|part| !part.is_empty()) {
            let entry = mapping.entry(part.into()).or_insert_with(|| Mapping::new().into());
            let Value::Mapping(inner) = entry else {
                bail!("{}: {part} is a single value and has no keys", self.source);
            };
            mapping = inner;
        }
        mapping.insert(last.into(), self.value.clone());
        Ok(())
    }
}

/// Reads the file, if there is one, and puts the overrides in their order over it.
///
/// # Errors
/// Names the file, line and column, the key, and the nearest known name; or the override that is wrong.
pub fn load<T: DeserializeOwned>(path: Option<&Path>, overrides: &[Override]) -> Result<T> {
    let text = match path {
        Some(path) => std::fs::read_to_string(path)
            .with_context(|| format!("cannot read config file {}", path.display()))?,
        None if overrides.is_empty() => bail!("no configuration; name a file with --config FILE"),
        None => String::new(),
    };
    parse(&text, overrides).map_err(|problem| problem.told(path))
}

/// What is wrong: in the file, at a place, or in an override.
#[derive(Debug)]
enum Problem {
    File(serde_yaml_ng::Error),
    Override(anyhow::Error),
    /// A key that neither of them has, most likely.
    Whole(serde_yaml_ng::Error),
}

fn parse<T: DeserializeOwned>(text: &str, overrides: &[Override]) -> Result<T, Problem> {
    let mut root = match serde_yaml_ng::from_str(text).map_err(Problem::File)? {
        Value::Null => Mapping::new(),
        Value::Mapping(mapping) => mapping,
        // The type's own error says what was wanted.
        other => return serde_yaml_ng::from_value(other).map_err(Problem::Whole),
    };
    for change in overrides {
        change.apply(&mut root).map_err(Problem::Override)?;
    }
    // As text again: the library's errors then say which key they are about.
    let merged = serde_yaml_ng::to_string(&root).map_err(Problem::Whole)?;
    let whole = match serde_yaml_ng::from_str(&merged) {
        Ok(config) => return Ok(config),
        Err(error) => error,
    };
    // Once more without the overrides: only the text has lines and columns.
    match serde_yaml_ng::from_str::<T>(text) {
        Err(error) if !is_missing_field(&error) => Err(Problem::File(error)),
        _ if is_missing_field(&whole) => Err(Problem::Whole(whole)),
        _ => {
            let message = message_of(&whole);
            let guilty = overrides.iter().rev().find(|change| {
                let last = change.key.rsplit('.').next().unwrap_or_default();
                message.starts_with(&format!("{}:", change.key)) || message.contains(&format!("`{last}`"))
            });
            let source = guilty.map_or("flags and environment", |change| change.source.as_str());
            Err(Problem::Override(anyhow!("{source}: {}", with_hint(&message))))
        }
    }
}

impl Problem {
    fn told(self, path: Option<&Path>) -> anyhow::Error {
        let file =
            path.map_or_else(|| "configuration".to_owned(), |path| format!("config file {}", path.display()));
        match self {
            Self::Override(error) => error,
            Self::Whole(error) => anyhow!("{file}: {}", with_hint(&message_of(&error))),
            Self::File(error) => {
                let place =
                    error.location().map(|at| format!(", line {}, column {}", at.line(), at.column()));
                anyhow!("{file}{}: {}", place.unwrap_or_default(), with_hint(&message_of(&error)))
            }
        }
    }
}

fn is_missing_field(error: &serde_yaml_ng::Error) -> bool {
    error.to_string().contains("missing field")
}

/// Without the place, which the library puts at the end.
fn message_of(error: &serde_yaml_ng::Error) -> String {
    let message = error.to_string();
    message.split(" at line ").next().unwrap_or(&message).to_owned()
}

fn with_hint(message: &str) -> String {
    match quorate_policy::did_you_mean(message) {
        Some(name) => format!("{message} (did you mean {name}?)"),
        None => message.to_owned(),
    }
}

/// A path as a value.
pub fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use quorate_gateway::GatewayConfig;
    use quorate_node::NodeConfig;
    use quorate_policy::manifests::{ManifestSet, Mode, Source};

    use super::*;

    const NODE: &str = "cluster: c
id: 1
listen: 127.0.0.1:1
http_listen: 127.0.0.1:2
data_dir: d
peers:
  - {id: 1, address: '127.0.0.1:1'}
";

    fn set(text: &str) -> Override {
        key_value(text).unwrap()
    }

    fn error(text: &str, overrides: &[&str]) -> String {
        let overrides: Vec<Override> = overrides.iter().map(|text| set(text)).collect();
        let problem = parse::<NodeConfig>(text, &overrides).unwrap_err();
        problem.told(Some(Path::new("node.yaml"))).to_string()
    }

    #[test]
    fn mistakes_in_the_file_are_named_with_their_place() {
        let table: &[(&str, &str, &[&str])] = &[
            (
                "data_dir",
                "data_dri",
                &["node.yaml, line 5", "unknown field `data_dri`", "did you mean data_dir?"],
            ),
            ("id: 1\n", "id: one\n", &["line 2", "id: invalid type"]),
            ("cluster: c\n", "cluster: c\ncluster: c\n", &["line", "duplicate"]),
            ("cluster: c\n", "", &["node.yaml: missing field `cluster`"]),
            (
                "peers:",
                "limits: {drain: 5}\npeers:",
                &["line 6", "limits: unknown field `drain`", "drain_ms"],
            ),
            ("cluster: c\n", "cluster: [\n", &["node.yaml, line"]),
        ];
        for (from, to, said) in table {
            let error = error(&NODE.replacen(from, to, 1), &[]);
            for words in *said {
                assert!(error.contains(words), "{to:?}: {words:?} is missing in {error}");
            }
        }
        assert!(error("- a\n- b\n", &[]).contains("invalid type: sequence"));
    }

    #[test]
    fn mistakes_in_overrides_are_named_with_their_source() {
        let table = [
            ("limits.drain_ms=soon", "--set limits.drain_ms: limits.drain_ms: invalid type"),
            ("limits.dran_ms=1", "did you mean drain_ms?"),
            ("id.x=1", "--set id.x: id is a single value"),
            ("lisen=1", "--set lisen: unknown field `lisen`"),
        ];
        for (change, said) in table {
            let error = error(NODE, &[change]);
            assert!(error.contains(said), "{change}: {error}");
        }
        assert!(key_value("no equals sign").is_err() && key_value("a..b=1").is_err());
    }

    #[test]
    fn later_overrides_win_and_may_bring_what_the_file_lacks() {
        let without_id = NODE.replace("id: 1\nlisten", "listen");
        let overrides =
            [set("id=2"), set("id=3"), set("limits.drain_ms=7"), set("peers=[{id: 3, address: 'a:1'}]")];
        let config: NodeConfig = parse(&without_id, &overrides).unwrap();
        assert_eq!((config.id, config.limits.drain_ms, config.peers[0].id), (3, 7, 3));
        assert_eq!(config.limits.batch_operations, quorate_node::Limits::default().batch_operations);
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = load::<NodeConfig>(Some(Path::new("/nowhere/node.yaml")), &[]).unwrap_err();
        assert!(format!("{error:#}").contains("/nowhere/node.yaml: No such file"), "{error:#}");
        let error = load::<NodeConfig>(None, &[]).unwrap_err();
        assert!(error.to_string().contains("--config"), "{error}");
    }

    #[test]
    fn the_example_files_are_right() {
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
        for number in 1..=3 {
            let config: NodeConfig = load(Some(&deploy.join(format!("node-{number}.yaml"))), &[]).unwrap();
            assert_eq!(config.id, number);
            assert!(config.peers.iter().any(|peer| peer.id == number && peer.address == config.advertised()));
        }
        for number in 1..=2 {
            let config: GatewayConfig =
                load(Some(&deploy.join(format!("gateway-{number}.yaml"))), &[]).unwrap();
            config.check().unwrap();
        }
        let source = Source { name: "policy.yaml", text: crate::command::dev::SAMPLE_POLICY };
        let (set, said) = ManifestSet::parse(&[source], Mode::Strict).unwrap();
        let (_, warned) = set.compile().unwrap();
        assert_eq!([said, warned].concat(), Vec::<String>::new());
    }
}
