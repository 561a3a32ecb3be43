//! The API keys as a watch has told them: sets and changes come in parts and are taken up whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_ledger::KeyRecord;

use crate::budget::ApiKeys;
use crate::convert::ConvertError;

/// By id. Revoked and expired keys are among them for a while: whoever uses a key looks at its times.
pub type Keys = Arc<BTreeMap<String, Arc<KeyRecord>>>;

/// What has come of a set so far. Of one stream: another begins with another one of these.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    complete: bool,
    keys: Vec<KeyRecord>,
}

impl Parts {
    /// Takes one event; `true` once it has ended a set or a change, which then stands in `known`.
    ///
    /// # Errors
    /// A record that is none.
    pub fn take(&mut self, event: ApiKeys, known: &mut Keys) -> Result<bool, ConvertError> {
        if event.complete {
            *self = Self { complete: true, keys: Vec::new() };
        }
        for key in event.keys {
            self.keys.push(KeyRecord::try_from(key)?);
        }
        if event.more {
            return Ok(false);
        }
        let Self { complete, keys } = std::mem::take(self);
        let changed = keys.into_iter().map(|key| (key.id.clone(), Arc::new(key)));
        if complete {
            *known = Arc::new(changed.collect());
        } else {
            Arc::make_mut(known).extend(changed);
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use quorate_ledger::TimestampMs;

    use super::*;

    fn key(id: &str, revoked_at: Option<u64>) -> KeyRecord {
        KeyRecord {
            id: id.to_owned(),
            hash: [7; 32],
            tenant: "acme".to_owned(),
            user: "alice".to_owned(),
            team: String::new(),
            models: Vec::new(),
            created_at: TimestampMs(1),
            expires_at: None,
            revoked_at: revoked_at.map(TimestampMs),
            by: String::new(),
            comment: String::new(),
        }
    }

    fn event(complete: bool, more: bool, keys: &[KeyRecord]) -> ApiKeys {
        ApiKeys { complete, revision: 1, keys: keys.iter().map(Into::into).collect(), more }
    }

    #[test]
    fn a_set_is_taken_up_when_its_last_part_has_come() {
        let (mut parts, mut known) = (Parts::default(), Keys::default());
        assert!(!parts.take(event(true, true, &[key("a", None)]), &mut known).unwrap());
        assert!(known.is_empty());
        assert!(parts.take(event(false, false, &[key("b", None)]), &mut known).unwrap());
        assert_eq!(known.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert!(parts.take(event(false, false, &[key("a", Some(5))]), &mut known).unwrap());
        assert_eq!((known["a"].revoked_at, known.len()), (Some(TimestampMs(5)), 2));
        assert!(parts.take(event(true, false, &[key("b", None)]), &mut known).unwrap());
        assert_eq!(known.keys().collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn a_hash_of_another_length_is_refused() {
        let mut broken = event(true, false, &[key("a", None)]);
        broken.keys[0].hash = vec![1; 31].into();
        assert!(Parts::default().take(broken, &mut Keys::default()).is_err());
    }
}
