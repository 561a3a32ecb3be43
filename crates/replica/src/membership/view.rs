//! The rules: who may be added and removed, given who is a member and who can be reached. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::membership::error::{MembershipError, list};
use crate::status::Peer;

/// The membership as its leader sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct View {
    /// Ids and addresses; voters and learners.
    pub members: BTreeMap<u64, String>,
    pub voters: BTreeSet<u64>,
    /// Half way from one set of voters to another.
    pub joint: bool,
    /// Members that can be reached and whose log is nearly as long as the leader's. The leader is one of them.
    pub live: BTreeSet<u64>,
}

/// What a node that is to be added is already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joining {
    Stranger,
    Learner,
    Voter,
}

impl View {
    pub fn joining(&self, peer: &Peer) -> Result<Joining, MembershipError> {
        let (id, address) = (peer.id, peer.address.clone());
        match self.members.get(&id) {
            Some(known) if *known != address => {
                return Err(MembershipError::IdInUse { id, address: known.clone() });
            }
            Some(_) if self.voters.contains(&id) => return Ok(Joining::Voter),
            Some(_) => return Ok(Joining::Learner),
            None => {}
        }
        match self.members.iter().find(|(_, known)| **known == address) {
            Some((id, _)) => Err(MembershipError::AddressInUse { id: *id, address }),
            None => Ok(Joining::Stranger),
        }
    }

    /// Is this one a member?
    pub fn member(&self, id: u64) -> Result<(), MembershipError> {
        if self.members.contains_key(&id) {
            return Ok(());
        }
        Err(MembershipError::Unknown { id, members: list(self.members.keys().copied()) })
    }

    /// May the voters become these?
    pub fn quorum_of(&self, voters: &BTreeSet<u64>) -> Result<(), MembershipError> {
        let needed = voters.len() / 2 + 1;
        let live: BTreeSet<u64> = voters.intersection(&self.live).copied().collect();
        if live.len() >= needed {
            return Ok(());
        }
        let (voters, live) = (list(voters.iter().copied()), list(live));
        Err(MembershipError::NoQuorumLeft { voters, needed, live })
    }

    pub fn voters_without(&self, id: u64) -> BTreeSet<u64> {
        self.voters.iter().copied().filter(|voter| *voter != id).collect()
    }

    pub fn voters_with(&self, id: u64) -> BTreeSet<u64> {
        self.voters.iter().copied().chain([id]).collect()
    }

    pub fn voters_after(&self, old: u64, new: u64) -> BTreeSet<u64> {
        self.voters_with(new).into_iter().filter(|voter| *voter != old).collect()
    }

    /// Once this one is there, too.
    pub fn with_live(mut self, id: u64) -> Self {
        self.live.insert(id);
        self
    }

    /// The voters without this one, if that makes a cluster.
    pub fn removing(&self, id: u64) -> Result<BTreeSet<u64>, MembershipError> {
        self.member(id)?;
        let left = self.voters_without(id);
        if left.is_empty() {
            return Err(MembershipError::Last { id });
        }
        // A learner is in no quorum.
        if self.voters.contains(&id) {
            self.quorum_of(&left)?;
        }
        Ok(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(voters: &[u64], learners: &[u64], live: &[u64]) -> View {
        let members = voters.iter().chain(learners).map(|id| (*id, format!("n{id}:1"))).collect();
        let (voters, live) = (voters.iter().copied().collect(), live.iter().copied().collect());
        View { members, voters, joint: false, live }
    }

    fn peer(id: u64, address: &str) -> Peer {
        Peer { id, address: address.to_owned() }
    }

    #[test]
    fn a_node_joins_with_an_id_and_an_address_of_its_own() {
        let view = view(&[1, 2, 3], &[5], &[1, 2, 3]);
        assert_eq!(view.joining(&peer(4, "n4:1")), Ok(Joining::Stranger));
        assert_eq!(view.joining(&peer(5, "n5:1")), Ok(Joining::Learner));
        assert_eq!(view.joining(&peer(3, "n3:1")), Ok(Joining::Voter));
        for (wrong, wanted) in [
            (peer(3, "n4:1"), MembershipError::IdInUse { id: 3, address: "n3:1".into() }),
            (peer(5, "n3:1"), MembershipError::IdInUse { id: 5, address: "n5:1".into() }),
            (peer(4, "n3:1"), MembershipError::AddressInUse { id: 3, address: "n3:1".into() }),
        ] {
            assert_eq!(view.joining(&wrong), Err(wanted));
        }
    }

    type Ids = &'static [u64];

    #[test]
    fn nobody_is_removed_whom_the_quorum_needs() {
        // Voters, learners, who is live, who is to go, and what is wrong with it.
        let table: [(Ids, Ids, Ids, u64, &str); 11] = [
            (&[1, 2, 3], &[], &[1, 2, 3], 3, ""),
            (&[1, 2, 3], &[], &[1, 2], 3, ""),
            (&[1, 2, 3], &[], &[1, 2], 2, "now: 1."),
            (&[1, 2, 3], &[], &[1, 2], 1, "now: 2."),
            (&[1, 2, 3, 4], &[], &[1, 2, 3], 1, ""),
            (&[1, 2, 3, 4, 5], &[], &[1, 2, 3], 1, "takes 3 of them"),
            (&[1, 2], &[], &[1, 2], 1, ""),
            (&[1], &[], &[1], 1, "last voter"),
            (&[1, 2, 3], &[4], &[1, 2], 4, ""),
            (&[1, 2, 3], &[4], &[1, 4], 2, "now: 1."),
            (&[1, 2, 3], &[], &[1, 2, 3], 9, "no node 9; the members are 1, 2, 3"),
        ];
        for (voters, learners, live, id, wanted) in table {
            let removing = view(voters, learners, live).removing(id);
            match &removing {
                Ok(left) => assert!(wanted.is_empty() && !left.contains(&id), "{voters:?} {live:?} {id}"),
                Err(error) => {
                    assert!(!wanted.is_empty() && error.to_string().contains(wanted), "{id}: {error}");
                }
            }
        }
    }
}
