//! What the leader does to add, remove and replace nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Weak;
use std::time::Duration;

use openraft::errors::{ClientWriteError, RaftError};
use openraft::{BasicNode, ChangeMembers, Membership};
use quorate_ledger::{AuditAction, AuditRecord, Command};
use tokio::sync::MutexGuard;
use tracing::{info, warn};

use crate::error::ProposeError;
use crate::membership::MembershipError;
use crate::membership::survey::Survey;
use crate::membership::view::Joining;
use crate::open::Inner;
use crate::replica::Replica;
use crate::status::{Peer, Role, peer_of};
use crate::types::{LogId, TypeConfig};

type Change = ChangeMembers<u64, BasicNode>;

/// For one entry, or two of a joint change.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);
/// A node that comes back takes its turn for as long as this at most.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);
const FINISH_EVERY: Duration = Duration::from_secs(1);

/// After a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// False: it was done before.
    pub changed: bool,
    pub voters: Vec<u64>,
}

/// The entry with which a change was made, and what it says: [`Replica::view`] may lag behind it.
pub(crate) struct Made {
    pub log_id: LogId,
    voters: BTreeSet<u64>,
}

impl From<Made> for Changed {
    fn from(made: Made) -> Self {
        Self { changed: true, voters: made.voters.into_iter().collect() }
    }
}

impl Replica {
    /// Makes the node that runs at the address, with a new folder, a voter. Returns when it is one.
    ///
    /// # Errors
    /// See [`MembershipError`]. With `Unfinished` it is a learner perhaps, which is in nobody's way.
    pub async fn add_node(&self, peer: &Peer, by: &str) -> Result<Changed, MembershipError> {
        let _turn = self.turn().await?;
        let survey = self.survey().await;
        let joining = survey.view.joining(peer)?;
        if joining == Joining::Voter {
            return Ok(self.unchanged());
        }
        self.take_up(peer, joining, &survey, (AuditAction::AddNode, peer.id, peer.address.clone()), by)
            .await?;
        let now = self.survey().await.view;
        now.quorum_of(&now.voters_with(peer.id))?;
        let made = self.change_members(ChangeMembers::AddVoterIds(BTreeSet::from([peer.id]))).await?;
        info!(node = peer.id, address = peer.address, by, "added a node");
        Ok(made.into())
    }

    /// Removes a member, which may be dead. The leader hands over first, when it is to go itself: then another node has to
    /// be asked.
    ///
    /// # Errors
    /// See [`MembershipError`]. `NotLeader`: ask the new leader.
    pub async fn remove_node(&self, id: u64, by: &str) -> Result<Changed, MembershipError> {
        let _turn = self.turn().await?;
        let survey = self.survey().await;
        if survey.view.member(id).is_err() && self.was_removed(id) {
            return Ok(self.unchanged());
        }
        survey.view.removing(id)?;
        if id == self.node_id() {
            return Err(self.hand_over(&survey).await);
        }
        survey.all_can_read()?;
        let address = survey.view.members.get(&id).cloned().unwrap_or_default();
        self.record(AuditAction::RemoveNode, id, address, by).await?;
        let made = self.change_members(leaving(&survey, id)).await?;
        info!(node = id, by, "removed a node");
        Ok(made.into())
    }

    /// Takes the node that runs at the address, with a new folder, in the place of `old`: one joint change, when it has
    /// caught up.
    ///
    /// # Errors
    /// As of [`Replica::add_node`] and [`Replica::remove_node`].
    pub async fn replace_node(&self, old: u64, new: &Peer, by: &str) -> Result<Changed, MembershipError> {
        let _turn = self.turn().await?;
        let survey = self.survey().await;
        let joining = survey.view.joining(new)?;
        if let Err(unknown) = survey.view.member(old) {
            return if joining == Joining::Voter { Ok(self.unchanged()) } else { Err(unknown) };
        }
        // Unless it became a voter by this very command, it would be one voter less than before.
        let detail = in_place_by(new);
        let begun =
            self.last_change_of(old).is_some_and(|last| is_replacement(&last) && last.detail == detail);
        if old == new.id || (joining == Joining::Voter && !begun) {
            return Err(MembershipError::IdInUse { id: new.id, address: new.address.clone() });
        }
        survey.view.clone().with_live(new.id).quorum_of(&survey.view.voters_after(old, new.id))?;
        if old == self.node_id() && !survey.view.voters_without(old).is_empty() {
            // Not for a successor that is not there.
            if joining != Joining::Voter {
                self.newcomer(new).await?;
            }
            return Err(self.hand_over(&survey).await);
        }
        match joining {
            Joining::Voter => {
                survey.all_can_read()?;
                self.record(AuditAction::ReplaceNode, old, detail, by).await?;
            }
            _ => self.take_up(new, joining, &survey, (AuditAction::ReplaceNode, old, detail), by).await?,
        }
        let now = self.survey().await;
        let arrives = ChangeMembers::AddVoterIds(BTreeSet::from([new.id]));
        if old == self.node_id() {
            now.view.quorum_of(&now.view.voters_with(new.id))?;
            self.change_members(arrives).await?;
            return Err(self.hand_over(&self.survey().await).await);
        }
        now.view.quorum_of(&now.view.voters_after(old, new.id))?;
        let made = self.change_members(ChangeMembers::Batch(vec![arrives, leaving(&now, old)])).await?;
        info!(old, new = new.id, address = new.address, by, "replaced a node");
        Ok(made.into())
    }

    /// The right to change the membership: nobody else does, this node leads, and nothing is left half done.
    async fn turn(&self) -> Result<MutexGuard<'_, ()>, MembershipError> {
        let not_leader = || MembershipError::NotLeader { leader: self.status().borrow().leader.clone() };
        if self.status().borrow().role != Role::Leader {
            return Err(not_leader());
        }
        let turn = tokio::time::timeout(TURN_TIMEOUT, self.inner.changing.lock()).await;
        let turn = turn.map_err(|_| MembershipError::Busy)?;
        self.linearize().await?;
        self.finish_joint().await?;
        Ok(turn)
    }

    /// Makes a node a learner that has caught up, whatever it is now. `record` stands in the audit log before anything
    /// is changed.
    async fn take_up(
        &self,
        peer: &Peer,
        joining: Joining,
        survey: &Survey,
        record: (AuditAction, u64, String),
        by: &str,
    ) -> Result<(), MembershipError> {
        survey.all_can_read()?;
        let answer = self.newcomer(peer).await?;
        if joining == Joining::Stranger && answer.initialized {
            return Err(MembershipError::HasCluster { id: peer.id, address: peer.address.clone() });
        }
        let (action, id, detail) = record;
        self.record(action, id, detail, by).await?;
        let since = match joining {
            Joining::Learner if answer.initialized => self.committed_membership(),
            // What it had on disk as a learner is lost: the leader must forget it, too.
            Joining::Learner => {
                self.change_members(ChangeMembers::RemoveNodes(BTreeSet::from([peer.id]))).await?;
                Some(self.add_learner(peer).await?)
            }
            _ => Some(self.add_learner(peer).await?),
        };
        let since = since.ok_or_else(|| unfinished("the last change is not committed yet"))?;
        self.catch_up(peer, &answer.incarnation, since).await
    }

    async fn add_learner(&self, peer: &Peer) -> Result<LogId, MembershipError> {
        let nodes = BTreeMap::from([(peer.id, BasicNode::new(&peer.address))]);
        self.change_members(ChangeMembers::AddNodes(nodes)).await.map(|made| made.log_id)
    }

    /// Voters that go are no members afterwards.
    pub(crate) async fn change_members(&self, change: Change) -> Result<Made, MembershipError> {
        let changed =
            tokio::time::timeout(CHANGE_TIMEOUT, self.inner.raft.change_membership(change, false)).await;
        match changed {
            Ok(Ok(response)) => Ok(Made {
                log_id: response.log_id,
                voters: response.membership.iter().flat_map(Membership::voter_ids).collect(),
            }),
            Ok(Err(error)) => Err(change_error(error)),
            Err(_) => Err(unfinished("no quorum agreed in time")),
        }
    }

    /// The second half of a change whose leader died, or whose caller lost patience.
    async fn finish_joint(&self) -> Result<(), MembershipError> {
        if self.view().joint {
            warn!("finishing a change of the membership that was left half done");
            self.change_members(ChangeMembers::AddVoterIds(BTreeSet::new())).await?;
        }
        Ok(())
    }

    /// Another live voter leads then, and has to be asked: one whose clock is not known to be wrong, if there is any.
    async fn hand_over(&self, survey: &Survey) -> MembershipError {
        let view = &survey.view;
        let successors = view.voters.intersection(&view.live).filter(|id| **id != self.node_id());
        let suits = |id: &u64| (self.inner.clocks.wrong_by(*id).is_none(), self.progress_of(*id));
        let Some(best) = successors.copied().max_by_key(suits) else {
            return unfinished("no other voter is up to date enough to lead");
        };
        match self.transfer_leadership(Some(best)).await {
            Ok(_) => MembershipError::NotLeader { leader: self.status().borrow().leader.clone() },
            Err(error) => error.into(),
        }
    }

    /// In the audit log, before anything is changed: no change without a record.
    pub(crate) async fn record(
        &self,
        action: AuditAction,
        node: u64,
        detail: String,
        by: &str,
    ) -> Result<(), MembershipError> {
        let record = Command::RecordChange { action, subject: subject(node), detail, by: by.to_owned() };
        let proposed = tokio::time::timeout(CHANGE_TIMEOUT, self.propose(vec![record])).await;
        match proposed {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(ProposeError::NotLeader { leader } | ProposeError::LostLeadership { leader })) => {
                Err(MembershipError::NotLeader { leader })
            }
            Ok(Err(error)) => Err(unfinished(&error.to_string())),
            Err(_) => Err(unfinished("no quorum agreed in time")),
        }
    }

    /// Was this node removed, as far as the audit log reaches back?
    fn was_removed(&self, id: u64) -> bool {
        let action = self.last_change_of(id).map(|last| last.action);
        matches!(action, Some(AuditAction::RemoveNode | AuditAction::ReplaceNode))
    }

    /// A member that lost its folder is removed and added again; a leader may have died in between.
    pub(crate) fn is_coming_back(&self, id: u64) -> bool {
        self.last_change_of(id).is_some_and(|last| last.action == AuditAction::RejoinNode)
    }

    /// A learner that an operator's command is to make a voter: it does not become one by itself.
    pub(crate) fn joins_by_command(&self, id: u64) -> bool {
        let subject = subject(id);
        let in_place = format!("by {subject} at ");
        let replaces = |record: &AuditRecord| is_replacement(record) && record.detail.starts_with(&in_place);
        let last = self.last_record(|record| record.subject_of_change == subject || replaces(record));
        last.is_some_and(|last| last.action == AuditAction::AddNode || replaces(&last))
    }

    fn last_change_of(&self, id: u64) -> Option<AuditRecord> {
        let subject = subject(id);
        self.last_record(|record| record.subject_of_change == subject)
    }

    fn last_record(&self, is_it: impl Fn(&AuditRecord) -> bool) -> Option<AuditRecord> {
        let records = self.read(|ledger, _| ledger.audit(0));
        records.into_iter().rev().find(is_it)
    }

    fn unchanged(&self) -> Changed {
        Changed { changed: false, voters: self.view().voters.into_iter().collect() }
    }
}

/// In the audit log.
fn subject(node: u64) -> String {
    format!("node {node}")
}

fn is_replacement(record: &AuditRecord) -> bool {
    record.action == AuditAction::ReplaceNode
}

/// In the audit log: who takes a node's place.
fn in_place_by(new: &Peer) -> String {
    format!("by {} at {}", subject(new.id), new.address)
}

fn leaving(survey: &Survey, id: u64) -> Change {
    let ids = BTreeSet::from([id]);
    match survey.view.voters.contains(&id) {
        true => ChangeMembers::RemoveVoters(ids),
        false => ChangeMembers::RemoveNodes(ids),
    }
}

fn unfinished(why: &str) -> MembershipError {
    MembershipError::Unfinished(why.to_owned())
}

fn change_error(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> MembershipError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
            MembershipError::NotLeader { leader: peer_of(forward) }
        }
        other => unfinished(&other.to_string()),
    }
}

/// Joint memberships ask two quorums for every commit: not longer than need be.
pub(crate) async fn finish_what_is_left(inner: Weak<Inner>) {
    loop {
        tokio::time::sleep(FINISH_EVERY).await;
        let Some(replica) = inner.upgrade().map(|inner| Replica { inner }) else { return };
        if replica.status().borrow().role != Role::Leader || !replica.view().joint {
            continue;
        }
        let Ok(_turn) = replica.inner.changing.try_lock() else { continue };
        if let Err(error) = replica.finish_joint().await {
            warn!(%error, "a change of the membership is still half done");
        }
    }
}
