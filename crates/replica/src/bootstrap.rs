//! How a node finds its place at every start: it forms a new cluster with its peers, goes on where it was, or, with a
//! new folder in an old cluster, asks to be taken in: as a member it is, as a stranger it waits until an operator adds it.
//! Notices two nodes with one id.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::join_all;
use openraft::BasicNode;
use quorate_rpc::raft::raft_client::RaftClient;
use quorate_rpc::raft::{IdentifyRequest, IdentifyResponse, RaftMessageKind as Kind};
use serde::{Deserialize, Serialize};
use tonic::Status as Refused;
use tracing::{info, warn};

use crate::error::ReplicaError;
use crate::network::Connection;
use crate::replica::Replica;
use crate::standing::Standing;
use crate::status::Peer;

const ASK_TIMEOUT: Duration = Duration::from_secs(1);
const ASK_AGAIN: Duration = Duration::from_millis(200);

type Answers = BTreeMap<u64, IdentifyResponse>;

struct Asked {
    /// By id.
    answers: Answers,
    /// Somebody else runs at these addresses.
    wrong: Vec<(Peer, ReplicaError)>,
}

/// The cluster is being formed with these nodes: their ids, and the incarnations of their folders.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Founding {
    members: Vec<(u64, Vec<u8>)>,
}

impl Replica {
    /// Forms the cluster of these peers, this node among them, if nobody has yet. To be called on every node, at every
    /// start, when its service is mounted; returns when the node has its place, and waits for the peers as long as it
    /// takes. The node with the lowest id forms the cluster, once all have answered that they are new too.
    ///
    /// A member knows the others from its own log. The list only helps a new folder to find its cluster; it may be out of
    /// date then, as long as one address in it is right.
    ///
    /// # Errors
    /// The list is wrong, somebody else runs under one of its ids, the node was removed from the cluster, or the standing
    /// cannot be written.
    pub async fn bootstrap(&self, peers: &[Peer]) -> Result<(), ReplicaError> {
        let address = self.check_peers(peers)?;
        self.inner.clocks.expect(peers);
        let (mut waits_for, mut told) = (false, String::new());
        loop {
            let mut known = self.known(peers);
            let Asked { answers, wrong } = self.ask(&known).await?;
            let settled = match self.inner.standing.get() {
                Standing::Member if self.is_initialized().await => {
                    if let Some(other_cluster) = self.given_up(&wrong) {
                        return Err(other_cluster);
                    }
                    wrong.iter().for_each(
                        |(_, wrong)| warn!(%wrong, "`peers` is out of date; the log is what counts"),
                    );
                    true
                }
                standing if standing != Standing::Member && self.cluster_exists(&answers) => {
                    if standing == Standing::New && told.is_empty() {
                        told = "this folder is new, but its cluster is not".to_owned();
                        warn!("{told}: asking to be taken in");
                    }
                    learn(&mut known, &answers);
                    known.retain(|peer| peer.id != self.node_id());
                    if standing != Standing::New
                        && let Some(removed) = self.look_whether_removed(&known).await
                    {
                        return Err(removed);
                    }
                    self.come_back(&address, &known, &mut told).await?
                }
                _ => match wrong.into_iter().next_back() {
                    Some((_, wrong)) => return Err(wrong),
                    None => self.form_if_first(peers, &answers).await?,
                },
            };
            if settled {
                return Ok(());
            }
            let silent = |peer: &&Peer| !answers.contains_key(&peer.id);
            let missing: Vec<_> = peers.iter().filter(silent).map(|peer| &peer.address).collect();
            if !missing.is_empty() && !waits_for && told.is_empty() {
                info!(?missing, "waiting for peers");
                waits_for = true;
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    /// Is there one already, of which this node could become a member again?
    fn cluster_exists(&self, answers: &Answers) -> bool {
        matches!(self.inner.standing.get(), Standing::Rebuilding { .. })
            || answers.values().any(|answer| answer.initialized)
    }

    /// Another cluster runs where this one's members did, so that it can have no quorum any more: it was restored from a
    /// backup, and this folder is an old one. One member of which that is true is an operator's mistake, and holds up nobody.
    fn given_up(&self, wrong: &[(Peer, ReplicaError)]) -> Option<ReplicaError> {
        let members = self.status().borrow().members.clone();
        let voters: Vec<&Peer> =
            members.iter().filter(|member| member.voter).map(|member| &member.peer).collect();
        let is_other = |error: &ReplicaError| matches!(error, ReplicaError::OtherCluster { .. });
        let mut elsewhere = wrong.iter().filter(|(peer, error)| is_other(error) && voters.contains(&peer));
        let left = voters.len() - elsewhere.clone().count();
        elsewhere.next().filter(|_| left < voters.len() / 2 + 1).map(|(_, error)| error.clone())
    }

    /// The members as the log on disk has them, and those of the list that are none.
    pub(crate) fn known(&self, peers: &[Peer]) -> Vec<Peer> {
        let members = self.status().borrow().members.clone().into_iter().map(|member| member.peer);
        let mut known: Vec<Peer> = members.collect();
        known.extend(peers.iter().cloned());
        let mut seen = BTreeSet::new();
        known.retain(|peer| seen.insert(peer.address.clone()));
        known
    }

    /// All are new and agree: the lowest id forms the cluster.
    async fn form_if_first(&self, peers: &[Peer], answers: &Answers) -> Result<bool, ReplicaError> {
        let all_new = answers.len() == peers.len() && answers.values().all(|answer| !answer.initialized);
        let first = peers.iter().all(|peer| self.node_id() <= peer.id);
        if !all_new || !first || !self.inner.clocks.is_compared() {
            return Ok(false);
        }
        let members = answers.iter().map(|(id, answer)| (*id, answer.incarnation.to_vec())).collect();
        let founding = Founding { members };
        let others = peers.iter().filter(|peer| peer.id != self.node_id());
        let told = join_all(others.map(|peer| self.found(peer, &founding))).await;
        if let Some(refused) = told.into_iter().find_map(Result::err) {
            info!(%refused, "a peer is not ready to form the cluster");
            return Ok(false);
        }
        self.set_standing(Standing::Member)?;
        let members: BTreeMap<u64, BasicNode> =
            peers.iter().map(|peer| (peer.id, BasicNode::new(&peer.address))).collect();
        info!(members = ?members.keys(), "forming the cluster");
        match self.inner.raft.initialize(members).await {
            Ok(()) => Ok(true),
            Err(_) if self.is_initialized().await => Ok(true),
            Err(error) => Err(ReplicaError::Stopped(error.to_string())),
        }
    }

    async fn found(&self, peer: &Peer, founding: &Founding) -> Result<(), Refused> {
        let connection = Connection::new(self.inner.sender.clone(), peer.id, &peer.address);
        connection.ask(Kind::Found, founding, ASK_TIMEOUT).await
    }

    /// A peer forms the cluster with this node: from now on it may vote and take entries.
    pub(crate) async fn be_founded(&self, founding: &Founding) -> Result<(), Refused> {
        let me = (self.node_id(), self.inner.incarnation.to_vec());
        if !founding.members.contains(&me) || self.is_initialized().await {
            return Err(Refused::failed_precondition(
                "the cluster is not being formed with this node's folder",
            ));
        }
        self.set_standing(Standing::Member).map_err(|error| Refused::unavailable(error.to_string()))
    }

    pub(crate) fn set_standing(&self, standing: Standing) -> Result<(), ReplicaError> {
        let written = self.inner.standing.set(standing);
        written.map_err(|error| ReplicaError::Stopped(format!("cannot write the standing: {error}")))?;
        self.inner.refresh_elections();
        Ok(())
    }

    /// This node's own address.
    fn check_peers(&self, peers: &[Peer]) -> Result<String, ReplicaError> {
        let ids: BTreeSet<u64> = peers.iter().map(|peer| peer.id).collect();
        let addresses: BTreeSet<&str> = peers.iter().map(|peer| peer.address.as_str()).collect();
        if ids.len() != peers.len() || addresses.len() != peers.len() {
            return Err(ReplicaError::Peers("an id or an address stands there twice".to_owned()));
        }
        let me = peers.iter().find(|peer| peer.id == self.node_id()).map(|me| me.address.clone());
        me.ok_or_else(|| {
            ReplicaError::Peers(format!("this node, {}, is not among them; add it", self.node_id()))
        })
    }

    /// Who answered. Those that do not are left out, and so are those that are somebody else; but not if that is
    /// another one with this node's own id.
    async fn ask(&self, known: &[Peer]) -> Result<Asked, ReplicaError> {
        let asked = join_all(known.iter().map(|peer| self.identify(&peer.address))).await;
        let (mut answers, mut wrong) = (BTreeMap::new(), Vec::new());
        for (peer, answer) in known.iter().zip(asked) {
            let Some(answer) = answer else { continue };
            match self.check_answer(peer, &answer) {
                Ok(()) => {
                    answers.insert(peer.id, answer);
                }
                Err(twin @ ReplicaError::DuplicateNode { .. }) => return Err(twin),
                Err(other) => wrong.push((peer.clone(), other)),
            }
        }
        Ok(Asked { answers, wrong })
    }

    /// Asks the node at `address` who it is; `None` if it does not answer in time.
    pub async fn identify(&self, address: &str) -> Option<IdentifyResponse> {
        let channel = self.channel(address).ok()?;
        let cluster = self.inner.sender.cluster.to_string();
        let request = IdentifyRequest { cluster, from_node: self.node_id() };
        let mut client = RaftClient::new(channel);
        let answered = tokio::time::timeout(ASK_TIMEOUT, client.identify(request)).await;
        answered.ok()?.ok().map(tonic::Response::into_inner)
    }

    fn check_answer(&self, peer: &Peer, answer: &IdentifyResponse) -> Result<(), ReplicaError> {
        let (address, wanted) = (peer.address.clone(), self.inner.sender.cluster.to_string());
        if answer.cluster != wanted {
            return Err(ReplicaError::OtherCluster { address, found: answer.cluster.clone(), wanted });
        }
        let is_me = answer.incarnation == self.inner.incarnation.as_slice();
        if answer.node_id == self.node_id() && !is_me {
            return Err(ReplicaError::DuplicateNode { id: self.node_id(), address });
        }
        if answer.node_id != peer.id {
            return Err(ReplicaError::OtherNode { address, found: answer.node_id, wanted: peer.id });
        }
        Ok(())
    }
}

/// Members that others know.
fn learn(known: &mut Vec<Peer>, answers: &Answers) {
    for member in answers.values().flat_map(|answer| &answer.members) {
        let peer = Peer { id: member.id, address: member.address.clone() };
        if !known.contains(&peer) {
            known.push(peer);
        }
    }
}
