//! Which gateways there are: each member knows those that watch it, so all are asked.

use std::time::Duration;

use futures_util::future::join_all;
use quorate_replica::{Member, Replica};
use quorate_rpc::admin;
use quorate_rpc::admin::admin_client::AdminClient;

use crate::forward::forwarded;

/// For one member: a dead one must not hold up the answer.
const ANSWER_WITHIN: Duration = Duration::from_millis(1_200);

/// Those of this node and, unless the question came from a member, those of all others.
pub(crate) async fn list(
    replica: &Replica,
    own: Vec<admin::Gateway>,
    ask_others: bool,
) -> admin::ListGatewaysResponse {
    let mut gateways = own;
    let mut policy_version = replica.read(|ledger, _| ledger.policy_version());
    if ask_others {
        let members = replica.status().borrow().members.clone();
        let others = members.iter().filter(|member| member.peer.id != replica.node_id());
        for answer in join_all(others.map(|member| ask(replica, member))).await.into_iter().flatten() {
            gateways.extend(answer.gateways);
            // Who has applied most knows best.
            policy_version = policy_version.max(answer.policy_version);
        }
        gateways.sort_by(|one, other| (&one.name, &one.address).cmp(&(&other.name, &other.address)));
    }
    admin::ListGatewaysResponse { policy_version, gateways }
}

async fn ask(replica: &Replica, member: &Member) -> Option<admin::ListGatewaysResponse> {
    let asked = async {
        let channel = replica.channel(&member.peer.address).ok()?;
        let mut request = forwarded(admin::ListGatewaysRequest {});
        request.set_timeout(ANSWER_WITHIN);
        let response = AdminClient::new(channel).list_gateways(request).await.ok()?;
        Some(response.into_inner())
    };
    tokio::time::timeout(ANSWER_WITHIN, asked).await.ok().flatten()
}
