//! The replicated ledger of one group: propose batches, read what is applied, follow who leads.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use openraft::Instant as _;
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{ClientWriteError, LinearizableReadError, RaftError};
use openraft::raft::ReadPolicy;
use quorate_ledger::{Command, Ledger, Outcome, TimestampMs};
use quorate_rpc::ClientError;
use quorate_rpc::raft::raft_server::RaftServer;
use serde::Serialize;
use std::sync::Arc;
use tokio::sync::watch;
use tonic::Status as Refused;
use tonic::transport::Channel;

use crate::clock::ClockReport;
use crate::error::{ProposeError, ReplicaError};
use crate::network::MESSAGE_MAX_BYTES;
use crate::open::Inner;
use crate::service::Service;
use crate::size::BATCH_MAX_BYTES;
use crate::standing::Standing;
use crate::status::{Role, Status, peer_of};
use crate::types::{Batch, Vote};

const READ_TIMEOUT: Duration = Duration::from_secs(3);
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(3);

/// Where something stands in the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ReadPoint {
    pub term: u64,
    pub index: u64,
}

/// A batch that a quorum has on disk and this node has applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    pub term: u64,
    pub index: u64,
    /// The leader's time, see [`Replica::now`]. The ledger may have used a later one.
    pub at: TimestampMs,
    /// One for each command, in their order.
    pub outcomes: Vec<Outcome>,
}

/// Figures for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StorageStats {
    pub log_bytes: u64,
    pub snapshot_bytes: u64,
    pub flushes: u64,
    pub frames: u64,
    pub flush_micros_total: u64,
}

/// Cheap to clone; all clones are one replica.
#[derive(Debug, Clone)]
pub struct Replica {
    pub(crate) inner: Arc<Inner>,
}

impl Replica {
    pub fn node_id(&self) -> u64 {
        self.inner.sender.node_id
    }

    /// A channel to a peer, secured like the replica's own.
    ///
    /// # Errors
    /// The address is none.
    pub fn channel(&self, address: &str) -> Result<Channel, ClientError> {
        quorate_rpc::channel(address, &self.inner.sender.security)
    }

    /// Applies the commands, in their order, as one log entry. Several calls may be under way at once.
    ///
    /// # Errors
    /// See [`ProposeError`]: some leave the effect unknown.
    pub async fn propose(&self, commands: Vec<Command>) -> Result<Applied, ProposeError> {
        let at = self.inner.clocks.stamp();
        let batch = Batch::new(at, commands).map_err(|error| ProposeError::Stopped(error.to_string()))?;
        let (bytes, max) = (batch.encoded_bytes(), BATCH_MAX_BYTES);
        if bytes > max {
            return Err(ProposeError::TooLarge { bytes, max });
        }
        if self.has_lost_quorum() {
            return Err(ProposeError::NotLeader { leader: None });
        }
        match self.inner.raft.client_write(batch).await {
            Ok(response) => {
                let (term, index) = (response.log_id.committed_leader_id().term, response.log_id.index);
                Ok(Applied { term, index, at, outcomes: response.data.0 })
            }
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
                Err(ProposeError::NotLeader { leader: peer_of(forward) })
            }
            Err(RaftError::APIError(_)) => {
                Err(ProposeError::LostLeadership { leader: self.inner.status.borrow().leader.clone() })
            }
            Err(RaftError::Fatal(fatal)) => Err(ProposeError::Stopped(fatal.to_string())),
        }
    }

    /// The time with which this node would stamp a batch: its clock, unless that has jumped and nobody has confirmed it.
    pub fn now(&self) -> TimestampMs {
        self.inner.clocks.now()
    }

    /// This node's clock beside those of its peers.
    pub fn clock_report(&self) -> ClockReport {
        self.inner.clocks.report()
    }

    /// A look at what this node has applied, which may be old. The ledger is locked meanwhile: be brief.
    pub fn read<T>(&self, look: impl FnOnce(&Ledger, ReadPoint) -> T) -> T {
        let applied = self.inner.state_machine.applied().read();
        let point = applied.last.map_or_else(ReadPoint::default, |last| ReadPoint {
            term: last.committed_leader_id().term,
            index: last.index,
        });
        look(&applied.ledger, point)
    }

    /// Returns when everything that was committed before the call is applied here: a read after it is linearizable.
    ///
    /// # Errors
    /// This node does not lead, or cannot reach a quorum.
    pub async fn linearize(&self) -> Result<(), ReplicaError> {
        let confirm = async {
            let linearizer = self.inner.raft.get_read_linearizer(ReadPolicy::ReadIndex).await;
            let linearizer = linearizer.map_err(|error| match error {
                RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)) => {
                    ReplicaError::NotLeader { leader: peer_of(forward) }
                }
                RaftError::APIError(_) => ReplicaError::NoQuorum,
                RaftError::Fatal(fatal) => ReplicaError::Stopped(fatal.to_string()),
            })?;
            linearizer
                .await_ready(&self.inner.raft)
                .await
                .map_err(|fatal| ReplicaError::Stopped(fatal.to_string()))
        };
        tokio::time::timeout(READ_TIMEOUT, confirm).await.map_err(|_| ReplicaError::NoQuorum)??;
        Ok(())
    }

    /// Does this node surely still lead, and has it applied what earlier leaders acknowledged? A quorum has acknowledged
    /// it so lately, by the monotonic clock, that no other can have been elected; and an entry of its own term is applied,
    /// so all before it are (Raft thesis, section 6.4). False while it hands the leadership over.
    pub fn has_lease(&self) -> bool {
        let handing_over = |term| self.inner.transfer_term.load(Ordering::Acquire) == term;
        let caught_up = |term| self.read(|_, applied| applied.term == term);
        self.leading().is_some_and(|(term, quiet)| {
            !handing_over(term)
                && quiet.is_some_and(|quiet| quiet < self.inner.config.lease())
                && caught_up(term)
        })
    }

    /// A leader that has not heard from a quorum for longer than an election takes: others may lead by now.
    pub(crate) fn has_lost_quorum(&self) -> bool {
        let limit = Duration::from_millis(2 * self.inner.config.timers.election_max_ms);
        self.leading().is_some_and(|(_, quiet)| quiet.is_some_and(|quiet| quiet > limit))
    }

    /// Is there a leader, as far as this node knows? It leads, or has heard from one within the time of an election: the
    /// last one is remembered for ever where no votes can be had.
    pub(crate) fn hears_leader(&self) -> bool {
        let limit = Duration::from_millis(2 * self.inner.config.timers.election_max_ms);
        let status = self.inner.status.borrow();
        status.role == Role::Leader || (status.leader.is_some() && self.inner.heard.lock().elapsed() < limit)
    }

    /// `None`: this node does not lead. Its term, and for how long it has not heard from a quorum (`None`: not yet).
    fn leading(&self) -> Option<(u64, Option<Duration>)> {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        if metrics.state != ServerState::Leader || metrics.running_state.is_err() {
            return None;
        }
        let alone = metrics.membership_config.membership().voter_ids().all(|id| id == self.node_id());
        let quiet = match metrics.last_quorum_acked {
            // Nobody else is asked.
            _ if alone => Some(Duration::ZERO),
            acked => acked.map(|acked| acked.into_inner().elapsed()),
        };
        Some((metrics.current_term, quiet))
    }

    pub fn status(&self) -> watch::Receiver<Status> {
        self.inner.status.clone()
    }

    /// Index of the last entry applied here; changes with every entry.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.inner.state_machine.progress()
    }

    /// Part of a cluster, or on its way back into one.
    pub async fn is_initialized(&self) -> bool {
        matches!(self.inner.standing.get(), Standing::Rebuilding { .. })
            || self.inner.raft.is_initialized().await.unwrap_or(false)
    }

    /// Hands the leadership to `to`, or to the voter that is furthest along; returns when another leads.
    ///
    /// # Errors
    /// This node does not lead, there is nobody else, the clock of `to` is wrong, or nobody took over in time.
    pub async fn transfer_leadership(&self, to: Option<u64>) -> Result<u64, ReplicaError> {
        let mut status = self.status();
        let (role, leader, term) = {
            let status = status.borrow();
            (status.role, status.leader.clone(), status.term)
        };
        if role != Role::Leader {
            return Err(ReplicaError::NotLeader { leader });
        }
        if let Some((id, ahead_ms)) = to.and_then(|id| Some((id, self.inner.clocks.wrong_by(id)?))) {
            return Err(ReplicaError::WrongClock { id, ahead_ms });
        }
        let to = to.or_else(|| self.right_successor()).or_else(|| self.successor(|_| true));
        let to = to.ok_or_else(|| ReplicaError::Peers("there is no other voter".to_owned()))?;
        self.inner.transfer_term.store(term, Ordering::Release);
        let told = self.inner.raft.trigger().transfer_leader(to).await;
        told.map_err(|fatal| ReplicaError::Stopped(fatal.to_string()))?;
        let me = self.node_id();
        let taken = status.wait_for(|status| status.leader.as_ref().is_some_and(|leader| leader.id != me));
        match tokio::time::timeout(TRANSFER_TIMEOUT, taken).await {
            Ok(Ok(status)) => Ok(status.leader.as_ref().map_or(to, |leader| leader.id)),
            _ => Err(ReplicaError::NoQuorum),
        }
    }

    /// The voter that is furthest along among those whose clock is known to be right.
    pub(crate) fn right_successor(&self) -> Option<u64> {
        let right = self.inner.clocks.right_peers();
        self.successor(|id| right.contains(&id))
    }

    fn successor(&self, suits: impl Fn(u64) -> bool) -> Option<u64> {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let voters = metrics.membership_config.membership().voter_ids().filter(|id| *id != self.node_id());
        let voters = voters.filter(|id| suits(*id));
        let replication = metrics.replication.as_ref();
        let matched = |id: &u64| {
            let progress = replication.and_then(|progress| progress.get(id));
            progress.and_then(|log_id| log_id.as_ref().map(|id| id.index))
        };
        voters.max_by_key(matched)
    }

    /// To be mounted by the node's gRPC server.
    pub fn raft_service(&self) -> RaftServer<impl quorate_rpc::raft::raft_server::Raft> {
        RaftServer::new(Service { replica: self.clone() })
            .max_decoding_message_size(MESSAGE_MAX_BYTES)
            .max_encoding_message_size(MESSAGE_MAX_BYTES)
    }

    pub fn storage_stats(&self) -> StorageStats {
        let disk = &self.inner.disk_stats;
        StorageStats {
            log_bytes: self.inner.log_bytes(),
            snapshot_bytes: self.inner.state_machine.folder().size_on_disk(),
            flushes: disk.flushes.load(Ordering::Relaxed),
            frames: disk.frames.load(Ordering::Relaxed),
            flush_micros_total: disk.flush_micros_total.load(Ordering::Relaxed),
        }
    }

    /// Takes a snapshot now, whatever the log's length.
    ///
    /// # Errors
    /// The replica has stopped.
    pub async fn trigger_snapshot(&self) -> Result<(), ReplicaError> {
        let triggered = self.inner.raft.trigger().snapshot().await;
        triggered.map_err(|fatal| ReplicaError::Stopped(fatal.to_string()))
    }

    pub(crate) fn may_append(&self, vote: &Vote) -> Result<(), Refused> {
        match self.inner.standing.get().may_append(vote.leader_id.term) {
            true => Ok(()),
            false => {
                Err(Refused::unavailable("this node's folder is new; it waits to be taken into the cluster"))
            }
        }
    }

    /// Not while this node may have forgotten what it promised: with a new folder, and, for the time of a leader's
    /// lease, after every start (leases are not on disk).
    pub(crate) fn may_vote(&self) -> Result<(), Refused> {
        let applied = self.inner.state_machine.applied().read().last.map_or(0, |last| last.index);
        if !self.inner.standing.get().may_vote(applied) {
            return Err(Refused::unavailable("this node is being rebuilt and does not vote yet"));
        }
        if Instant::now() < self.inner.votes_from {
            return Err(Refused::unavailable("this node has just started; a leader may rely on it"));
        }
        Ok(())
    }

    /// Not with a wrong clock, when a leader asks.
    pub(crate) fn may_take_over(&self) -> Result<(), Refused> {
        match self.inner.clocks.is_off() {
            false => Ok(()),
            true => Err(Refused::failed_precondition("this node's clock is off; it does not lead")),
        }
    }
}
