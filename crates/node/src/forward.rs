//! Passing calls on to the leader, once: a call that was passed on is answered here or not at all.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_replica::{Peer, Replica, Role, Status};
use quorate_rpc::admin::admin_client::AdminClient;
use quorate_rpc::budget::{Operation, Result as WireResult};
use quorate_rpc::{BY_HEADER, FORWARDED_HEADER, LEADER_HEADER, MESSAGE_MAX_BYTES, Session};
use tokio::sync::watch;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::Channel;

use crate::error::Undecided;

const OPEN_TIMEOUT: Duration = Duration::from_secs(2);
/// A little less than the client's own.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(4);
const FORWARD_CHANGE_TIMEOUT: Duration = Duration::from_secs(28);

#[derive(Debug)]
pub(crate) struct Forwarder {
    replica: Replica,
    status: watch::Receiver<Status>,
    /// Held while a session is opened, so that callers do not open one each.
    session: tokio::sync::Mutex<Option<Arc<Session>>>,
    channel: Mutex<Option<(String, Channel)>>,
}

impl Forwarder {
    pub fn new(replica: Replica) -> Self {
        let status = replica.status();
        Self { replica, status, session: tokio::sync::Mutex::default(), channel: Mutex::default() }
    }

    pub fn leads(&self) -> bool {
        self.status.borrow().role == Role::Leader
    }

    pub fn leader(&self) -> Option<Peer> {
        self.status.borrow().leader.clone()
    }

    /// Sends the operation to the leader over this node's own session with it.
    pub async fn execute(&self, operation: Operation, timeout: Duration) -> Result<WireResult, Undecided> {
        let ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let sent = async {
            let session = self.session().await?;
            session.call(operation).await.map_err(|_| Undecided::NotLeader(self.leader()))
        };
        tokio::time::timeout(timeout, sent).await.unwrap_or(Err(Undecided::TimedOut(ms)))
    }

    async fn session(&self) -> Result<Arc<Session>, Undecided> {
        let leader = self
            .leader()
            .filter(|leader| leader.id != self.replica.node_id())
            .ok_or(Undecided::NotLeader(None))?;
        let mut slot = self.session.lock().await;
        if let Some(session) =
            slot.as_ref().filter(|session| !session.is_over() && session.address() == leader.address)
        {
            return Ok(session.clone());
        }
        let channel =
            self.channel(&leader.address).ok_or_else(|| Undecided::NotLeader(Some(leader.clone())))?;
        let opening = Session::open(channel, leader.address.clone(), true);
        let opened = tokio::time::timeout(OPEN_TIMEOUT, opening).await.ok().and_then(Result::ok);
        let session = Arc::new(opened.ok_or(Undecided::NotLeader(Some(leader)))?);
        *slot = Some(session.clone());
        Ok(session)
    }

    /// A channel to the leader for an admin call; `None` if this node has to answer itself.
    pub fn elsewhere(&self, metadata: &MetadataMap) -> Result<Option<Channel>, Undecided> {
        if self.leads() {
            return Ok(None);
        }
        let leader = self.leader().filter(|leader| leader.id != self.replica.node_id());
        if metadata.contains_key(FORWARDED_HEADER) {
            return Err(Undecided::NotLeader(leader));
        }
        let leader = leader.ok_or(Undecided::NotLeader(None))?;
        self.channel(&leader.address).map(Some).ok_or(Undecided::NotLeader(Some(leader)))
    }

    fn channel(&self, address: &str) -> Option<Channel> {
        let mut known = self.channel.lock();
        if let Some((_, channel)) = known.as_ref().filter(|(known, _)| known == address) {
            return Some(channel.clone());
        }
        let channel = self.replica.channel(address).ok()?;
        *known = Some((address.to_owned(), channel.clone()));
        Some(channel)
    }

    /// Tells the caller who leads.
    pub fn add_leader(&self, metadata: &mut MetadataMap) {
        if let Some(address) = self.leader().and_then(|leader| MetadataValue::try_from(leader.address).ok()) {
            metadata.insert(LEADER_HEADER, address);
        }
    }
}

/// A client for what is passed on: policies are large.
pub(crate) fn admin_client(channel: Channel) -> AdminClient<Channel> {
    AdminClient::new(channel)
        .max_decoding_message_size(MESSAGE_MAX_BYTES)
        .max_encoding_message_size(MESSAGE_MAX_BYTES)
}

/// Marks a request as passed on.
pub(crate) fn forwarded<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert(FORWARDED_HEADER, MetadataValue::from_static("1"));
    request.set_timeout(FORWARD_TIMEOUT);
    request
}

/// The same for a change: who asked for it goes along, and it may take its time.
pub(crate) fn forwarded_change<T>(request: tonic::Request<T>) -> tonic::Request<T> {
    forwarded_for(request, FORWARD_CHANGE_TIMEOUT)
}

pub(crate) fn forwarded_for<T>(request: tonic::Request<T>, timeout: Duration) -> tonic::Request<T> {
    let by = request.metadata().get(BY_HEADER).cloned();
    let mut request = forwarded(request.into_inner());
    if let Some(by) = by {
        request.metadata_mut().insert(BY_HEADER, by);
    }
    request.set_timeout(timeout);
    request
}
