//! Clients and nodes that do not answer.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use quorate_ledger::{Command, Outcome};
use quorate_rpc::budget::budget_server::{Budget, BudgetServer};
use quorate_rpc::budget::result::Kind;
use quorate_rpc::budget::{
    Operation, Released, Result as WireResult, SessionRequest, SessionResponse, WatchEvent, WatchRequest,
};
use quorate_rpc::tls::Security;
use quorate_rpc::{Client, ClientConfig, LEADER_HEADER};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming};

/// A node that decides everything, and says that another one leads.
#[derive(Debug)]
struct Follower {
    leader: String,
}

fn released() -> WireResult {
    WireResult { kind: Some(Kind::Released(Released::default())), ..WireResult::default() }
}

#[tonic::async_trait]
impl Budget for Follower {
    type SessionStream = BoxStream<'static, Result<SessionResponse, Status>>;
    type WatchStream = BoxStream<'static, Result<WatchEvent, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let answers = request.into_inner().map(|request| {
            request
                .map(|SessionRequest { sequence, .. }| SessionResponse { sequence, result: Some(released()) })
        });
        let mut response = Response::new(answers.boxed());
        response.metadata_mut().insert(LEADER_HEADER, self.leader.parse().unwrap());
        Ok(response)
    }

    async fn execute(&self, _: Request<Operation>) -> Result<Response<WireResult>, Status> {
        Ok(Response::new(released()))
    }

    async fn watch(
        &self,
        _: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Ok(Response::new(stream::pending().boxed()))
    }
}

/// A node that decides, and one that takes connections, says nothing, and is said to lead.
async fn nodes() -> (String, TcpListener) {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let leader = silent.local_addr().unwrap().to_string();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = tonic::transport::Server::builder()
        .add_service(BudgetServer::new(Follower { leader }))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(serving);
    (address, silent)
}

fn client(nodes: Vec<String>) -> Client {
    let security = Security::Plain;
    Client::connect(ClientConfig { name: "test".to_owned(), nodes, operation_timeout_ms: 2_000, security })
}

async fn releases(client: &Client, within: Duration) -> bool {
    let release = Command::Release { tenant: "acme".to_owned(), id: client.new_id() };
    client.execute(release, within).await.is_ok_and(|executed| executed.outcome == Outcome::Released)
}

#[tokio::test]
async fn nobody_waits_for_a_leader_that_says_nothing() {
    let (follower, _silent) = nodes().await;
    assert!(releases(&client(vec![follower]), Duration::from_secs(1)).await);
}

/// However little time a caller has: the next one asks another node.
#[tokio::test]
async fn a_node_that_says_nothing_is_gone_around() {
    let (follower, silent) = nodes().await;
    let client = client(vec![silent.local_addr().unwrap().to_string(), follower]);
    let short = Duration::from_secs(1);
    assert!(!releases(&client, short).await);
    assert!(releases(&client, short).await);
}
