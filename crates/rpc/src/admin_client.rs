//! The admin calls, each tried on one node after the other until one can take it.

use std::time::Duration;

use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::admin::admin_client::AdminClient;
use crate::admin::{self};
use crate::budget::PolicyDocument;
use crate::client::Client;
use crate::error::{ClientError, is_about_the_node};

const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Times that every node is asked before giving up: an election takes a while.
const ROUNDS: usize = 8;
const BETWEEN_ROUNDS: Duration = Duration::from_millis(400);

/// One method per rpc of `quorate.admin.v1`. All of them are safe to send again.
#[derive(Debug, Clone)]
pub struct Admin {
    client: Client,
}

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident: $request:ty => $response:ty;)*) => {
        impl Admin {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// No node could take the call, or it was wrong.
                pub async fn $name(&self, request: $request) -> Result<$response, ClientError> {
                    self.call(async |mut client: AdminClient<Channel>| {
                        let mut request = Request::new(request.clone());
                        request.set_timeout(CALL_TIMEOUT);
                        client.$name(request).await.map(tonic::Response::into_inner)
                    })
                    .await
                }
            )*
        }
    };
}

calls! {
    /// Every member, whether reachable or not.
    list_nodes: admin::ListNodesRequest => admin::ListNodesResponse;
    list_tenants: admin::ListTenantsRequest => admin::ListTenantsResponse;
    list_budgets: admin::ListBudgetsRequest => admin::ListBudgetsResponse;
    list_accounts: admin::ListAccountsRequest => admin::ListAccountsResponse;
    list_reservations: admin::ListReservationsRequest => admin::ListReservationsResponse;
    list_providers: admin::ListProvidersRequest => admin::ListProvidersResponse;
    get_policy: admin::GetPolicyRequest => PolicyDocument;
    apply_policy: admin::ApplyPolicyRequest => admin::ApplyPolicyResponse;
    adjust_account: admin::AdjustAccountRequest => admin::AdjustAccountResponse;
    check_invariants: admin::CheckInvariantsRequest => admin::CheckInvariantsResponse;
    transfer_leadership: admin::TransferLeadershipRequest => admin::TransferLeadershipResponse;
}

impl Admin {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    async fn call<T>(
        &self,
        mut send: impl AsyncFnMut(AdminClient<Channel>) -> Result<T, Status>,
    ) -> Result<T, ClientError> {
        let routes = &self.client.shared.routes;
        let mut last = "no node is configured".to_owned();
        for round in 0..ROUNDS {
            for _ in 0..routes.count() {
                let Some(address) = routes.pick_next() else { break };
                let client = AdminClient::new(routes.channel(&address)?);
                match tokio::time::timeout(CALL_TIMEOUT, send(client)).await {
                    Ok(Ok(response)) => return Ok(response),
                    Ok(Err(status)) if is_about_the_node(&status) => {
                        last = format!("{address}: {}", status.message())
                    }
                    Ok(Err(status)) => return Err(status.into()),
                    Err(_) => last = format!("{address} did not answer"),
                }
            }
            if round + 1 < ROUNDS {
                tokio::time::sleep(BETWEEN_ROUNDS).await;
            }
        }
        Err(ClientError::Unavailable { message: last, retry_after_ms: 1_000 })
    }
}
