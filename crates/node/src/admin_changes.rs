//! What operators change on the leader: accounts and API keys. Policies are changed in `policy_changes`.

use std::sync::Arc;
use std::time::Duration;

use quorate_ledger::{Adjustment, Command, KeyRecord, Outcome, Refusal, TimestampMs};
use quorate_rpc::admin::{self, adjust_account_request::Change};
use quorate_rpc::{BY_HEADER, convert};
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::admin_policy_reads::without_hash;
use crate::key_text::KeyText;
use crate::tenants::Tenants;

pub(crate) const CHANGE_TIMEOUT: Duration = Duration::from_secs(5);
const BY_MAX_BYTES: usize = 128;
/// Of one who does not say who they are.
const UNKNOWN: &str = "unknown";

/// Who asks, as they say.
pub(crate) fn by(metadata: &MetadataMap) -> String {
    let said = metadata.get(BY_HEADER).and_then(|value| value.to_str().ok()).map(str::trim);
    let said = said.filter(|said| !said.is_empty()).unwrap_or(UNKNOWN);
    said[..said.floor_char_boundary(BY_MAX_BYTES)].to_owned()
}

#[derive(Debug, Clone)]
pub(crate) struct Changes {
    pub tenants: Arc<Tenants>,
}

impl Changes {
    pub async fn change(&self, command: Command) -> Result<Outcome, Status> {
        let decided = self.tenants.execute(command, CHANGE_TIMEOUT).await?;
        match decided.outcome {
            Outcome::Refused(refusal) => Err(refused(&refusal)),
            outcome => Ok(outcome),
        }
    }

    pub async fn adjust(&self, by: String, request: admin::AdjustAccountRequest) -> Result<(), Status> {
        let adjustment = match request.change.ok_or_else(|| Status::invalid_argument("change: is missing"))? {
            Change::TopUpMicros(micros) => Adjustment::TopUp(convert::amount("top_up_micros", micros)?),
            Change::Reset(_) => Adjustment::Reset,
            Change::OverrideLimitMicros(micros) => {
                Adjustment::OverrideLimit(convert::amount("override_limit_micros", micros)?)
            }
            Change::ClearOverride(_) => Adjustment::ClearOverride,
        };
        let id = convert::id("id", &request.id)?;
        let admin::AdjustAccountRequest { tenant, budget, subject, .. } = request;
        self.change(Command::AdjustAccount { tenant, id, budget, subject, adjustment, by }).await?;
        Ok(())
    }

    /// The text of the key is in the answer and nowhere else.
    pub async fn create_key(
        &self,
        by: String,
        request: admin::CreateKeyRequest,
    ) -> Result<admin::CreateKeyResponse, Status> {
        let made = KeyText::generate().map_err(Status::internal)?;
        let expires_at =
            (request.expires_in_ms > 0).then(|| self.tenants.now().saturating_add(request.expires_in_ms));
        let key = KeyRecord {
            id: made.id,
            hash: made.hash,
            tenant: request.tenant,
            user: request.user,
            team: request.team,
            models: request.models,
            // The ledger's own.
            created_at: TimestampMs(0),
            expires_at,
            revoked_at: None,
            by: by.clone(),
            comment: request.comment,
        };
        match self.change(Command::PutKey { key, by }).await? {
            Outcome::KeyPut { key } => {
                Ok(admin::CreateKeyResponse { key: Some(without_hash(&key)), text: made.text })
            }
            other => Err(unexpected(&other)),
        }
    }

    pub async fn revoke_key(&self, by: String, id: String) -> Result<admin::RevokeKeyResponse, Status> {
        match self.change(Command::RevokeKey { id, by }).await? {
            Outcome::KeyRevoked { key } => Ok(admin::RevokeKeyResponse { key: Some(without_hash(&key)) }),
            other => Err(unexpected(&other)),
        }
    }
}

/// The table of refusals to gRPC status.
pub(crate) fn refused(refusal: &Refusal) -> Status {
    let message = refusal.to_string();
    match refusal {
        Refusal::VersionConflict { .. } | Refusal::WrongPart { .. } => Status::aborted(message),
        Refusal::UnknownBudget { .. } | Refusal::UnknownKey { .. } => Status::not_found(message),
        _ => Status::invalid_argument(message),
    }
}

pub(crate) fn unexpected(outcome: &Outcome) -> Status {
    Status::internal(format!("unexpected outcome {outcome:?}"))
}
