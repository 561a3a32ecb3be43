//! The API keys as this node has applied them, copied out of the ledger once for all watchers.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use quorate_ledger::KeyRecord;
use quorate_replica::Replica;
use quorate_rpc::budget::ApiKeys;

/// Keys of one event: well below what a message may have, whatever models the keys name.
const KEYS_OF_AN_EVENT: usize = 250;

type Records = Arc<BTreeMap<String, Arc<KeyRecord>>>;

/// The keys at one revision. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeySet {
    pub revision: u64,
    records: Records,
}

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct KeySets {
    replica: Replica,
    /// Held while a set is copied, so that watchers that see a change at the same time copy it once.
    latest: Arc<Mutex<KeySet>>,
}

impl KeySets {
    pub fn new(replica: Replica) -> Self {
        Self { replica, latest: Arc::default() }
    }

    /// The present set.
    pub fn latest(&self) -> KeySet {
        let mut latest = self.latest.lock();
        let known = latest.revision;
        // On a copy, which is cheap: the ledger is locked meanwhile.
        let changed = self.replica.read(|ledger, _| {
            let changed = ledger.keys_revision() != known;
            changed.then(|| ledger.clone())
        });
        if let Some(ledger) = changed {
            let old = std::mem::take(&mut latest.records);
            let records = ledger.keys().map(|key| {
                let known = old.get(&key.id).filter(|known| ***known == *key);
                (key.id.clone(), known.cloned().unwrap_or_else(|| Arc::new(key.clone())))
            });
            *latest = KeySet { revision: ledger.keys_revision(), records: Arc::new(records.collect()) };
        }
        latest.clone()
    }
}

impl KeySet {
    /// What one who has `known` must be told: what changed, or everything if keys have gone. `None`: everything.
    pub fn since(&self, known: Option<&Self>) -> Vec<ApiKeys> {
        let gone = |known: &&Self| known.records.keys().any(|id| !self.records.contains_key(id));
        let base = known.filter(|known| !gone(known));
        let told = |key: &&Arc<KeyRecord>| {
            base.is_none_or(|base| base.records.get(&key.id).is_none_or(|known| known != *key))
        };
        let keys: Vec<_> = self.records.values().filter(told).map(|key| (&**key).into()).collect();
        let mut events: Vec<ApiKeys> = keys
            .chunks(KEYS_OF_AN_EVENT)
            .map(|keys| ApiKeys { complete: false, revision: self.revision, keys: keys.to_vec(), more: true })
            .collect();
        if events.is_empty() {
            events.push(ApiKeys { revision: self.revision, ..ApiKeys::default() });
        }
        if let Some(first) = events.first_mut() {
            first.complete = base.is_none();
        }
        if let Some(last) = events.last_mut() {
            last.more = false;
        }
        events
    }
}
