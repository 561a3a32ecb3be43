//! How this node talks to its peers: openraft's messages in bincode, inside the envelope of `quorate.raft.v1`.

use std::future::Future;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use quorate_rpc::raft::raft_client::RaftClient;
use quorate_rpc::raft::{RaftMessage, RaftMessageKind as Kind};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::snapshot::SnapshotFile;
use crate::types::{Snapshot, TypeConfig, Vote, decode, encode};

type C = TypeConfig;

/// Larger than any append: see the log store's bound.
pub(crate) const MESSAGE_MAX_BYTES: usize = 16 << 20;
const CHUNK_BYTES: usize = 256 * 1024;
/// A snapshot is read and sent by a thread of its own; so many chunks wait for the wire.
const CHUNKS_QUEUED: usize = 4;

/// Who we are: stands in every message, so that a wrong address is noticed.
#[derive(Debug, Clone)]
pub(crate) struct Sender {
    pub cluster: Arc<str>,
    pub group: u32,
    pub node_id: u64,
}

impl Sender {
    pub fn message(&self, to_node: u64, kind: Kind, payload: Vec<u8>) -> RaftMessage {
        RaftMessage {
            cluster: self.cluster.to_string(),
            group: self.group,
            from_node: self.node_id,
            to_node,
            kind: kind.into(),
            payload: payload.into(),
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Network {
    pub sender: Sender,
}

impl RaftNetworkFactory<C> for Network {
    type Network = Connection;

    async fn new_client(&mut self, target: u64, node: &openraft::BasicNode) -> Connection {
        let channel = quorate_rpc::endpoint(&node.addr).map(|endpoint| endpoint.connect_lazy());
        Connection {
            sender: self.sender.clone(),
            target,
            channel: channel.map_err(|error| error.to_string()),
        }
    }
}

/// One peer.
#[derive(Debug)]
pub(crate) struct Connection {
    sender: Sender,
    target: u64,
    /// `Err`: the address is none; said again at every call.
    channel: Result<Channel, String>,
}

impl Connection {
    fn client(&self) -> Result<RaftClient<Channel>, Unreachable<C>> {
        let channel = self.channel.clone().map_err(|error| unreachable(&Status::invalid_argument(error)))?;
        Ok(RaftClient::new(channel)
            .max_decoding_message_size(MESSAGE_MAX_BYTES)
            .max_encoding_message_size(MESSAGE_MAX_BYTES))
    }

    async fn call<Q: Serialize, R: DeserializeOwned>(
        &self,
        kind: Kind,
        request: &Q,
        option: &RPCOption,
    ) -> Result<R, RPCError<C>> {
        let payload = encode(request).map_err(|error| Unreachable::new(&error))?;
        let message = self.sender.message(self.target, kind, payload);
        let mut client = self.client()?;
        let answered = tokio::time::timeout(option.hard_ttl(), client.call(message)).await;
        let response = match answered {
            Ok(response) => response.map_err(|status| unreachable(&status))?.into_inner(),
            Err(_) => {
                return Err(unreachable(&Status::deadline_exceeded("the peer did not answer in time")).into());
            }
        };
        Ok(decode(&response.payload).map_err(|error| Unreachable::new(&error))?)
    }
}

fn unreachable(status: &Status) -> Unreachable<C> {
    Unreachable::new(status)
}

impl RaftNetworkV2<C> for Connection {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<C>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<C>, RPCError<C>> {
        self.call(Kind::Append, &rpc, &option).await
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> futures_util::future::BoxFuture<
        's,
        Result<futures_util::stream::BoxStream<'s, Result<StreamAppendResult<C>, RPCError<C>>>, RPCError<C>>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<C>> + Send + Unpin + 'static,
    {
        Box::pin(async move {
            let (sender, target) = (self.sender.clone(), self.target);
            // An append that cannot be encoded ends the stream; the log store has bounded every entry before.
            let requests = input
                .map(|request| encode(&request))
                .take_while(|encoded| std::future::ready(encoded.is_ok()))
                .filter_map(|encoded| std::future::ready(encoded.ok()))
                .map(move |payload| sender.message(target, Kind::Append, payload));
            let mut client = self.client()?;
            let opened =
                tokio::time::timeout(option.hard_ttl().max(Duration::from_secs(1)), client.append(requests))
                    .await;
            let responses = match opened {
                Ok(response) => response.map_err(|status| unreachable(&status))?.into_inner(),
                Err(_) => {
                    return Err(
                        unreachable(&Status::deadline_exceeded("the peer did not answer in time")).into()
                    );
                }
            };
            let results = responses.map(|response| {
                let response = response.map_err(|status| unreachable(&status))?;
                decode(&response.payload).map_err(|error| Unreachable::new(&error).into())
            });
            Ok(results.boxed())
        })
    }

    async fn vote(&mut self, rpc: VoteRequest<C>, option: RPCOption) -> Result<VoteResponse<C>, RPCError<C>> {
        self.call(Kind::Vote, &rpc, &option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<C>,
        option: RPCOption,
    ) -> Result<VoteResponse<C>, RPCError<C>> {
        self.call(Kind::PreVote, &rpc, &option).await
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<C>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<C>, RPCError<C>> {
        self.call(Kind::TransferLeader, &request, &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<C>, StreamingError<C>> {
        let head = encode(&(vote, &snapshot.meta.last_log_id, &snapshot.meta.last_membership))
            .map_err(|error| Unreachable::new(&error))?;
        let (chunks, queue) = tokio::sync::mpsc::channel(CHUNKS_QUEUED);
        let (sender, target, path) = (self.sender.clone(), self.target, snapshot.snapshot.path);
        let reader = tokio::task::spawn_blocking(move || -> std::io::Result<()> {
            let mut file = std::fs::File::open(path)?;
            let send = |kind, payload| chunks.blocking_send(sender.message(target, kind, payload)).is_ok();
            let mut open = send(Kind::SnapshotBegin, head);
            while open {
                let mut chunk = Vec::with_capacity(CHUNK_BYTES);
                if (&mut file).take(CHUNK_BYTES as u64).read_to_end(&mut chunk)? == 0 {
                    send(Kind::SnapshotEnd, Vec::new());
                    return Ok(());
                }
                open = send(Kind::SnapshotChunk, chunk);
            }
            Ok(())
        });
        let mut client = self.client()?;
        let request = Request::new(tokio_stream::wrappers::ReceiverStream::new(queue));
        let response = tokio::select! {
            closed = cancel => return Err(closed.into()),
            response = client.install_snapshot(request) => response.map_err(|status| unreachable(&status))?.into_inner(),
        };
        reader.await.map_err(|error| Unreachable::new(&error))?.map_err(|error| Unreachable::new(&error))?;
        Ok(decode(&response.payload).map_err(|error| Unreachable::new(&error))?)
    }
}
