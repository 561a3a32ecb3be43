//! Asks the peers for their clocks, every second, and acts on what comes out: says so, stays out of elections, and hands the
//! leadership over to a node whose clock is right.

use std::collections::BTreeMap;
use std::sync::Weak;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tonic::Code;
use tracing::{error, info, warn};

use super::guard::Turn;
use super::sample::Sample;
use super::source::bounded;
use super::state::{Answer, Clocks, Round};
use crate::network::Connection;
use crate::open::Inner;
use crate::replica::Replica;
use crate::status::{Peer, Role};

const ASK_EVERY: Duration = Duration::from_secs(1);
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// A hand-over that failed may leave the cluster without a leader for a moment: not again at once.
const HAND_OVER_AGAIN: Duration = Duration::from_secs(10);

/// Until the replica is dropped or the task aborted.
pub(crate) async fn compare(inner: Weak<Inner>) {
    let mut comparing = Comparing::default();
    loop {
        let Some(replica) = inner.upgrade().map(|inner| Replica { inner }) else { return };
        comparing.round(&replica).await;
        // At first as often as may be: this node does not stand for election before.
        let pause = match replica.inner.clocks.is_judged() {
            true => ASK_EVERY,
            false => Duration::from_millis(replica.inner.config.timers.heartbeat_ms).min(ASK_EVERY),
        };
        drop(replica);
        tokio::time::sleep(pause).await;
    }
}

#[derive(Debug, Default)]
struct Comparing {
    connections: BTreeMap<u64, (String, Connection)>,
    handed_over: Option<Instant>,
    // What has been said, and is not said again while it lasts.
    said_open: bool,
    said_held: bool,
    said_alone: bool,
}

impl Comparing {
    async fn round(&mut self, replica: &Replica) {
        let clocks = &replica.inner.clocks;
        let status = replica.status().borrow().clone();
        let me = replica.node_id();
        let voters = status.members.iter().filter(|member| member.voter).map(|member| member.peer.clone());
        let mut peers: Vec<Peer> = voters.filter(|peer| peer.id != me).collect();
        let mut has_members = !status.members.is_empty();
        if !has_members {
            peers = clocks.expected();
            has_members = !peers.is_empty();
            peers.retain(|peer| peer.id != me);
        }
        self.connect(replica, &peers);
        let asked = self.connections.iter().map(|(id, (_, connection))| ask(clocks, *id, connection));
        let answers = join_all(asked).await;
        let leader = status.leader.as_ref().map(|leader| leader.id);
        let heard = |alive: &[u64]| leader.is_some_and(|leader| leader == me || alive.contains(&leader));
        let round = clocks.hear(&answers, has_members, heard);
        self.say(clocks, &round);
        replica.inner.refresh_elections();
        self.hand_over(replica).await;
    }

    /// One connection to each peer, kept: what is asked over a new one takes longer, and says less.
    fn connect(&mut self, replica: &Replica, peers: &[Peer]) {
        self.connections
            .retain(|id, (address, _)| peers.iter().any(|peer| peer.id == *id && peer.address == *address));
        for peer in peers {
            self.connections.entry(peer.id).or_insert_with(|| {
                let connection = Connection::new(replica.inner.sender.clone(), peer.id, &peer.address);
                (peer.address.clone(), connection)
            });
        }
    }

    fn say(&mut self, clocks: &Clocks, round: &Round) {
        let (max, others) = (clocks.offset_max_ms, others(clocks));
        match round.turn {
            Some(Turn::Off { ahead_ms }) => error!(
                offset_ms = ahead_ms,
                max_offset_ms = max,
                "this node's clock is {} the median of the cluster's ({others}): it does not lead if another node can, \
                 until the clock is right; see to its NTP (chronyc tracking, timedatectl)",
                apart(ahead_ms)
            ),
            Some(Turn::RightAgain) => info!("this node's clock is right again: it may lead"),
            None => {}
        }
        let open = round.verdict.is_some_and(|verdict| verdict.is_open(max));
        if open && !self.said_open {
            warn!(
                max_offset_ms = max,
                "clocks differ ({others}), and too few are known or agree to say whose is wrong; see to NTP on all nodes"
            );
        }
        self.said_open = open;
        let held = round.held_ms != 0;
        if held && !self.said_held {
            warn!(
                jump_ms = round.held_ms,
                "this node's clock is {} the time it can vouch for: until a majority's clocks confirm it, batches are \
                 stamped without the difference",
                apart(round.held_ms)
            );
        }
        self.said_held = held;
    }

    async fn hand_over(&mut self, replica: &Replica) {
        let leads = replica.status().borrow().role == Role::Leader;
        if !leads || !replica.inner.clocks.is_off() {
            self.said_alone = false;
            return;
        }
        if self.handed_over.is_some_and(|at| at.elapsed() < HAND_OVER_AGAIN) {
            return;
        }
        let Some(to) = replica.right_successor() else {
            if !self.said_alone {
                warn!("no node with a right clock can take over: this node goes on leading");
            }
            self.said_alone = true;
            return;
        };
        self.said_alone = false;
        self.handed_over = Some(Instant::now());
        match replica.transfer_leadership(Some(to)).await {
            Ok(leader) => info!(leader, "handed the leadership over, because this node's clock is off"),
            Err(error) => {
                warn!(%error, to, "this node's clock is off, but the leadership was not taken over")
            }
        }
    }
}

async fn ask(clocks: &Clocks, id: u64, connection: &Connection) -> (u64, Answer) {
    let asked_ms = clocks.clock.run_ms();
    let answer = connection.clock(ASK_TIMEOUT).await;
    let answered_ms = clocks.clock.run_ms();
    let answer = match answer {
        // A release that does not say.
        Ok(0) => Answer::Unaware,
        Ok(wall_ms) => Answer::Clock(Sample::new(asked_ms, answered_ms, bounded(wall_ms))),
        Err(status) if matches!(status.code(), Code::Unimplemented | Code::PermissionDenied) => {
            Answer::Unaware
        }
        Err(_) => Answer::Silent,
    };
    (id, answer)
}

/// "5.0 s ahead of".
fn apart(ahead_ms: i64) -> String {
    let seconds = ahead_ms.unsigned_abs() as f64 / 1e3;
    format!("{seconds:.1} s {}", if ahead_ms < 0 { "behind" } else { "ahead of" })
}

/// "it is 5.0 s ahead of node 1's; node 2's is not known".
fn others(clocks: &Clocks) -> String {
    let peers = clocks.report().peers;
    let each = peers.iter().map(|peer| match peer.ahead_ms {
        Some(ahead_ms) => format!("it is {} node {}'s", apart(ahead_ms), peer.id),
        None => format!("node {}'s is not known", peer.id),
    });
    each.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use quorate_rpc::tls::Security;
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::service::Routes;
    use tonic::transport::Server;

    use super::*;
    use crate::clock::Clock;
    use crate::network::Sender;

    #[tokio::test]
    async fn a_peer_of_an_older_release_is_alive_and_a_dead_one_is_not() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        // It knows the service, or none: to a question that is not in it, gRPC answers the same.
        let server = Server::builder().add_routes(Routes::default());
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let stopped = async { stopped.await.unwrap_or_default() };
        let server =
            tokio::spawn(server.serve_with_incoming_shutdown(TcpListenerStream::new(listener), stopped));
        let sender = Sender { cluster: "test".into(), group: 0, node_id: 1, security: Security::Plain };
        let connection = Connection::new(sender, 2, &address);
        let clocks = Clocks::new(Clock::system(), 500, 0);
        let answer = ask(&clocks, 2, &connection).await;
        assert!(matches!(answer, (2, Answer::Unaware)), "{answer:?}");
        stop.send(()).unwrap();
        server.await.unwrap().unwrap();
        let silent = async {
            while !matches!(ask(&clocks, 2, &connection).await, (2, Answer::Silent)) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), silent).await.expect("the peer is gone");
    }

    #[test]
    fn sides_have_words() {
        assert_eq!(apart(5_012), "5.0 s ahead of");
        assert_eq!(apart(-600), "0.6 s behind");
    }
}
