//! The admin calls, each tried on one node after the other until one can take it.

use std::time::Duration;

use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use crate::admin::admin_client::AdminClient;
use crate::admin::{self};
use crate::budget::PolicyDocument;
use crate::client::Client;
use crate::error::{ClientError, explain, is_about_the_node};
use crate::routing::MESSAGE_MAX_BYTES;

/// Request metadata: who asks for a change, for the audit log.
pub const BY_HEADER: &str = "quorate-by";

const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// A policy can be large, and then it takes a compiler and many log entries.
const APPLY_TIMEOUT: Duration = Duration::from_secs(30);
/// A new node takes the whole ledger first.
const MEMBERSHIP_TIMEOUT: Duration = Duration::from_secs(330);
/// Times that every node is asked before giving up: an election takes a while.
const ROUNDS: usize = 8;
const BETWEEN_ROUNDS: Duration = Duration::from_millis(400);

/// One method per rpc of `quorate.admin.v1`. All of them are safe to send again: a key whose answer was lost is known to
/// nobody.
#[derive(Debug, Clone)]
pub struct Admin {
    client: Client,
    by: Option<MetadataValue<tonic::metadata::Ascii>>,
}

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident: $request:ty => $response:ty, $timeout:expr;)*) => {
        impl Admin {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// No node could take the call, or it was wrong.
                pub async fn $name(&self, request: $request) -> Result<$response, ClientError> {
                    self.call($timeout, |mut client: AdminClient<Channel>| {
                        let mut request = self.request(request.clone());
                        request.set_timeout($timeout);
                        async move { client.$name(request).await.map(tonic::Response::into_inner) }
                    })
                    .await
                }
            )*
        }
    };
}

calls! {
    /// Every member, whether reachable or not.
    list_nodes: admin::ListNodesRequest => admin::ListNodesResponse, CALL_TIMEOUT;
    list_tenants: admin::ListTenantsRequest => admin::ListTenantsResponse, CALL_TIMEOUT;
    list_budgets: admin::ListBudgetsRequest => admin::ListBudgetsResponse, CALL_TIMEOUT;
    list_accounts: admin::ListAccountsRequest => admin::ListAccountsResponse, CALL_TIMEOUT;
    list_reservations: admin::ListReservationsRequest => admin::ListReservationsResponse, CALL_TIMEOUT;
    list_providers: admin::ListProvidersRequest => admin::ListProvidersResponse, CALL_TIMEOUT;
    get_policy: admin::GetPolicyRequest => PolicyDocument, CALL_TIMEOUT;
    apply_policy: admin::ApplyPolicyRequest => admin::ApplyPolicyResponse, APPLY_TIMEOUT;
    list_objects: admin::ListObjectsRequest => admin::ListObjectsResponse, CALL_TIMEOUT;
    list_policy_versions: admin::ListPolicyVersionsRequest => admin::ListPolicyVersionsResponse, CALL_TIMEOUT;
    rollback_policy: admin::RollbackPolicyRequest => admin::ApplyPolicyResponse, APPLY_TIMEOUT;
    explain_request: admin::ExplainRequestRequest => admin::ExplainRequestResponse, CALL_TIMEOUT;
    create_key: admin::CreateKeyRequest => admin::CreateKeyResponse, CALL_TIMEOUT;
    revoke_key: admin::RevokeKeyRequest => admin::RevokeKeyResponse, CALL_TIMEOUT;
    list_keys: admin::ListKeysRequest => admin::ListKeysResponse, CALL_TIMEOUT;
    list_audit: admin::ListAuditRequest => admin::ListAuditResponse, CALL_TIMEOUT;
    /// Those that watch one of the members now.
    list_gateways: admin::ListGatewaysRequest => admin::ListGatewaysResponse, CALL_TIMEOUT;
    list_alerts: admin::ListAlertsRequest => admin::ListAlertsResponse, CALL_TIMEOUT;
    drain_backend: admin::DrainBackendRequest => admin::DrainBackendResponse, CALL_TIMEOUT;
    undrain_backend: admin::UndrainBackendRequest => admin::UndrainBackendResponse, CALL_TIMEOUT;
    adjust_account: admin::AdjustAccountRequest => admin::AdjustAccountResponse, CALL_TIMEOUT;
    check_invariants: admin::CheckInvariantsRequest => admin::CheckInvariantsResponse, CALL_TIMEOUT;
    transfer_leadership: admin::TransferLeadershipRequest => admin::TransferLeadershipResponse, CALL_TIMEOUT;
    add_node: admin::AddNodeRequest => admin::AddNodeResponse, MEMBERSHIP_TIMEOUT;
    remove_node: admin::RemoveNodeRequest => admin::RemoveNodeResponse, MEMBERSHIP_TIMEOUT;
    replace_node: admin::ReplaceNodeRequest => admin::ReplaceNodeResponse, MEMBERSHIP_TIMEOUT;
}

impl Admin {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, by: None }
    }

    /// Says in every call who asks; it stands in the audit log. What is not printable ASCII is escaped.
    #[must_use]
    pub fn acting_as(self, by: &str) -> Self {
        let by = MetadataValue::try_from(by.escape_default().to_string()).ok();
        Self { by, ..self }
    }

    /// Alerts and policy versions as they come. The stream ends with its node; the caller opens another, after the last
    /// alert that it has seen.
    ///
    /// # Errors
    /// No node could take the call, or it was wrong.
    pub async fn watch_events(
        &self,
        request: admin::WatchEventsRequest,
    ) -> Result<Streaming<admin::Event>, ClientError> {
        self.call(CALL_TIMEOUT, |mut client: AdminClient<Channel>| {
            let request = self.request(request);
            async move { client.watch_events(request).await.map(tonic::Response::into_inner) }
        })
        .await
    }

    /// The bytes of a backup file, in chunks.
    ///
    /// # Errors
    /// No node could take the call, or it was refused.
    pub async fn backup(&self) -> Result<Streaming<admin::BackupChunk>, ClientError> {
        self.call(CALL_TIMEOUT, |mut client: AdminClient<Channel>| {
            let request = self.request(admin::BackupRequest {});
            async move { client.backup(request).await.map(tonic::Response::into_inner) }
        })
        .await
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(by) = &self.by {
            request.metadata_mut().insert(BY_HEADER, by.clone());
        }
        request
    }

    /// `send` is no async closure: those are not `Send` for every lifetime, and nobody could spawn a call.
    async fn call<T, F: Future<Output = Result<T, Status>>>(
        &self,
        timeout: Duration,
        mut send: impl FnMut(AdminClient<Channel>) -> F,
    ) -> Result<T, ClientError> {
        let routes = &self.client.shared.routes;
        let mut said = Vec::new();
        for round in 0..ROUNDS {
            said.clear();
            for _ in 0..routes.count() {
                let Some(address) = routes.pick_next() else { break };
                let client = AdminClient::new(routes.channel(&address)?)
                    .max_decoding_message_size(MESSAGE_MAX_BYTES)
                    .max_encoding_message_size(MESSAGE_MAX_BYTES);
                match tokio::time::timeout(timeout, send(client)).await {
                    Ok(Ok(response)) => return Ok(response),
                    Ok(Err(status)) if is_about_the_node(&status) => {
                        said.push(format!("{address}: {}", explain(&status)));
                    }
                    Ok(Err(status)) => return Err(status.into()),
                    Err(_) => said.push(format!("{address} did not answer")),
                }
            }
            if round + 1 < ROUNDS {
                tokio::time::sleep(BETWEEN_ROUNDS).await;
            }
        }
        let message = if said.is_empty() { "no node is configured".to_owned() } else { said.join("; ") };
        Err(ClientError::Unavailable { message, retry_after_ms: 1_000 })
    }
}
