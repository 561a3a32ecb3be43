//! What peers ask of this node.

use std::io::Write as _;
use std::sync::Arc;

use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt as _};
use openraft::raft::{AppendEntriesRequest, TransferLeaderRequest, VoteRequest};
use quorate_rpc::raft::raft_server::Raft as RaftService;
use quorate_rpc::raft::{IdentifyRequest, IdentifyResponse, RaftMessage, RaftMessageKind as Kind};
use tonic::{Request, Response, Status, Streaming};

use crate::replica::Replica;
use crate::snapshot::SnapshotFile;
use crate::types::{LogId, Membership, Snapshot, SnapshotMeta, TypeConfig, Vote, decode, encode};

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

    fn answer<T: serde::Serialize>(
        &self,
        to: &RaftMessage,
        value: &T,
    ) -> Result<Response<RaftMessage>, Status> {
        let payload = encode(value).map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(self.replica.inner.sender.message(to.from_node, to.kind(), payload)))
    }

    /// A node that lost its folder has forgotten whom it voted for: it may vote again once it has caught up.
    fn may_vote(&self) -> Result<(), Status> {
        if self.replica.is_rebuilding() {
            return Err(Status::unavailable(
                "this node is being rebuilt and does not vote until it has caught up",
            ));
        }
        Ok(())
    }
}

fn bad(error: std::io::Error) -> Status {
    Status::invalid_argument(format!("cannot read the message: {error}; do all nodes run the same version?"))
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
        match message.kind() {
            Kind::Append => {
                let append: AppendEntriesRequest<TypeConfig> = decode(&message.payload).map_err(bad)?;
                self.answer(&message, &raft.append_entries(append).await.map_err(stopped)?)
            }
            Kind::Vote => {
                self.may_vote()?;
                let vote: VoteRequest<TypeConfig> = decode(&message.payload).map_err(bad)?;
                self.answer(&message, &raft.vote(vote).await.map_err(stopped)?)
            }
            Kind::PreVote => {
                self.may_vote()?;
                let vote: VoteRequest<TypeConfig> = decode(&message.payload).map_err(bad)?;
                self.answer(&message, &raft.pre_vote(vote).await.map_err(stopped)?)
            }
            Kind::TransferLeader => {
                let transfer: TransferLeaderRequest<TypeConfig> = decode(&message.payload).map_err(bad)?;
                self.answer(&message, &raft.handle_transfer_leader(transfer).await.map_err(stopped)?)
            }
            kind => Err(Status::invalid_argument(format!("{kind:?} is no single call"))),
        }
    }

    type AppendStream = BoxStream<'static, Result<RaftMessage, Status>>;

    async fn append(
        &self,
        request: Request<Streaming<RaftMessage>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let mut messages = request.into_inner();
        let Some(first) = messages.message().await? else {
            return Ok(Response::new(futures_util::stream::empty().boxed()));
        };
        self.check(&first)?;
        let service = self.clone();
        let to = first.from_node;
        let appends = decoded(first, messages, service.clone());
        let results = self.replica.inner.raft.stream_append(appends);
        let responses = results.map(move |result| {
            let payload =
                encode(&result.map_err(stopped)?).map_err(|error| Status::internal(error.to_string()))?;
            Ok(service.replica.inner.sender.message(to, Kind::Append, payload))
        });
        Ok(Response::new(responses.boxed()))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<RaftMessage>>,
    ) -> Result<Response<RaftMessage>, Status> {
        let mut messages = request.into_inner();
        let first = messages.message().await?.ok_or_else(|| Status::invalid_argument("an empty snapshot"))?;
        self.check(&first)?;
        let (vote, last_log_id, last_membership): (Vote, Option<LogId>, Membership) =
            decode(&first.payload).map_err(bad)?;
        let path = self.replica.inner.state_machine.folder().partial_path();
        if let Err(status) = receive(&path, &mut messages).await {
            // What is left of the file goes at the next start at the latest.
            let _ = std::fs::remove_file(&path);
            return Err(status);
        }
        let meta = SnapshotMeta { last_log_id, last_membership };
        let snapshot = Snapshot { meta, snapshot: SnapshotFile { path } };
        let response =
            self.replica.inner.raft.install_full_snapshot(vote, snapshot).await.map_err(stopped)?;
        self.answer(&first, &response)
    }

    async fn identify(
        &self,
        request: Request<IdentifyRequest>,
    ) -> Result<Response<IdentifyResponse>, Status> {
        drop(request);
        let inner = &self.replica.inner;
        Ok(Response::new(IdentifyResponse {
            cluster: inner.sender.cluster.to_string(),
            node_id: inner.sender.node_id,
            incarnation: inner.incarnation.to_vec().into(),
            initialized: self.replica.is_initialized().await,
            has_leader: self.replica.status().borrow().leader.is_some(),
        }))
    }
}

/// The appends of one stream; ends at the first message that is none.
fn decoded(
    first: RaftMessage,
    rest: Streaming<RaftMessage>,
    service: Service,
) -> impl Stream<Item = AppendEntriesRequest<TypeConfig>> + Send {
    let messages = futures_util::stream::once(std::future::ready(Ok(first))).chain(rest);
    let service = Arc::new(service);
    messages
        .map(move |message| {
            let message: RaftMessage = message.ok()?;
            service.check(&message).ok()?;
            decode(&message.payload).ok()
        })
        .take_while(|append| std::future::ready(append.is_some()))
        .filter_map(std::future::ready)
}

/// Writes the chunks to a file and syncs it. Its checksum is tested before it is used.
async fn receive(path: &std::path::Path, messages: &mut Streaming<RaftMessage>) -> Result<(), Status> {
    let failed = |error: std::io::Error| Status::internal(format!("snapshot: {error}"));
    let mut file = std::fs::File::create(path).map_err(failed)?;
    while let Some(message) = messages.message().await? {
        match message.kind() {
            Kind::SnapshotChunk => {
                tokio::task::block_in_place(|| file.write_all(&message.payload)).map_err(failed)?
            }
            Kind::SnapshotEnd => return tokio::task::block_in_place(|| file.sync_all()).map_err(failed),
            kind => return Err(Status::invalid_argument(format!("{kind:?} inside a snapshot"))),
        }
    }
    Err(Status::aborted("the snapshot ended too early"))
}
