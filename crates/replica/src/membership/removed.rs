//! How a node notices that it was removed: nobody leads it any more, it asks, and the leader says so.
//!
//! The others need no protection from it meanwhile. It asks for pre-votes first, which voters that hear their leader do
//! not give; and without the entry that removed it, its log is behind that of a quorum.

use std::time::Duration;

use quorate_rpc::raft::RaftMessageKind as Kind;
use serde::{Deserialize, Serialize};
use tracing::error;

use crate::error::ReplicaError;
use crate::network::Connection;
use crate::replica::Replica;
use crate::standing::Standing;
use crate::status::{Peer, Role};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Above the time that a leader takes to find out whether it still leads.
const ASK_TIMEOUT: Duration = Duration::from_secs(4);

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MembershipQuestion {}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum MembershipAnswer {
    Member,
    /// By a committed change.
    NotMember,
    /// Ask the one with this id and address, if any.
    NotLeader(Option<(u64, String)>),
    /// Ask again.
    Unsure,
}

impl Replica {
    /// Returns when this node, once a member, was removed from the cluster. It is to end then.
    pub async fn until_removed(&self, peers: &[Peer]) -> ReplicaError {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if let Some(removed) = self.look_whether_removed(peers).await {
                return removed;
            }
        }
    }

    /// Asks only when no leader was heard for a while.
    pub(crate) async fn look_whether_removed(&self, peers: &[Peer]) -> Option<ReplicaError> {
        let silent = Duration::from_millis(2 * self.inner.config.timers.election_max_ms);
        if self.status().borrow().role == Role::Leader || self.inner.heard.lock().elapsed() < silent {
            return None;
        }
        if !self.leader_says_removed(peers).await {
            return None;
        }
        let (id, cluster) = (self.node_id(), self.inner.sender.cluster.to_string());
        if let Err(error) = self.set_standing(Standing::Removed) {
            // It will ask again at the next start.
            error!(%error, "cannot note that this node was removed");
        }
        Some(ReplicaError::Removed { id, cluster })
    }

    async fn leader_says_removed(&self, peers: &[Peer]) -> bool {
        let mut known = self.known(peers);
        known.retain(|peer| peer.id != self.node_id());
        let mut asked = 0;
        while let Some(peer) = known.get(asked).cloned() {
            asked += 1;
            let connection = Connection::new(self.inner.sender.clone(), peer.id, &peer.address);
            match connection.ask(Kind::Membership, &MembershipQuestion {}, ASK_TIMEOUT).await {
                Ok(MembershipAnswer::NotMember) => return true,
                Ok(MembershipAnswer::Member) => return false,
                Ok(MembershipAnswer::NotLeader(Some((id, address)))) => {
                    let leader = Peer { id, address };
                    if id != self.node_id() && !known.contains(&leader) {
                        known.push(leader);
                    }
                }
                Ok(MembershipAnswer::NotLeader(None) | MembershipAnswer::Unsure) | Err(_) => {}
            }
        }
        false
    }

    /// What the leader answers.
    pub(crate) async fn membership_of(&self, id: u64) -> MembershipAnswer {
        let (role, leader) = {
            let status = self.status();
            let status = status.borrow();
            (status.role, status.leader.clone())
        };
        if role != Role::Leader {
            return MembershipAnswer::NotLeader(leader.map(|leader| (leader.id, leader.address)));
        }
        // A member that comes back is none for a moment.
        let Ok(_turn) = self.inner.changing.try_lock() else { return MembershipAnswer::Unsure };
        if self.linearize().await.is_err() || self.committed_membership().is_none() {
            return MembershipAnswer::Unsure;
        }
        match self.view().members.contains_key(&id) || self.is_coming_back(id) {
            true => MembershipAnswer::Member,
            false => MembershipAnswer::NotMember,
        }
    }
}
