//! `quorate.admin.v1`: what operators read and change. Any node takes any call; what must be fresh is answered by the leader.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_ledger::{Adjustment, Command, Outcome, Refusal};
use quorate_policy::Policy;
use quorate_replica::{Member, Replica, Role};
use quorate_rpc::admin::admin_client::AdminClient;
use quorate_rpc::admin::admin_server::Admin;
use quorate_rpc::admin::{self, Consistency, adjust_account_request::Change};
use quorate_rpc::budget::PolicyDocument;
use quorate_rpc::convert;
use tonic::{Request, Response, Status};

use crate::admin_reads::Reads;
use crate::error::replica_status;
use crate::forward::{Forwarder, forwarded};
use crate::tenants::Tenants;
use crate::watchers::Watchers;

const CHANGE_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone)]
pub(crate) struct AdminService {
    pub cluster: String,
    pub replica: Replica,
    pub reads: Reads,
    pub tenants: Arc<Tenants>,
    pub forwarder: Arc<Forwarder>,
    pub watchers: Arc<Watchers>,
    pub started: Instant,
}

/// Answers here if the read may be stale or this node leads; otherwise has the leader answer.
macro_rules! read {
    ($self:ident, $request:ident, $name:ident, $answer:expr) => {{
        if $request.get_ref().consistency() == Consistency::Linearizable {
            if let Some(channel) = $self.forwarder.elsewhere($request.metadata())? {
                return AdminClient::new(channel).$name(forwarded($request.into_inner())).await;
            }
            $self.replica.linearize().await.map_err(replica_status)?;
        }
        let answer = $answer;
        Ok(Response::new(answer(&$self.reads, $request.into_inner())?))
    }};
}

/// Has the leader answer, or goes on here.
macro_rules! on_leader {
    ($self:ident, $request:ident, $name:ident) => {
        if let Some(channel) = $self.forwarder.elsewhere($request.metadata())? {
            return AdminClient::new(channel).$name(forwarded($request.into_inner())).await;
        }
    };
}

impl AdminService {
    async fn change(&self, command: Command) -> Result<Outcome, Status> {
        let decided = self.tenants.execute(command, CHANGE_TIMEOUT).await?;
        match decided.outcome {
            Outcome::Refused(refusal @ Refusal::VersionConflict { .. }) => {
                Err(Status::aborted(refusal.to_string()))
            }
            Outcome::Refused(refusal @ Refusal::UnknownBudget { .. }) => {
                Err(Status::not_found(refusal.to_string()))
            }
            Outcome::Refused(refusal) => Err(Status::invalid_argument(refusal.to_string())),
            outcome => Ok(outcome),
        }
    }

    /// This node as it knows itself.
    fn own_node(&self) -> admin::Node {
        let status = self.replica.status().borrow().clone();
        let storage = self.replica.storage_stats();
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
        }
    }

    /// Asks a peer about itself.
    async fn peer_node(&self, member: &Member) -> admin::Node {
        let asked = async {
            let channel = quorate_rpc::endpoint(&member.peer.address)
                .ok()?
                .connect_timeout(Duration::from_millis(800))
                .connect_lazy();
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
        read!(self, request, list_tenants, |reads: &Reads, request| Ok::<_, Status>(reads.tenants(&request)))
    }

    async fn list_budgets(
        &self,
        request: Request<admin::ListBudgetsRequest>,
    ) -> Result<Response<admin::ListBudgetsResponse>, Status> {
        read!(self, request, list_budgets, |reads: &Reads, _| Ok::<_, Status>(reads.budgets()))
    }

    async fn list_accounts(
        &self,
        request: Request<admin::ListAccountsRequest>,
    ) -> Result<Response<admin::ListAccountsResponse>, Status> {
        read!(self, request, list_accounts, |reads: &Reads, request| reads.accounts(&request))
    }

    async fn list_reservations(
        &self,
        request: Request<admin::ListReservationsRequest>,
    ) -> Result<Response<admin::ListReservationsResponse>, Status> {
        read!(self, request, list_reservations, |reads: &Reads, request| Ok::<_, Status>(
            reads.reservations(&request)
        ))
    }

    async fn list_providers(
        &self,
        request: Request<admin::ListProvidersRequest>,
    ) -> Result<Response<admin::ListProvidersResponse>, Status> {
        read!(self, request, list_providers, |reads: &Reads, _| Ok::<_, Status>(reads.providers()))
    }

    async fn get_policy(
        &self,
        request: Request<admin::GetPolicyRequest>,
    ) -> Result<Response<PolicyDocument>, Status> {
        read!(self, request, get_policy, |reads: &Reads, _| {
            let policy = reads.replica.read(|ledger, _| ledger.policy());
            Ok::<_, Status>(PolicyDocument { version: policy.version, document: policy.document })
        })
    }

    async fn apply_policy(
        &self,
        request: Request<admin::ApplyPolicyRequest>,
    ) -> Result<Response<admin::ApplyPolicyResponse>, Status> {
        on_leader!(self, request, apply_policy);
        let request = request.into_inner();
        let policy =
            Policy::parse(&request.document).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let warnings = policy.warnings();
        if request.dry_run {
            self.replica.linearize().await.map_err(replica_status)?;
            let (version, known) =
                self.replica.read(|ledger, _| (ledger.policy_version(), ledger.policy().document));
            let changed = version == 0 || known != request.document;
            return Ok(Response::new(admin::ApplyPolicyResponse {
                version,
                changed,
                warnings,
                ..Default::default()
            }));
        }
        let command = Command::PutPolicy {
            expected_version: request.expected_version,
            rules: policy.rules(),
            document: request.document,
            staged: None,
            by: String::new(),
            comment: String::new(),
        };
        match self.change(command).await? {
            Outcome::PolicyPut { version, changed } => Ok(Response::new(admin::ApplyPolicyResponse {
                version,
                changed,
                warnings,
                ..Default::default()
            })),
            other => Err(Status::internal(format!("unexpected outcome {other:?}"))),
        }
    }

    async fn adjust_account(
        &self,
        request: Request<admin::AdjustAccountRequest>,
    ) -> Result<Response<admin::AdjustAccountResponse>, Status> {
        on_leader!(self, request, adjust_account);
        let request = request.into_inner();
        let adjustment = match request.change.ok_or_else(|| Status::invalid_argument("change: is missing"))? {
            Change::TopUpMicros(micros) => Adjustment::TopUp(convert::amount("top_up_micros", micros)?),
            Change::Reset(_) => Adjustment::Reset,
            Change::OverrideLimitMicros(micros) => {
                Adjustment::OverrideLimit(convert::amount("override_limit_micros", micros)?)
            }
            Change::ClearOverride(_) => Adjustment::ClearOverride,
        };
        let (tenant, budget, subject) = (request.tenant, request.budget, request.subject);
        let id = convert::id("id", &request.id)?;
        let command = Command::AdjustAccount {
            tenant: tenant.clone(),
            id,
            budget: budget.clone(),
            subject: subject.clone(),
            adjustment,
            by: String::new(),
        };
        self.change(command).await?;
        Ok(Response::new(admin::AdjustAccountResponse {
            account: self.reads.account(&tenant, &budget, &subject),
        }))
    }

    async fn list_objects(
        &self,
        _request: Request<admin::ListObjectsRequest>,
    ) -> Result<Response<admin::ListObjectsResponse>, Status> {
        Err(Status::unimplemented("on its way"))
    }

    async fn list_policy_versions(
        &self,
        _request: Request<admin::ListPolicyVersionsRequest>,
    ) -> Result<Response<admin::ListPolicyVersionsResponse>, Status> {
        Err(Status::unimplemented("on its way"))
    }

    async fn rollback_policy(
        &self,
        _request: Request<admin::RollbackPolicyRequest>,
    ) -> Result<Response<admin::ApplyPolicyResponse>, Status> {
        Err(Status::unimplemented("on its way"))
    }

    async fn explain_request(
        &self,
        _request: Request<admin::ExplainRequestRequest>,
    ) -> Result<Response<admin::ExplainRequestResponse>, Status> {
        Err(Status::unimplemented("on its way"))
    }

    async fn create_key(
        &self,
        _request: Request<admin::CreateKeyRequest>,
    ) -> Result<Response<admin::CreateKeyResponse>, Status> {
        Err(Status::unimplemented("on its way"))
    }

    async fn revoke_key(
        &self,
        _request: Request<admin::RevokeKeyRequest>,
    ) -> Result<Response<admin::RevokeKeyResponse>, Status> {
        Err(Status::unimplemented("on its way"))
    }

    async fn list_keys(
        &self,
        _request: Request<admin::ListKeysRequest>,
    ) -> Result<Response<admin::ListKeysResponse>, Status> {
        Err(Status::unimplemented("on its way"))
    }

    async fn list_audit(
        &self,
        _request: Request<admin::ListAuditRequest>,
    ) -> Result<Response<admin::ListAuditResponse>, Status> {
        Err(Status::unimplemented("on its way"))
    }

    async fn list_gateways(
        &self,
        _request: Request<admin::ListGatewaysRequest>,
    ) -> Result<Response<admin::ListGatewaysResponse>, Status> {
        Err(Status::unimplemented("on its way"))
    }

    async fn list_alerts(
        &self,
        _request: Request<admin::ListAlertsRequest>,
    ) -> Result<Response<admin::ListAlertsResponse>, Status> {
        Err(Status::unimplemented("on its way"))
    }

    type WatchEventsStream =
        std::pin::Pin<Box<dyn futures_util::Stream<Item = Result<admin::Event, Status>> + Send>>;

    async fn watch_events(
        &self,
        _request: Request<admin::WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        Err(Status::unimplemented("on its way"))
    }

    async fn check_invariants(
        &self,
        _request: Request<admin::CheckInvariantsRequest>,
    ) -> Result<Response<admin::CheckInvariantsResponse>, Status> {
        let reads = self.reads.clone();
        let checked = tokio::task::spawn_blocking(move || reads.invariants()).await;
        checked.map(Response::new).map_err(|error| Status::internal(error.to_string()))
    }

    async fn transfer_leadership(
        &self,
        request: Request<admin::TransferLeadershipRequest>,
    ) -> Result<Response<admin::TransferLeadershipResponse>, Status> {
        on_leader!(self, request, transfer_leadership);
        let to = request.into_inner().to_node;
        let leader =
            self.replica.transfer_leadership((to > 0).then_some(to)).await.map_err(replica_status)?;
        Ok(Response::new(admin::TransferLeadershipResponse { leader }))
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
