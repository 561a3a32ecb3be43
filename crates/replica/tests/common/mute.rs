//! A node that says who it is, and then nothing: as one that dies while it is added.

use quorate_replica::Peer;
use quorate_rpc::raft::raft_server::RaftServer;
use quorate_rpc::raft::{ClockRequest, ClockResponse, IdentifyRequest, IdentifyResponse, RaftMessage};
use tokio::task::JoinHandle;
use tonic::{Request, Response, Status, Streaming};

/// Says that it is a new node, and then nothing more.
#[derive(Debug)]
struct Mute {
    peer: Peer,
}

#[tonic::async_trait]
impl quorate_rpc::raft::raft_server::Raft for Mute {
    async fn call(&self, _: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        Err(Status::unavailable("dead"))
    }

    type AppendStream = futures_util::stream::BoxStream<'static, Result<RaftMessage, Status>>;

    async fn append(
        &self,
        _: Request<Streaming<RaftMessage>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        Err(Status::unavailable("dead"))
    }

    async fn install_snapshot(
        &self,
        _: Request<Streaming<RaftMessage>>,
    ) -> Result<Response<RaftMessage>, Status> {
        Err(Status::unavailable("dead"))
    }

    async fn clock(&self, _: Request<ClockRequest>) -> Result<Response<ClockResponse>, Status> {
        Err(Status::unavailable("dead"))
    }

    async fn identify(&self, _: Request<IdentifyRequest>) -> Result<Response<IdentifyResponse>, Status> {
        Ok(Response::new(IdentifyResponse {
            cluster: crate::common::CLUSTER.to_owned(),
            node_id: self.peer.id,
            incarnation: vec![7; 16].into(),
            log_version: 1,
            ..Default::default()
        }))
    }
}

pub async fn mute(peer: &Peer) -> JoinHandle<Result<(), tonic::transport::Error>> {
    let listener = tokio::net::TcpListener::bind(&peer.address).await.unwrap();
    let mute = RaftServer::new(Mute { peer: peer.clone() });
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    tokio::spawn(tonic::transport::Server::builder().add_service(mute).serve_with_incoming(incoming))
}
