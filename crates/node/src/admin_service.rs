//! `quorate.admin.v1`: what operators read and change. Any node takes any call; what must be fresh is answered by the leader.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_replica::{Member, Replica, Role};
use quorate_rpc::admin::admin_client::AdminClient;
use quorate_rpc::admin::admin_server::Admin;
use quorate_rpc::admin::{self, Consistency};
use quorate_rpc::budget::PolicyDocument;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::admin_changes::{Changes, by};
use crate::admin_drains::{Drained, Drains};
use crate::admin_members::Members;
use crate::admin_reads::Reads;
use crate::error::replica_status;
use crate::forward::{Forwarder, admin_client, forwarded, forwarded_change};
use crate::policies::Policies;
use crate::policy_changes::PolicyChanges;
use crate::watchers::Watchers;
use crate::{backups, gateways, policy_events};

#[derive(Debug, Clone)]
pub(crate) struct AdminService {
    pub cluster: String,
    pub replica: Replica,
    pub reads: Reads,
    pub policies: Arc<Policies>,
    pub changes: Changes,
    pub drains: Drains,
    pub members: Members,
    pub policy_changes: PolicyChanges,
    pub forwarder: Arc<Forwarder>,
    pub watchers: Arc<Watchers>,
    pub started: Instant,
    pub event_watches: Arc<Semaphore>,
    pub backups: Arc<Semaphore>,
    pub stop: CancellationToken,
}

/// Has the leader answer what must be fresh, or goes on here with everything applied that was committed.
macro_rules! fresh {
    ($self:ident, $request:ident, $name:ident) => {
        if $request.get_ref().consistency() == Consistency::Linearizable {
            if let Some(channel) = $self.forwarder.elsewhere($request.metadata())? {
                return admin_client(channel).$name(forwarded($request.into_inner())).await;
            }
            $self.replica.linearize().await.map_err(replica_status)?;
        }
    };
}

/// Has the leader answer, or goes on here.
macro_rules! on_leader {
    ($self:ident, $request:ident, $name:ident) => {
        if let Some(channel) = $self.forwarder.elsewhere($request.metadata())? {
            return admin_client(channel).$name(forwarded_change($request)).await;
        }
    };
}

impl AdminService {
    /// This node as it knows itself.
    fn own_node(&self) -> admin::Node {
        let status = self.replica.status().borrow().clone();
        let (storage, clock) = (self.replica.storage_stats(), self.replica.clock_report());
        let me = status.members.iter().find(|member| member.peer.id == self.replica.node_id());
        admin::Node {
            id: self.replica.node_id(),
            address: me.map(|member| member.peer.address.clone()).unwrap_or_default(),
            role: role(status.role).to_owned(),
            term: status.term,
            last_log_index: status.last_log_index,
            applied_index: status.applied_index,
            snapshot_index: status.snapshot_index,
            voter: me.is_some_and(|member| member.voter),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            data_bytes: storage.log_bytes + storage.snapshot_bytes,
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            clock_offset_ms: clock.offset_ms,
            clock_off: clock.off,
        }
    }

    /// Asks a peer about itself.
    async fn peer_node(&self, member: &Member) -> admin::Node {
        let asked = async {
            let channel = self.replica.channel(&member.peer.address).ok()?;
            let mut request = forwarded(admin::ListNodesRequest {});
            request.set_timeout(Duration::from_secs(1));
            let response = AdminClient::new(channel).list_nodes(request).await.ok()?.into_inner();
            response.nodes.into_iter().find(|node| node.id == member.peer.id)
        };
        let answer = tokio::time::timeout(Duration::from_millis(1_200), asked).await.ok().flatten();
        answer.unwrap_or_else(|| admin::Node {
            id: member.peer.id,
            address: member.peer.address.clone(),
            role: "unreachable".to_owned(),
            voter: member.voter,
            ..admin::Node::default()
        })
    }
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn list_nodes(
        &self,
        request: Request<admin::ListNodesRequest>,
    ) -> Result<Response<admin::ListNodesResponse>, Status> {
        let me = self.own_node();
        let mut nodes = vec![me];
        if !request.metadata().contains_key(quorate_rpc::FORWARDED_HEADER) {
            let members = self.replica.status().borrow().members.clone();
            let peers = members.iter().filter(|member| member.peer.id != self.replica.node_id());
            nodes.extend(futures_util::future::join_all(peers.map(|member| self.peer_node(member))).await);
            nodes.sort_by_key(|node| node.id);
        }
        Ok(Response::new(admin::ListNodesResponse { cluster: self.cluster.clone(), nodes }))
    }

    async fn list_tenants(
        &self,
        request: Request<admin::ListTenantsRequest>,
    ) -> Result<Response<admin::ListTenantsResponse>, Status> {
        fresh!(self, request, list_tenants);
        Ok(Response::new(self.reads.tenants(request.get_ref())))
    }

    async fn list_budgets(
        &self,
        request: Request<admin::ListBudgetsRequest>,
    ) -> Result<Response<admin::ListBudgetsResponse>, Status> {
        fresh!(self, request, list_budgets);
        Ok(Response::new(self.reads.budgets(&self.policies).await))
    }

    async fn list_accounts(
        &self,
        request: Request<admin::ListAccountsRequest>,
    ) -> Result<Response<admin::ListAccountsResponse>, Status> {
        fresh!(self, request, list_accounts);
        self.reads.accounts(request.get_ref()).map(Response::new)
    }

    async fn list_reservations(
        &self,
        request: Request<admin::ListReservationsRequest>,
    ) -> Result<Response<admin::ListReservationsResponse>, Status> {
        fresh!(self, request, list_reservations);
        Ok(Response::new(self.reads.reservations(request.get_ref())))
    }

    async fn list_providers(
        &self,
        request: Request<admin::ListProvidersRequest>,
    ) -> Result<Response<admin::ListProvidersResponse>, Status> {
        fresh!(self, request, list_providers);
        Ok(Response::new(self.reads.providers()))
    }

    async fn get_policy(
        &self,
        request: Request<admin::GetPolicyRequest>,
    ) -> Result<Response<PolicyDocument>, Status> {
        fresh!(self, request, get_policy);
        let policy = self.replica.read(|ledger, _| ledger.policy());
        Ok(Response::new(PolicyDocument { version: policy.version, document: policy.document }))
    }

    async fn apply_policy(
        &self,
        request: Request<admin::ApplyPolicyRequest>,
    ) -> Result<Response<admin::ApplyPolicyResponse>, Status> {
        on_leader!(self, request, apply_policy);
        let by = by(request.metadata());
        self.policy_changes.apply(by, request.into_inner()).await.map(Response::new)
    }

    async fn rollback_policy(
        &self,
        request: Request<admin::RollbackPolicyRequest>,
    ) -> Result<Response<admin::ApplyPolicyResponse>, Status> {
        on_leader!(self, request, rollback_policy);
        let by = by(request.metadata());
        self.policy_changes.roll_back(by, request.into_inner()).await.map(Response::new)
    }

    async fn list_objects(
        &self,
        request: Request<admin::ListObjectsRequest>,
    ) -> Result<Response<admin::ListObjectsResponse>, Status> {
        fresh!(self, request, list_objects);
        self.reads.objects(&self.policies, request.get_ref()).await.map(Response::new)
    }

    async fn list_policy_versions(
        &self,
        request: Request<admin::ListPolicyVersionsRequest>,
    ) -> Result<Response<admin::ListPolicyVersionsResponse>, Status> {
        fresh!(self, request, list_policy_versions);
        Ok(Response::new(self.reads.policy_versions()))
    }

    async fn explain_request(
        &self,
        request: Request<admin::ExplainRequestRequest>,
    ) -> Result<Response<admin::ExplainRequestResponse>, Status> {
        fresh!(self, request, explain_request);
        self.reads.explain(&self.policies, request.into_inner()).await.map(Response::new)
    }

    async fn create_key(
        &self,
        request: Request<admin::CreateKeyRequest>,
    ) -> Result<Response<admin::CreateKeyResponse>, Status> {
        on_leader!(self, request, create_key);
        let by = by(request.metadata());
        self.changes.create_key(by, request.into_inner()).await.map(Response::new)
    }

    async fn revoke_key(
        &self,
        request: Request<admin::RevokeKeyRequest>,
    ) -> Result<Response<admin::RevokeKeyResponse>, Status> {
        on_leader!(self, request, revoke_key);
        let by = by(request.metadata());
        self.changes.revoke_key(by, request.into_inner().id).await.map(Response::new)
    }

    async fn list_keys(
        &self,
        request: Request<admin::ListKeysRequest>,
    ) -> Result<Response<admin::ListKeysResponse>, Status> {
        fresh!(self, request, list_keys);
        Ok(Response::new(self.reads.keys(request.get_ref())))
    }

    async fn list_audit(
        &self,
        request: Request<admin::ListAuditRequest>,
    ) -> Result<Response<admin::ListAuditResponse>, Status> {
        fresh!(self, request, list_audit);
        Ok(Response::new(self.reads.audit(request.get_ref())))
    }

    async fn list_gateways(
        &self,
        request: Request<admin::ListGatewaysRequest>,
    ) -> Result<Response<admin::ListGatewaysResponse>, Status> {
        let ask_others = !request.metadata().contains_key(quorate_rpc::FORWARDED_HEADER);
        let own = self.watchers.list();
        Ok(Response::new(gateways::list(&self.replica, own, ask_others).await))
    }

    async fn list_alerts(
        &self,
        request: Request<admin::ListAlertsRequest>,
    ) -> Result<Response<admin::ListAlertsResponse>, Status> {
        fresh!(self, request, list_alerts);
        Ok(Response::new(self.reads.alerts(request.get_ref())))
    }

    type WatchEventsStream = policy_events::EventStream;

    async fn watch_events(
        &self,
        request: Request<admin::WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        let after = request.into_inner().alerts_after;
        let place = self.event_watches.clone().try_acquire_owned();
        let place =
            place.map_err(|_| Status::unavailable("too many watch this node's events; ask another"))?;
        Ok(Response::new(policy_events::watch(self.replica.clone(), after, self.stop.clone(), place)))
    }

    async fn drain_backend(
        &self,
        request: Request<admin::DrainBackendRequest>,
    ) -> Result<Response<admin::DrainBackendResponse>, Status> {
        on_leader!(self, request, drain_backend);
        let by = by(request.metadata());
        let named = request.into_inner().backend;
        let Drained { backend, changed, known } = self.drains.set(by, &named, true).await?;
        Ok(Response::new(admin::DrainBackendResponse { backend, changed, known }))
    }

    async fn undrain_backend(
        &self,
        request: Request<admin::UndrainBackendRequest>,
    ) -> Result<Response<admin::UndrainBackendResponse>, Status> {
        on_leader!(self, request, undrain_backend);
        let by = by(request.metadata());
        let named = request.into_inner().backend;
        let Drained { backend, changed, known } = self.drains.set(by, &named, false).await?;
        Ok(Response::new(admin::UndrainBackendResponse { backend, changed, known }))
    }

    async fn adjust_account(
        &self,
        request: Request<admin::AdjustAccountRequest>,
    ) -> Result<Response<admin::AdjustAccountResponse>, Status> {
        on_leader!(self, request, adjust_account);
        let by = by(request.metadata());
        let request = request.into_inner();
        let (tenant, budget, subject) =
            (request.tenant.clone(), request.budget.clone(), request.subject.clone());
        self.changes.adjust(by, request).await?;
        Ok(Response::new(admin::AdjustAccountResponse {
            account: self.reads.account(&tenant, &budget, &subject),
        }))
    }

    async fn check_invariants(
        &self,
        _request: Request<admin::CheckInvariantsRequest>,
    ) -> Result<Response<admin::CheckInvariantsResponse>, Status> {
        let reads = self.reads.clone();
        let checked = tokio::task::spawn_blocking(move || reads.invariants()).await;
        checked.map(Response::new).map_err(|error| Status::internal(error.to_string()))
    }

    type BackupStream = backups::ChunkStream;

    async fn backup(
        &self,
        request: Request<admin::BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        if let Some(channel) = self.forwarder.elsewhere(request.metadata())? {
            let chunks = admin_client(channel).backup(forwarded_change(request)).await?;
            return Ok(Response::new(Box::pin(chunks.into_inner())));
        }
        let by = by(request.metadata());
        backups::stream(&self.replica, &by, &self.backups, self.stop.clone()).await.map(Response::new)
    }

    async fn transfer_leadership(
        &self,
        request: Request<admin::TransferLeadershipRequest>,
    ) -> Result<Response<admin::TransferLeadershipResponse>, Status> {
        on_leader!(self, request, transfer_leadership);
        let by = by(request.metadata());
        let to = request.into_inner().to_node;
        let leader =
            self.replica.transfer_leadership((to > 0).then_some(to)).await.map_err(replica_status)?;
        tracing::info!(by, leader, "leadership transferred");
        Ok(Response::new(admin::TransferLeadershipResponse { leader }))
    }

    async fn add_node(
        &self,
        request: Request<admin::AddNodeRequest>,
    ) -> Result<Response<admin::AddNodeResponse>, Status> {
        self.members.add(request).await.map(Response::new)
    }

    async fn remove_node(
        &self,
        request: Request<admin::RemoveNodeRequest>,
    ) -> Result<Response<admin::RemoveNodeResponse>, Status> {
        self.members.remove(request).await.map(Response::new)
    }

    async fn replace_node(
        &self,
        request: Request<admin::ReplaceNodeRequest>,
    ) -> Result<Response<admin::ReplaceNodeResponse>, Status> {
        self.members.replace(request).await.map(Response::new)
    }
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Learner => "learner",
        Role::Stopped => "unreachable",
    }
}
