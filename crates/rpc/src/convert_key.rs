//! API keys on the wire and in the ledger's words.

use quorate_ledger::{KeyRecord, TimestampMs};

use crate::budget as wire;
use crate::convert::ConvertError;

impl From<&KeyRecord> for wire::ApiKey {
    fn from(key: &KeyRecord) -> Self {
        let time = |at: Option<TimestampMs>| at.map_or(0, |at| at.0);
        Self {
            id: key.id.clone(),
            hash: key.hash.to_vec().into(),
            tenant: key.tenant.clone(),
            user: key.user.clone(),
            team: key.team.clone(),
            models: key.models.clone(),
            created_at_ms: key.created_at.0,
            expires_at_ms: time(key.expires_at),
            revoked_at_ms: time(key.revoked_at),
            by: key.by.clone(),
            comment: key.comment.clone(),
        }
    }
}

impl TryFrom<wire::ApiKey> for KeyRecord {
    type Error = ConvertError;

    fn try_from(key: wire::ApiKey) -> Result<Self, ConvertError> {
        let time = |ms: u64| (ms > 0).then_some(TimestampMs(ms));
        let hash = <[u8; 32]>::try_from(&*key.hash)
            .map_err(|_| ConvertError::new("key.hash", "wanted the 32 bytes of a SHA-256"))?;
        Ok(Self {
            id: key.id,
            hash,
            tenant: key.tenant,
            user: key.user,
            team: key.team,
            models: key.models,
            created_at: TimestampMs(key.created_at_ms),
            expires_at: time(key.expires_at_ms),
            revoked_at: time(key.revoked_at_ms),
            by: key.by,
            comment: key.comment,
        })
    }
}
