//! How this node talks to its peers: openraft's messages in bincode, inside the envelope of `quorate.raft.v1`.

use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
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
use tokio::time::Instant;
use tonic::Status;
use tonic::transport::Channel;

use crate::snapshot::SnapshotFile;
use crate::snapshot_stream::send_snapshot;
use crate::types::{Snapshot, TypeConfig, Vote, decode, encode};

type C = TypeConfig;

/// Larger than any append: `max_payload_entries` of the largest entries.
pub(crate) const MESSAGE_MAX_BYTES: usize = 16 << 20;
const OPEN_TIMEOUT: Duration = Duration::from_secs(1);
/// A peer writes and syncs before it answers.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// How much later than the leader a follower may apply, when nothing else is sent to it.
const COMMIT_WAIT: Duration = Duration::from_millis(2);

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
        // An append that cannot be encoded would end the stream; the log store has bounded every entry before.
        let encoded = commits_with_entries(input)
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
            let results = answered_in_time(responses, sent).map(|response| {
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

/// The same, when there is something to send; `None`: there never will be. The peer answers to the first request, and after
/// errors Raft lets that wait for longer than the peer has to answer: so its time counts from there.
fn begun<T: Send + 'static>(mut requests: BoxStream<'static, T>) -> BoxFuture<'static, Option<Begun<T>>> {
    Box::pin(async move {
        let first = requests.next().await?;
        Some(Begun(futures_util::stream::once(ready(first)).chain(requests).boxed()))
    })
}

/// A type of its own: the compiler does not see through the boxed one inside tonic's futures.
struct Begun<T>(BoxStream<'static, T>);

impl<T> Stream for Begun<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        self.0.as_mut().poll_next(context)
    }
}

/// One answer comes for each request. Raft waits for it without end, and sends nothing else meanwhile; so an answer that
/// was lost on the way, or will never be given, is an error after [`ANSWER_TIMEOUT`], and Raft asks anew where the peer is.
fn answered_in_time<S, T>(answers: S, sent: Arc<AtomicU64>) -> impl Stream<Item = Result<T, Status>> + Send
where
    S: Stream<Item = Result<T, Status>> + Send + Unpin,
    T: Send,
{
    futures_util::stream::unfold(Some((answers, 0)), move |state| {
        let sent = sent.clone();
        async move {
            let (mut answers, answered) = state?;
            loop {
                let asked = sent.load(Ordering::Relaxed);
                match tokio::time::timeout(ANSWER_TIMEOUT, answers.next()).await {
                    Ok(Some(answer)) => return Some((answer, Some((answers, answered + 1)))),
                    Ok(None) => return None,
                    // Asked when the wait began, and not answered yet.
                    Err(_) if asked > answered => {
                        return Some((Err(Status::deadline_exceeded("no answer to an append")), None));
                    }
                    Err(_) => {}
                }
            }
        }
    })
}

/// Lets news of a commit that comes without entries wait for the next entries, or for [`COMMIT_WAIT`]. Where one operation
/// follows the other, half of all messages say nothing else, and each wakes three threads on either side. A request that
/// is left out is acknowledged with the next, which goes at least as far.
fn commits_with_entries<S>(input: S) -> impl Stream<Item = AppendEntriesRequest<C>> + Send
where
    S: Stream<Item = AppendEntriesRequest<C>> + Send + Unpin + 'static,
{
    // The first one of a stream may be a question: where does the peer's log end?
    futures_util::stream::unfold((input.fuse(), true), |(mut input, first)| async move {
        let mut request = input.next().await?;
        if !first {
            let deadline = Instant::now() + COMMIT_WAIT;
            while request.entries.is_empty() {
                match tokio::time::timeout_at(deadline, input.next()).await {
                    Ok(Some(next)) => request = next,
                    Ok(None) | Err(_) => break,
                }
            }
        }
        Some((request, (input, false)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_peer_has_its_time_from_the_first_request_on() {
        let late = futures_util::stream::once(async {
            tokio::time::sleep(10 * OPEN_TIMEOUT).await;
            7
        });
        let began = Instant::now();
        let requests = begun(late.chain(futures_util::stream::iter([8])).boxed()).await.unwrap();
        assert!(began.elapsed() >= 10 * OPEN_TIMEOUT);
        let asked = Instant::now();
        assert_eq!(requests.collect::<Vec<i32>>().await, [7, 8]);
        assert_eq!(asked.elapsed(), Duration::ZERO);
        assert!(begun(futures_util::stream::empty::<i32>().boxed()).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_without_an_answer_ends_the_stream_and_silence_without_a_request_does_not() {
        let sent = Arc::new(AtomicU64::new(1));
        let answers = futures_util::stream::iter([Ok(7)]).chain(futures_util::stream::pending());
        let mut answers = Box::pin(answered_in_time(answers, sent.clone()));
        assert_eq!(answers.next().await.unwrap().unwrap(), 7);
        let quiet = tokio::time::timeout(10 * ANSWER_TIMEOUT, answers.next()).await;
        assert!(quiet.is_err(), "{quiet:?}");
        sent.fetch_add(1, Ordering::Relaxed);
        let status = answers.next().await.unwrap().unwrap_err();
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
        assert!(answers.next().await.is_none());
    }
}
