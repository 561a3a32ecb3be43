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

#[tokio::test]
async fn a_leader_that_takes_connections_and_says_nothing_is_gone_around() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let leader = silent.local_addr().unwrap().to_string();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nodes = vec![listener.local_addr().unwrap().to_string()];
    let serving = tonic::transport::Server::builder()
        .add_service(BudgetServer::new(Follower { leader }))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(serving);
    let config = ClientConfig {
        name: "test".to_owned(),
        nodes,
        operation_timeout_ms: 2_000,
        security: Security::Plain,
    };
    let client = Client::connect(config);

    let release = Command::Release { tenant: "acme".to_owned(), id: client.new_id() };
    let executed = client.execute(release, Duration::from_secs(5)).await.unwrap();

    assert_eq!(executed.outcome, Outcome::Released);
    drop(silent);
}
