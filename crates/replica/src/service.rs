//! What peers ask of this node.

use std::future::{Future, ready};
use std::time::Instant;

use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt as _};
use openraft::raft::{AppendEntriesRequest, TransferLeaderRequest, VoteRequest};
use quorate_rpc::raft::raft_server::Raft as RaftService;
use quorate_rpc::raft::{
    ClockRequest, ClockResponse, IdentifyRequest, IdentifyResponse, RaftMember, RaftMessage,
    RaftMessageKind as Kind,
};
use serde::de::DeserializeOwned;
use tonic::{Request, Response, Status, Streaming};

use crate::membership::{LOG_VERSION, MembershipQuestion};
use crate::replica::Replica;
use crate::snapshot_stream::receive_snapshot;
use crate::status::Member;
use crate::types::{Snapshot, TypeConfig, Vote, decode, encode};

#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub replica: Replica,
}

impl Service {
    /// Refuses what was meant for somebody else.
    fn check(&self, message: &RaftMessage) -> Result<(), Status> {
        let me = &self.replica.inner.sender;
        if message.cluster != *me.cluster || message.group != me.group || message.to_node != me.node_id {
            return Err(Status::failed_precondition(format!(
                "this is node {} of cluster {}, group {}; the message is for node {} of cluster {}, group {}",
                me.node_id, me.cluster, me.group, message.to_node, message.cluster, message.group
            )));
        }
        Ok(())
    }

    /// An append that this node may take: see `standing.rs`.
    fn read_append(&self, message: &RaftMessage) -> Result<AppendEntriesRequest<TypeConfig>, Status> {
        self.check(message)?;
        let append: AppendEntriesRequest<TypeConfig> = read(message)?;
        self.replica.may_append(&append.vote)?;
        self.heard();
        Ok(append)
    }

    /// A leader still thinks of this node.
    fn heard(&self) {
        *self.replica.inner.heard.lock() = Instant::now();
    }

    /// A request for a vote that this node may answer.
    fn read_vote(&self, message: &RaftMessage) -> Result<VoteRequest<TypeConfig>, Status> {
        self.replica.may_vote()?;
        read(message)
    }

    /// An idle stream from a peer would hold up the end of the server.
    fn stopping(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut stopping = self.replica.inner.stopping.subscribe();
        async move {
            // An error says that the replica is gone.
            let _ = stopping.wait_for(|stopping| *stopping).await;
        }
    }

    async fn first(&self, messages: &mut Streaming<RaftMessage>) -> Result<Option<RaftMessage>, Status> {
        tokio::select! {
            first = messages.message() => first,
            () = self.stopping() => Err(Status::unavailable("this node is stopping")),
        }
    }

    fn answer<T: serde::Serialize>(&self, to: &RaftMessage, value: &T) -> Result<RaftMessage, Status> {
        let payload = encode(value).map_err(|error| Status::internal(error.to_string()))?;
        Ok(self.replica.inner.sender.message(to.from_node, to.kind(), payload))
    }
}

fn read<T: DeserializeOwned>(message: &RaftMessage) -> Result<T, Status> {
    decode(&message.payload).map_err(|error| {
        Status::invalid_argument(format!(
            "cannot read {:?}: {error}; do all nodes run the same version?",
            message.kind()
        ))
    })
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("raft: {error}"))
}

#[tonic::async_trait]
impl RaftService for Service {
    async fn call(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        let message = request.into_inner();
        self.check(&message)?;
        let raft = &self.replica.inner.raft;
        let answer = match message.kind() {
            Kind::Append => {
                let append = self.read_append(&message)?;
                self.answer(&message, &raft.append_entries(append).await.map_err(stopped)?)
            }
            Kind::Vote => {
                let vote = self.read_vote(&message)?;
                self.answer(&message, &raft.vote(vote).await.map_err(stopped)?)
            }
            Kind::PreVote => {
                let vote = self.read_vote(&message)?;
                self.answer(&message, &raft.pre_vote(vote).await.map_err(stopped)?)
            }
            Kind::TransferLeader => {
                self.replica.may_vote()?;
                self.replica.may_take_over()?;
                let transfer: TransferLeaderRequest<TypeConfig> = read(&message)?;
                self.answer(&message, &raft.handle_transfer_leader(transfer).await.map_err(stopped)?)
            }
            Kind::Found => self.answer(&message, &self.replica.be_founded(&read(&message)?).await?),
            Kind::Rejoin => {
                self.answer(&message, &self.replica.take_in(message.from_node, read(&message)?).await)
            }
            Kind::Invite => self.answer(&message, &self.replica.be_invited(&read(&message)?)?),
            Kind::Membership => {
                let MembershipQuestion {} = read(&message)?;
                self.answer(&message, &self.replica.membership_of(message.from_node).await)
            }
            kind => Err(Status::invalid_argument(format!("{kind:?} is no single call"))),
        };
        answer.map(Response::new)
    }

    type AppendStream = BoxStream<'static, Result<RaftMessage, Status>>;

    async fn append(
        &self,
        request: Request<Streaming<RaftMessage>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let mut messages = request.into_inner();
        let Some(first) = self.first(&mut messages).await? else {
            return Ok(Response::new(futures_util::stream::empty().boxed()));
        };
        self.read_append(&first)?;
        let (service, to) = (self.clone(), first.from_node);
        let results = self.replica.inner.raft.stream_append(appends(first, messages, self.clone()));
        let responses = results.map(move |result| {
            let payload =
                encode(&result.map_err(stopped)?).map_err(|error| Status::internal(error.to_string()))?;
            Ok(service.replica.inner.sender.message(to, Kind::Append, payload))
        });
        Ok(Response::new(responses.take_until(self.stopping()).boxed()))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<RaftMessage>>,
    ) -> Result<Response<RaftMessage>, Status> {
        let mut messages = request.into_inner();
        let first = self.first(&mut messages).await?;
        let first = first.ok_or_else(|| Status::invalid_argument("an empty snapshot"))?;
        self.check(&first)?;
        let vote: Vote = read(&first)?;
        self.replica.may_append(&vote)?;
        self.heard();
        let folder = self.replica.inner.state_machine.folder();
        let (meta, file, partial) = tokio::select! {
            received = receive_snapshot(folder, &mut messages) => received?,
            () = self.stopping() => return Err(Status::unavailable("this node is stopping")),
        };
        let raft = self.replica.inner.raft.clone();
        // To its end, whether the sender waits for it or not: the file is raft's until then.
        let installing = tokio::spawn(async move {
            let installed = raft.install_full_snapshot(vote, Snapshot { meta, snapshot: file }).await;
            drop(partial);
            installed
        });
        let installed = installing.await.map_err(|error| Status::internal(error.to_string()))?;
        self.heard();
        self.answer(&first, &installed.map_err(stopped)?).map(Response::new)
    }

    async fn clock(&self, request: Request<ClockRequest>) -> Result<Response<ClockResponse>, Status> {
        let ClockRequest { cluster, to_node } = request.into_inner();
        let (me, clock) = (&self.replica.inner.sender, &self.replica.inner.clocks.clock);
        if cluster != *me.cluster || to_node != me.node_id {
            return Err(Status::failed_precondition(format!(
                "this is node {} of cluster {}; the question is for node {to_node} of cluster {cluster}",
                me.node_id, me.cluster
            )));
        }
        Ok(Response::new(ClockResponse { clock_ms: u64::try_from(clock.wall_ms()).unwrap_or(0) }))
    }

    async fn identify(
        &self,
        request: Request<IdentifyRequest>,
    ) -> Result<Response<IdentifyResponse>, Status> {
        drop(request);
        let inner = &self.replica.inner;
        let members = self.replica.status().borrow().members.clone().into_iter();
        let member = |member: Member| RaftMember { id: member.peer.id, address: member.peer.address };
        Ok(Response::new(IdentifyResponse {
            cluster: inner.sender.cluster.to_string(),
            node_id: inner.sender.node_id,
            incarnation: inner.incarnation.to_vec().into(),
            initialized: self.replica.is_initialized().await,
            has_leader: self.replica.hears_leader(),
            log_version: LOG_VERSION,
            members: members.map(member).collect(),
        }))
    }
}

/// The appends of one stream; ends at the first message that is none.
fn appends(
    first: RaftMessage,
    rest: Streaming<RaftMessage>,
    service: Service,
) -> impl Stream<Item = AppendEntriesRequest<TypeConfig>> + Send {
    let stopping = service.stopping();
    let messages = futures_util::stream::once(ready(Ok(first))).chain(rest.take_until(stopping));
    let read = messages.map(move |message| service.read_append(&message.ok()?).ok());
    read.take_while(|append| ready(append.is_some())).filter_map(ready)
}
