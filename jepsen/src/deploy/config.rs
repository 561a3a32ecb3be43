//! The config files of nodes and gateways, as text.

use std::path::Path;

use super::{BACKENDS, NodePlace};

/// Small, so that a node that was away for some seconds needs a snapshot.
const SNAPSHOT_EVERY: u64 = 500;
/// And this many entries are kept behind it.
pub const LOG_KEEP: u64 = 500;

/// Short, so that a run sees their ends: reservations of a killed gateway expire after 15 s, a lost probe after 3.
const GATEWAY_TIMEOUTS: &str =
    "first_byte_ms: 2000, idle_ms: 3000, total_ms: 10000, settle_ms: 5000, probe_ms: 3000";

/// Proxies settle at the gateway at which they reserved, mostly; what they never settle ends soon.
const RATE_LIMIT: &str = "hold_from_leases: true, reservation_ms: 25000";

/// The gateway whose answers do not wait for their settlements, counted from 0.
pub const SETTLES_BEHIND: usize = 1;

/// `previous`: for a release that may not know all keys.
pub fn node(me: &NodePlace, members: &[NodePlace], data: &Path, previous: bool) -> String {
    let peer = |place: &NodePlace| format!("  - {{id: {}, address: \"{}\"}}\n", place.id, place.address);
    let peers: String = members.iter().map(peer).collect();
    let keep = if previous { String::new() } else { format!("  log_keep_entries: {LOG_KEEP}\n") };
    format!(
        "cluster: jepsen\nid: {}\nlisten: \"{}\"\nhttp_listen: \"{}\"\ndata_dir: \"{}\"\npeers:\n{peers}\
         limits:\n  snapshot_every_entries: {SNAPSHOT_EVERY}\n{keep}",
        me.id,
        me.address,
        me.http,
        data.display(),
    )
}

/// Where a gateway listens: for applications, for who looks at it, and for proxies.
#[derive(Debug, Clone)]
pub struct GatewayPlace {
    pub address: String,
    pub http: String,
    pub rate_limit: String,
}

/// `provider` gives the address of the provider behind a backend.
pub fn gateway(
    number: usize,
    place: &GatewayPlace,
    nodes: &[String],
    provider: impl Fn(&str) -> String,
) -> String {
    let GatewayPlace { address, http, rate_limit } = place;
    let nodes = nodes.join("\", \"");
    let backend = |(backend, model): (&str, &str)| {
        let url = format!("http://{}/v1", provider(backend));
        format!("  - {{name: {backend}, provider: OpenAI, base_url: \"{url}\", models: [{model}]}}\n")
    };
    let backends: String = BACKENDS.into_iter().map(backend).collect();
    let wait = if number == SETTLES_BEHIND { ", settle_wait_ms: 0" } else { "" };
    format!(
        "name: {}\nlisten: \"{address}\"\nhttp_listen: \"{http}\"\nnodes: [\"{nodes}\"]\nbackends:\n{backends}\
         timeouts: {{{GATEWAY_TIMEOUTS}{wait}}}\nrate_limit: {{listen: \"{rate_limit}\", {RATE_LIMIT}}}\n",
        gateway_name(number),
    )
}

pub fn gateway_name(number: usize) -> String {
    format!("gateway-{}", number + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(id: u64) -> NodePlace {
        let at = |port| format!("10.0.0.{id}:{port}");
        NodePlace { id, address: at(7701), http: at(7702) }
    }

    fn gateway_place() -> GatewayPlace {
        let [address, http, rate_limit] = [8080, 8081, 8082].map(|port| format!("10.0.1.1:{port}"));
        GatewayPlace { address, http, rate_limit }
    }

    #[test]
    fn a_node_knows_its_members_and_itself() {
        let text = node(&place(2), &[place(1), place(2)], Path::new("/run/node-2"), false);
        assert!(text.contains("id: 2\nlisten: \"10.0.0.2:7701\"\n"), "{text}");
        assert!(text.contains("  - {id: 1, address: \"10.0.0.1:7701\"}\n"), "{text}");
        assert!(text.contains("data_dir: \"/run/node-2\"\n"), "{text}");
    }

    #[test]
    fn a_gateway_has_every_backend() {
        let nodes = ["10.0.0.1:7701".to_owned(), "10.0.0.2:7701".to_owned()];
        let text = gateway(0, &gateway_place(), &nodes, |name| format!("{name}:1"));
        assert!(text.contains("rate_limit: {listen: \"10.0.1.1:8082\", hold_from_leases: true"), "{text}");
        assert!(text.contains("nodes: [\"10.0.0.1:7701\", \"10.0.0.2:7701\"]"), "{text}");
        for (backend, model) in BACKENDS {
            let line = format!("base_url: \"http://{backend}:1/v1\", models: [{model}]");
            assert!(text.contains(&line), "{text}");
        }
    }

    #[test]
    fn one_gateway_settles_behind_its_answers() {
        let text = |number| gateway(number, &gateway_place(), &[], |_| String::new());
        assert!(text(SETTLES_BEHIND).contains("settle_wait_ms: 0}"), "{}", text(SETTLES_BEHIND));
        assert!(!text(0).contains("settle_wait_ms"), "{}", text(0));
    }
}
