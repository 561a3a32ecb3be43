//! API keys that Quorate issued: who carries one is known by it. Only its hash is here.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::cow_map::CowMap;
use crate::{AuditAction, KEYS_MAX, Ledger, Outcome, Refusal, TimestampMs, check};

/// How long a key is kept for reports once it is revoked or has expired: 30 days.
const KEPT_MS: u64 = 30 * 86_400_000;

/// One key. Revoked and expired ones are dropped 30 days later.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyRecord {
    /// 1 to 64 bytes of `[a-z0-9]`; part of the key's text, no secret.
    pub id: String,
    /// SHA-256 of the whole text of the key.
    pub hash: [u8; 32],
    pub tenant: String,
    /// May be empty, for a key of the whole tenant.
    pub user: String,
    /// Empty: none.
    pub team: String,
    /// What it may ask for; empty: every model. At most 64.
    pub models: Vec<String>,
    /// Set by the ledger.
    pub created_at: TimestampMs,
    pub expires_at: Option<TimestampMs>,
    /// Set by the ledger.
    pub revoked_at: Option<TimestampMs>,
    /// Who made it. Set by the ledger from the command.
    pub by: String,
    /// At most 512 bytes.
    pub comment: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Keys {
    pub records: CowMap<Arc<str>, Arc<KeyRecord>>,
    /// When to drop which.
    pub dropping: CowMap<(TimestampMs, Arc<str>), ()>,
    /// Counts the changes.
    pub revision: u64,
}

impl KeyRecord {
    /// When it is dropped; `None`: not as long as it is good.
    pub(crate) fn drop_at(&self) -> Option<TimestampMs> {
        let ended = self.revoked_at.into_iter().chain(self.expires_at).min();
        ended.map(|at| at.saturating_add(KEPT_MS))
    }

    /// As it was put, whatever became of it.
    fn as_put(&self) -> Self {
        Self { created_at: TimestampMs(0), revoked_at: None, ..self.clone() }
    }
}

impl Keys {
    fn put(&mut self, key: KeyRecord) {
        let id: Arc<str> = key.id.as_str().into();
        self.revision += 1;
        if let Some(at) = key.drop_at() {
            self.dropping.insert((at, id.clone()), ());
        }
        let before = self.records.insert(id.clone(), Arc::new(key));
        let drop_at = |id: &Arc<str>| self.records.get(id).and_then(|key| key.drop_at());
        let before = before.and_then(|before| before.drop_at()).filter(|at| Some(*at) != drop_at(&id));
        if let Some(at) = before {
            self.dropping.remove(&(at, id));
        }
    }

    /// False if none is due.
    pub fn drop_one(&mut self, now: TimestampMs) -> bool {
        let first = self.dropping.first_key_value().filter(|((at, _), ())| *at <= now);
        let Some(key) = first.map(|(key, ())| key.clone()) else { return false };
        self.dropping.remove(&key);
        self.records.remove(&key.1);
        self.revision += 1;
        true
    }
}

impl Ledger {
    pub(crate) fn put_key(&mut self, now: TimestampMs, key: &KeyRecord, by: &str) -> Outcome {
        if let Err(message) = valid(key, by) {
            return Outcome::Refused(Refusal::Invalid(message));
        }
        let key = KeyRecord { by: by.to_owned(), ..key.as_put() };
        let message = match self.keys.records.get(key.id.as_str()) {
            Some(known) if known.as_put() == key => return Outcome::KeyPut { key: known.as_ref().clone() },
            Some(_) => format!("key {} is there with other fields; make a new id for a new key", key.id),
            None if key.expires_at.is_some_and(|at| at <= now) => {
                format!("key {}: expires_at has passed", key.id)
            }
            None if self.keys.records.len() >= KEYS_MAX => {
                format!("there are {KEYS_MAX} keys, the most that are kept")
            }
            None => {
                let key = KeyRecord { created_at: now, ..key };
                self.audit.record(now, by, AuditAction::PutKey, subject(&key), key.comment.clone());
                self.keys.put(key.clone());
                return Outcome::KeyPut { key };
            }
        };
        Outcome::Refused(Refusal::Invalid(message))
    }

    /// Once; again, it changes nothing.
    pub(crate) fn revoke_key(&mut self, now: TimestampMs, id: &str, by: &str) -> Outcome {
        if let Err(message) = check::by(by).and_then(|()| check::key_id(id)) {
            return Outcome::Refused(Refusal::Invalid(message));
        }
        let Some(known) = self.keys.records.get(id) else {
            return Outcome::Refused(Refusal::UnknownKey { id: id.to_owned() });
        };
        let mut key = known.as_ref().clone();
        if key.revoked_at.is_none() {
            key.revoked_at = Some(now);
            self.audit.record(now, by, AuditAction::RevokeKey, subject(&key), String::new());
            self.keys.put(key.clone());
        }
        Outcome::KeyRevoked { key }
    }
}

fn subject(key: &KeyRecord) -> String {
    format!("key {} of tenant {}, user {:?}", key.id, key.tenant, key.user)
}

fn valid(key: &KeyRecord, by: &str) -> Result<(), String> {
    check::by(by)?;
    check::key_id(&key.id)?;
    check::name("tenant", &key.tenant)?;
    for (field, text) in [("user", &key.user), ("team", &key.team)] {
        if !text.is_empty() {
            check::name(field, text)?;
        }
    }
    check::models(&key.models)?;
    check::comment(&key.comment)?;
    match key.revoked_at {
        Some(_) => Err("a new key is not revoked".to_owned()),
        None => Ok(()),
    }
}
