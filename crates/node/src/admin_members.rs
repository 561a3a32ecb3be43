//! Changing the membership: checks what operators send, and has whoever leads do it. A leader that is to go hands over
//! first, so the call follows the leadership.

use std::sync::Arc;
use std::time::Duration;

use quorate_replica::{Changed, MembershipError, Peer, Replica};
use quorate_rpc::admin;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::admin_changes::by;
use crate::error::membership_status;
use crate::forward::{Forwarder, admin_client, forwarded_for};

const ADDRESS_MAX_BYTES: usize = 256;
/// A little less than the client's own.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(320);
/// One leader after the other, while there is none or it has just changed.
const ATTEMPTS: usize = 8;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(400);

#[derive(Debug, Clone)]
pub(crate) struct Members {
    pub replica: Replica,
    pub forwarder: Arc<Forwarder>,
}

/// One change, whoever does it.
#[derive(Debug, Clone)]
enum Change {
    Add(Peer),
    Remove(u64),
    Replace(u64, Peer),
}

impl Members {
    pub async fn add(
        &self,
        request: Request<admin::AddNodeRequest>,
    ) -> Result<admin::AddNodeResponse, Status> {
        let change = Change::Add(peer("id", request.get_ref().id, &request.get_ref().address)?);
        let Changed { changed, voters } = self.on_leader(request.metadata(), &change).await?;
        Ok(admin::AddNodeResponse { changed, voters })
    }

    pub async fn remove(
        &self,
        request: Request<admin::RemoveNodeRequest>,
    ) -> Result<admin::RemoveNodeResponse, Status> {
        let change = Change::Remove(request.get_ref().id);
        let Changed { changed, voters } = self.on_leader(request.metadata(), &change).await?;
        Ok(admin::RemoveNodeResponse { changed, voters })
    }

    pub async fn replace(
        &self,
        request: Request<admin::ReplaceNodeRequest>,
    ) -> Result<admin::ReplaceNodeResponse, Status> {
        let asked = request.get_ref();
        let change = Change::Replace(asked.old_id, peer("new_id", asked.new_id, &asked.address)?);
        let Changed { changed, voters } = self.on_leader(request.metadata(), &change).await?;
        Ok(admin::ReplaceNodeResponse { changed, voters })
    }

    async fn on_leader(&self, metadata: &MetadataMap, change: &Change) -> Result<Changed, Status> {
        let mut last = Status::unavailable("nobody leads");
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(BETWEEN_ATTEMPTS).await;
            }
            let answer = match self.forwarder.elsewhere(metadata) {
                Ok(None) => self.here(&by(metadata), change).await.map_err(membership_status),
                Ok(Some(channel)) => {
                    there(channel, metadata, change.clone()).await.map_err(of_an_older_leader)
                }
                Err(undecided) => Err(undecided.into()),
            };
            match answer {
                Err(status) if status.code() == Code::Unavailable => last = status,
                answer => return answer,
            }
        }
        Err(last)
    }

    async fn here(&self, by: &str, change: &Change) -> Result<Changed, MembershipError> {
        match change {
            Change::Add(peer) => self.replica.add_node(peer, by).await,
            Change::Remove(id) => self.replica.remove_node(*id, by).await,
            Change::Replace(old, new) => self.replica.replace_node(*old, new, by).await,
        }
    }
}

async fn there(channel: Channel, metadata: &MetadataMap, change: Change) -> Result<Changed, Status> {
    let mut leader = admin_client(channel);
    match change {
        Change::Add(Peer { id, address }) => {
            let request = passed_on(metadata, admin::AddNodeRequest { id, address });
            let admin::AddNodeResponse { changed, voters } = leader.add_node(request).await?.into_inner();
            Ok(Changed { changed, voters })
        }
        Change::Remove(id) => {
            let request = passed_on(metadata, admin::RemoveNodeRequest { id });
            let admin::RemoveNodeResponse { changed, voters } =
                leader.remove_node(request).await?.into_inner();
            Ok(Changed { changed, voters })
        }
        Change::Replace(old_id, Peer { id: new_id, address }) => {
            let request = passed_on(metadata, admin::ReplaceNodeRequest { old_id, new_id, address });
            let admin::ReplaceNodeResponse { changed, voters } =
                leader.replace_node(request).await?.into_inner();
            Ok(Changed { changed, voters })
        }
    }
}

/// In a rolling update.
fn of_an_older_leader(status: Status) -> Status {
    match status.code() {
        Code::Unimplemented => Status::failed_precondition(
            "the leader runs a release that cannot change the membership; update all nodes first",
        ),
        _ => status,
    }
}

fn passed_on<T>(metadata: &MetadataMap, message: T) -> Request<T> {
    let mut request = Request::new(message);
    *request.metadata_mut() = metadata.clone();
    forwarded_for(request, FORWARD_TIMEOUT)
}

fn peer(field: &str, id: u64, address: &str) -> Result<Peer, Status> {
    let address = address.trim();
    if id == 0 {
        return Err(Status::invalid_argument(format!("{field}: ids start at 1")));
    }
    let has_port = address
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0));
    if !has_port || address.len() > ADDRESS_MAX_BYTES || quorate_rpc::check_address(address).is_err() {
        let shown = &address[..address.floor_char_boundary(ADDRESS_MAX_BYTES)];
        return Err(Status::invalid_argument(format!("address: {shown:?} is no host:port")));
    }
    Ok(Peer { id, address: address.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for (id, address, good) in [
            (4, "10.0.0.4:7701", true),
            (4, " node-4.example:7701 ", true),
            (4, "[::1]:7701", true),
            (0, "10.0.0.4:7701", false),
            (4, "", false),
            (4, "10.0.0.4", false),
            (4, ":7701", false),
            (4, "10.0.0.4:0", false),
            (4, "10.0.0.4:77777", false),
            (4, "ten four:7701", false),
        ] {
            assert_eq!(peer("id", id, address).is_ok(), good, "{id} {address:?}");
        }
        assert!(peer("id", 4, &format!("{}:7701", "ä".repeat(300))).is_err());
    }
}
