//! How this node talks to its peers: openraft's messages in bincode, inside the envelope of `quorate.raft.v1`.

use std::future::{Future, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt as _};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use quorate_rpc::raft::raft_client::RaftClient;
use quorate_rpc::raft::{ClockRequest, RaftMessage, RaftMessageKind as Kind};
use quorate_rpc::tls::Security;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::Status;
use tonic::transport::Channel;

use crate::append_stream::{answered_in_time, begun, commits_with_entries, lend, until_purged};
use crate::snapshot::SnapshotFile;
use crate::snapshot_stream::send_snapshot;
use crate::types::{Snapshot, TypeConfig, Vote, decode, encode};

type C = TypeConfig;

/// Larger than any append: `max_payload_entries` of the largest entries.
pub(crate) const MESSAGE_MAX_BYTES: usize = 16 << 20;
const OPEN_TIMEOUT: Duration = Duration::from_secs(1);

/// Who we are: stands in every message, so that a wrong address is noticed.
#[derive(Debug, Clone)]
pub(crate) struct Sender {
    pub cluster: Arc<str>,
    pub group: u32,
    pub node_id: u64,
    /// How the peers are spoken to.
    pub security: Security,
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
        Connection::new(self.sender.clone(), target, &node.addr)
    }
}

/// One peer. Connects when first used, and again whenever the connection was lost.
#[derive(Debug)]
pub(crate) struct Connection {
    sender: Sender,
    target: u64,
    /// `Err`: the address is none; said again at every call.
    channel: Result<Channel, String>,
}

impl Connection {
    pub fn new(sender: Sender, target: u64, address: &str) -> Self {
        let channel = quorate_rpc::channel(address, &sender.security);
        Self { sender, target, channel: channel.map_err(|error| error.to_string()) }
    }

    fn client(&self) -> Result<RaftClient<Channel>, Status> {
        let client = RaftClient::new(self.channel.clone().map_err(Status::invalid_argument)?);
        Ok(client.max_decoding_message_size(MESSAGE_MAX_BYTES).max_encoding_message_size(MESSAGE_MAX_BYTES))
    }

    /// One question, one answer.
    pub async fn ask<Q: Serialize, R: DeserializeOwned>(
        &self,
        kind: Kind,
        request: &Q,
        timeout: Duration,
    ) -> Result<R, Status> {
        let payload = encode(request).map_err(|error| Status::internal(error.to_string()))?;
        let mut client = self.client()?;
        let response = within(timeout, client.call(self.sender.message(self.target, kind, payload))).await?;
        decode(&response.into_inner().payload).map_err(|error| Status::internal(error.to_string()))
    }

    /// The peer's wall clock in milliseconds; 0 if it does not say.
    pub async fn clock(&self, timeout: Duration) -> Result<u64, Status> {
        let mut client = self.client()?;
        let request = ClockRequest { cluster: self.sender.cluster.to_string(), to_node: self.target };
        Ok(within(timeout, client.clock(request)).await?.into_inner().clock_ms)
    }

    async fn call<Q: Serialize, R: DeserializeOwned>(
        &self,
        kind: Kind,
        request: &Q,
        option: &RPCOption,
    ) -> Result<R, RPCError<C>> {
        Ok(self.ask(kind, request, option.hard_ttl()).await.map_err(|status| Unreachable::new(&status))?)
    }
}

async fn within<T>(timeout: Duration, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let answered = tokio::time::timeout(timeout, call).await;
    answered.unwrap_or_else(|_| Err(Status::deadline_exceeded("the peer did not answer in time")))
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
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<C>, RPCError<C>>>, RPCError<C>>>
    where
        S: Stream<Item = AppendEntriesRequest<C>> + Send + Unpin + 'static,
    {
        let (sender, target) = (self.sender.clone(), self.target);
        let (input, lender) = lend(input);
        // An append that cannot be encoded would end the stream; the log store has bounded every entry before.
        let encoded = commits_with_entries(until_purged(input))
            .map(|request| encode(&request).ok())
            .take_while(|encoded| ready(encoded.is_some()));
        let sent = Arc::new(AtomicU64::new(0));
        let counted = sent.clone();
        let requests = encoded.filter_map(ready).map(move |payload| {
            counted.fetch_add(1, Ordering::Relaxed);
            sender.message(target, Kind::Append, payload)
        });
        let begun = begun(requests.boxed());
        Box::pin(async move {
            let Some(requests) = begun.await else {
                return Ok(futures_util::stream::empty().boxed());
            };
            let opened = async {
                let mut client = self.client()?;
                within(option.hard_ttl().max(OPEN_TIMEOUT), client.append(requests)).await
            };
            let responses = opened.await.map_err(|status| Unreachable::new(&status))?.into_inner();
            let results = answered_in_time(responses, sent).map(move |response| {
                let _until_the_answers_go = &lender;
                let response = response.map_err(|status| Unreachable::new(&status))?;
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
        let client = self.client().map_err(|status| Unreachable::new(&status))?;
        tokio::select! {
            closed = cancel => Err(closed.into()),
            sent = send_snapshot(client, &self.sender, self.target, vote, snapshot) => {
                Ok(sent.map_err(|status| Unreachable::new(&status))?)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream::pending;
    use tokio::net::TcpListener;

    use super::*;

    /// They count in `alive`, as long as they are there.
    fn requests_that_never_end(
        alive: &Arc<()>,
    ) -> impl Stream<Item = AppendEntriesRequest<C>> + Unpin + use<> {
        let (vote, alive) = (Vote::new_committed(1, 1), alive.clone());
        let request =
            AppendEntriesRequest { vote, prev_log_id: None, entries: Vec::new(), leader_commit: None };
        let first = futures_util::stream::once(ready(request));
        first.chain(pending()).inspect(move |_| _ = &alive).boxed()
    }

    #[tokio::test]
    async fn a_stream_that_was_given_up_is_not_read_any_more() {
        // Somebody who takes connections and says nothing, as a process that was stopped.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let accepted = tokio::spawn(async move { listener.accept().await.unwrap().0 });
        let sender = Sender { cluster: "test".into(), group: 0, node_id: 1, security: Security::Plain };
        let mut connection = Connection::new(sender, 2, &address);
        let alive = Arc::new(());
        let requests = requests_that_never_end(&alive);
        let opened = connection.stream_append(requests, RPCOption::new(Duration::ZERO)).await;
        assert!(opened.is_err());
        assert_eq!(Arc::strong_count(&alive), 1, "the transport still holds the requests");
        drop(opened);
        accepted.await.unwrap();
    }
}
