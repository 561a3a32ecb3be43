//! Names of budgets: short, stable, unique. Accounts hang on them, so a name comes from what a rule says, not from where
//! it stands: putting a rule before another must not hand it the other's accounts.

use std::collections::BTreeMap;

use crate::manifests::NAME_MAX_BYTES;
use crate::manifests::object::Origin;

/// Who has which name.
#[derive(Debug, Default)]
pub(crate) struct Names {
    taken: BTreeMap<String, (String, Origin)>,
}

impl Names {
    /// `Err`: who has it already.
    pub fn claim(&mut self, name: &str, owner: &str, origin: &Origin) -> Result<(), String> {
        if let Some((other, _)) = self.taken.get(name) {
            return Err(other.clone());
        }
        self.taken.insert(name.to_owned(), (owner.to_owned(), origin.clone()));
        Ok(())
    }

    pub fn owner(&self, name: &str) -> Option<&Origin> {
        self.taken.get(name).map(|(_, origin)| origin)
    }
}

/// The names of the rules of one policy: `base`, `base/gpt-4o`, and where that stands already, `base/gpt-4o/2`.
#[derive(Debug)]
pub(crate) struct RuleNames {
    base: String,
    taken: Vec<String>,
}

impl RuleNames {
    pub fn new(base: String) -> Self {
        Self { base, taken: Vec::new() }
    }

    /// `label`: what the rule is about; empty: the whole policy.
    pub fn next(&mut self, label: &str) -> String {
        let name = if label.is_empty() { self.base.clone() } else { format!("{}/{label}", self.base) };
        let mut unique = bounded(&name);
        let mut number = 2;
        while self.taken.contains(&unique) {
            unique = bounded(&format!("{name}/{number}"));
            number += 1;
        }
        self.taken.push(unique.clone());
        unique
    }
}

/// A name that fits; what does not is cut and told apart by a hash of the whole.
pub(crate) fn bounded(name: &str) -> String {
    let name: String = name.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    if name.len() <= NAME_MAX_BYTES {
        return name;
    }
    let hash = format!("-{:016x}", fnv_1a(name.as_bytes()));
    let mut end = NAME_MAX_BYTES - hash.len();
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{hash}", &name[..end])
}

/// Fowler, Noll, Vo: the same on every machine and in every version, which names must be.
fn fnv_1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
