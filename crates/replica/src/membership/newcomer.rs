//! A node on its way into the cluster: who it is, the leader's invitation to it, and the wait until it has caught up.

use std::time::Duration;

use openraft::LogIdOptionExt as _;
use openraft::async_runtime::WatchReceiver as _;
use quorate_rpc::raft::{IdentifyResponse, RaftMessageKind as Kind};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tonic::Status as Refused;
use tracing::info;

use crate::membership::{LOG_VERSION, MembershipError};
use crate::network::Connection;
use crate::replica::Replica;
use crate::standing::Standing;
use crate::status::{Peer, Role};
use crate::types::LogId;

/// So close to the end of the log, a learner does not hold up commits as a voter.
pub(crate) const NEARLY_THERE: u64 = 1_000;
const LOOK_EVERY: Duration = Duration::from_millis(50);
const INVITE_EVERY: Duration = Duration::from_secs(1);
const INVITE_TIMEOUT: Duration = Duration::from_secs(1);
/// After this long without an answer, it is gone.
const SILENT_MAX: Duration = Duration::from_secs(5);
/// A snapshot on its way looks like this, too.
const STALLED_MAX: Duration = Duration::from_secs(60);
const CATCH_UP_MAX: Duration = Duration::from_secs(240);

/// The receiver is a learner since this log entry: it may take entries, see `standing.rs`. A release that does not know
/// this message comes in by itself as one that lost its folder.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Invitation {
    /// Of the folder that is meant.
    incarnation: Vec<u8>,
    term: u64,
    index: u64,
}

impl Replica {
    /// The node at the address, if it is the one that is meant and can be a member.
    pub(crate) async fn newcomer(&self, peer: &Peer) -> Result<IdentifyResponse, MembershipError> {
        let (id, address) = (peer.id, peer.address.clone());
        let Some(answer) = self.identify(&address).await else {
            return Err(MembershipError::Silent { id, address });
        };
        let wanted = self.inner.sender.cluster.to_string();
        if answer.cluster != wanted {
            return Err(MembershipError::OtherCluster { address, found: answer.cluster, wanted });
        }
        if answer.node_id != id {
            return Err(MembershipError::OtherNode { address, found: answer.node_id, wanted: id });
        }
        if answer.log_version < LOG_VERSION {
            return Err(MembershipError::OldRelease { id });
        }
        Ok(answer)
    }

    /// Returns when the learner has taken the invitation and is near the end of the log.
    pub(crate) async fn catch_up(
        &self,
        peer: &Peer,
        incarnation: &[u8],
        since: LogId,
    ) -> Result<(), MembershipError> {
        let term = since.committed_leader_id().term;
        let invitation = Invitation { incarnation: incarnation.to_vec(), term, index: since.index };
        let connection = Connection::new(self.inner.sender.clone(), peer.id, &peer.address);
        let started = Instant::now();
        let (mut answered, mut moved, mut invite) = (started, started, started);
        let (mut accepted, mut furthest) = (false, 0);
        info!(node = peer.id, "waiting for the new node to catch up");
        loop {
            if invite <= Instant::now() {
                match connection.ask::<_, ()>(Kind::Invite, &invitation, INVITE_TIMEOUT).await {
                    Ok(()) => (accepted, answered) = (true, Instant::now()),
                    Err(refused) if refused.code() == tonic::Code::FailedPrecondition => {
                        let why = format!(
                            "node {} is not the one that was asked first: {}",
                            peer.id,
                            refused.message()
                        );
                        return Err(MembershipError::Unfinished(why));
                    }
                    Err(_) => {}
                }
                invite = Instant::now() + INVITE_EVERY;
            }
            let Some((matched, last)) = self.progress_of(peer.id) else {
                return Err(MembershipError::NotLeader { leader: self.status().borrow().leader.clone() });
            };
            if accepted && matched > since.index && matched + NEARLY_THERE >= last {
                return Ok(());
            }
            if matched > furthest {
                (furthest, moved) = (matched, Instant::now());
            }
            let so_far =
                format!("node {} is a learner, its log is at {matched}, the leader's at {last}", peer.id);
            if answered.elapsed() > SILENT_MAX {
                return Err(MembershipError::Unfinished(format!("{so_far}, and it does not answer")));
            }
            if moved.elapsed() > STALLED_MAX || started.elapsed() > CATCH_UP_MAX {
                return Err(MembershipError::Unfinished(format!("{so_far}, which takes too long")));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The index after the last that the node has on disk, and the last of this leader. `None`: this node does not lead.
    pub(crate) fn progress_of(&self, id: u64) -> Option<(u64, u64)> {
        if self.status().borrow().role != Role::Leader {
            return None;
        }
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let matched = metrics.replication.as_ref()?.get(&id).copied().flatten();
        Some((matched.next_index(), metrics.last_log_index.unwrap_or(0)))
    }

    /// The leader has made this node a learner. To say it twice changes nothing.
    pub(crate) fn be_invited(&self, invitation: &Invitation) -> Result<(), Refused> {
        if invitation.incarnation != self.inner.incarnation {
            return Err(Refused::failed_precondition("its data folder is another one now"));
        }
        match self.inner.standing.get() {
            Standing::New => {
                let Invitation { term, index, .. } = *invitation;
                info!(term, index, "taken into the cluster; rebuilding from the leader");
                let set = self.set_standing(Standing::Rebuilding { term, index });
                set.map_err(|error| Refused::unavailable(error.to_string()))
            }
            Standing::Rebuilding { .. } | Standing::Member => Ok(()),
            Standing::Removed => Err(Refused::failed_precondition("it was removed from the cluster before")),
        }
    }
}
