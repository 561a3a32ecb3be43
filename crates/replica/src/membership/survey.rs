//! What the leader finds out before a change: who is a member, who can be reached, and what releases they run.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use openraft::Instant as _;
use openraft::LogIdOptionExt as _;
use openraft::async_runtime::WatchReceiver as _;
use quorate_rpc::raft::IdentifyResponse;
use tokio::time::Instant;

use crate::membership::{LOG_VERSION, MembershipError, NEARLY_THERE, View};
use crate::replica::Replica;
use crate::types::LogId;

/// Some heartbeats.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(crate) struct Survey {
    pub view: View,
    /// Of those that answered, this node not among them.
    answers: BTreeMap<u64, IdentifyResponse>,
}

impl Survey {
    /// A member with an older release could not read the entry about this change, and would have to stop.
    pub fn all_can_read(&self) -> Result<(), MembershipError> {
        let old = self.answers.iter().find(|(_, answer)| answer.log_version < LOG_VERSION);
        old.map_or(Ok(()), |(id, _)| Err(MembershipError::OldRelease { id: *id }))
    }
}

impl Replica {
    /// The membership in force here, and who has acknowledged anything lately. On the leader only.
    pub(crate) fn view(&self) -> View {
        let recently = Duration::from_millis(2 * self.inner.config.timers.election_max_ms);
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let last = metrics.last_log_index.unwrap_or(0);
        let acknowledged = |id: &u64| {
            let heard = metrics.heartbeat.as_ref().and_then(|heard| heard.get(id).copied()).flatten();
            heard.is_some_and(|at| at.into_inner().elapsed() < recently)
        };
        let up_to_date = |id: &u64| {
            let matched = metrics.replication.as_ref().and_then(|progress| progress.get(id).copied());
            matched.flatten().next_index() + NEARLY_THERE >= last
        };
        let members: BTreeMap<u64, String> =
            membership.nodes().map(|(id, node)| (*id, node.addr.clone())).collect();
        let live = members.keys().filter(|id| **id == self.node_id() || (acknowledged(id) && up_to_date(id)));
        View {
            live: live.copied().collect(),
            voters: membership.voter_ids().collect(),
            joint: membership.get_joint_config().len() > 1,
            members,
        }
    }

    /// The same, of those only that answer just now. Those that answer are given a moment to acknowledge, too: a new
    /// leader has not heard from all of them.
    pub(crate) async fn survey(&self) -> Survey {
        let mut view = self.view();
        let others = view.members.iter().filter(|(id, _)| **id != self.node_id());
        let asked = others.map(async |(id, address)| (*id, self.identify(address).await));
        let answers = join_all(asked).await.into_iter().filter_map(|(id, answer)| {
            let answer = answer.filter(|answer| answer.node_id == id);
            Some((id, answer.filter(|answer| *answer.cluster == *self.inner.sender.cluster)?))
        });
        let answers: BTreeMap<u64, IdentifyResponse> = answers.collect();
        let deadline = Instant::now() + ACKNOWLEDGED_WITHIN;
        let slow =
            |view: &View| answers.iter().any(|(id, answer)| answer.initialized && !view.live.contains(id));
        while slow(&view) && Instant::now() < deadline {
            tokio::time::sleep(LOOK_EVERY).await;
            view = self.view();
        }
        // What one with a new folder has acknowledged is lost.
        let answers_now = |id: &u64| answers.get(id).is_some_and(|answer| answer.initialized);
        view.live.retain(|id| *id == self.node_id() || answers_now(id));
        Survey { view, answers }
    }

    /// The entry with the membership in force, once it is committed and applied here.
    pub(crate) fn committed_membership(&self) -> Option<LogId> {
        let effective = *self.inner.raft.metrics().borrow_watched().membership_config.log_id();
        let applied = self.read(|_, point| point.index);
        effective.filter(|log_id| log_id.index <= applied)
    }
}
