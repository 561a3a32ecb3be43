//! Operating the membership of real processes: nodes come and go while clients spend, and every token is counted once.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

mod support;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quorate_ledger::{Amount, Charge, Command};
use quorate_rpc::admin::Consistency;
use quorate_rpc::tls::Security;
use quorate_rpc::{Client, ClientConfig};
use support::{Deployment, Process, free_address, node_config, policy, request_of_100};

const MICROS: u64 = 1_000_000;
const TIMEOUT: Duration = Duration::from_secs(60);

/// The config of one more node, with this list of members and itself; its process.
fn one_more(deployment: &Deployment, id: usize, addresses: &[String]) -> Process {
    let folder = deployment.folder.path();
    let config = node_config(id, addresses, &free_address(), &folder.join(format!("node-{id}")));
    std::fs::write(folder.join(format!("node-{id}.yaml")), config).unwrap();
    deployment.spawn_node(id)
}

fn run(deployment: &Deployment, command: &str) -> Result<String, String> {
    let arguments: Vec<&str> = command.split_whitespace().collect();
    let done = tokio::task::block_in_place(|| deployment.quorate(&arguments));
    println!("$ quorate {command}\n{}", done.as_ref().unwrap_or_else(|error| error));
    done
}

/// Spends a token after the other until it is told to stop; how many.
async fn spend(client: Client, stop: Arc<AtomicBool>) -> u64 {
    let amount = Amount::from_units(1).unwrap();
    let mut spent = 0;
    while !stop.load(Ordering::Relaxed) {
        let (tenant, id) = ("default".to_owned(), client.new_id());
        let charge = Charge { budget: "user".into(), subject: "alice".into(), amount, at_least: amount };
        let reserve = Command::Reserve {
            tenant: tenant.clone(),
            id,
            charges: vec![charge],
            ttl_ms: 3_600_000,
            wait: false,
        };
        client.execute(reserve, TIMEOUT).await.unwrap();
        let settle = Command::Settle { tenant, id, actual: vec![amount], estimated: false };
        client.execute(settle, TIMEOUT).await.unwrap();
        spent += 1;
    }
    spent
}

fn client_of(nodes: &[String]) -> Client {
    let nodes = nodes.to_vec();
    let security = Security::Plain;
    Client::connect(ClientConfig { name: "test".to_owned(), nodes, operation_timeout_ms: 5_000, security })
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_come_and_go_while_clients_spend() {
    let mut deployment = Deployment::without_gateways(&policy(1_000_000_000, "Lifetime")).await;
    deployment.start_gateway(&[]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let clients = (0..4).map(|_| spend(client_of(&deployment.node_addresses), stop.clone()));
    let clients: Vec<_> = clients.map(tokio::spawn).collect();
    let mut addresses = deployment.node_addresses.clone();
    addresses.push(free_address());
    let four = one_more(&deployment, 4, &addresses);
    let waits = "An operator has to add it: `quorate nodes add --id 4 --address";
    deployment.until(async || four.output().contains(waits)).await;
    let added = run(&deployment, &format!("nodes add --id 4 --address {}", addresses[3])).unwrap();
    assert_eq!(added, "node 4 added; voters: 1, 2, 3, 4\n");

    let leader = deployment.leader().await;
    let id = leader + 1;
    run(&deployment, &format!("nodes remove {id}")).unwrap();
    let (code, output) = std::mem::replace(&mut deployment.nodes[leader], four).wait();
    assert!(
        code == Some(1) && output.contains(&format!("error: node {id} was removed from the cluster test")),
        "{output}"
    );
    let (code, output) = deployment.spawn_node(id).wait();
    assert!(code == Some(1) && output.contains(&format!("quorate nodes add --id {id}")), "{output}");

    addresses.push(free_address());
    let five = one_more(&deployment, 5, &addresses);
    let old = (0..3).find(|index| *index != leader).unwrap();
    let replace = format!("nodes replace {} --id 5 --address {}", old + 1, addresses[4]);
    let replaced = run(&deployment, &replace).unwrap();
    let last = (0..3).find(|index| *index != leader && *index != old).unwrap();
    assert_eq!(replaced, format!("node {} replaced by node 5; voters: {}, 4, 5\n", old + 1, last + 1));
    let (code, output) = std::mem::replace(&mut deployment.nodes[old], five).wait();
    assert!(code == Some(1) && output.contains("was removed from the cluster"), "{output}");

    assert!(run(&deployment, "nodes remove 9").unwrap_err().contains("there is no node 9; the members are"));
    run(&deployment, "nodes transfer-leader --to 5").unwrap();
    // The gateway knows the first three only, of which one is left.
    let answer = deployment.chat(0, "alice", &request_of_100(false)).await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    stop.store(true, Ordering::Relaxed);
    let mut spent = 100;
    for client in clients {
        let done = client.await.unwrap();
        assert!(done > 0, "a client never ran");
        spent += done;
    }
    run(&deployment, "nodes list").unwrap();
    let audit = run(&deployment, "history audit").unwrap();
    assert!(
        ["add node", "remove node", "replace node"].iter().all(|action| audit.contains(action)),
        "{audit}"
    );
    for index in [last, 3, 4] {
        deployment.node_addresses = vec![addresses[index].clone()];
        let account = deployment.account(0, "user", "alice", Consistency::Linearizable).await.unwrap();
        assert_eq!((account.spent_micros / MICROS, account.reserved_micros), (spent, 0));
        let violations = deployment.admin().check_invariants(Default::default()).await.unwrap().violations;
        assert_eq!(violations, Vec::<String>::new());
    }
}

/// Folders that were moved aside.
fn aside(deployment: &Deployment) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(deployment.folder.path()).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.to_string_lossy().contains("node-2.damaged-")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_node_is_rebuilt_by_one_command() {
    let mut deployment = Deployment::without_gateways(&policy(1_000_000_000, "Lifetime")).await;
    let folder = deployment.folder.path().to_owned();
    let config = folder.join("node-2.yaml");
    let config = config.to_str().unwrap().to_owned();
    let start = |more: &[&str]| {
        let arguments = [&["node", "--config", &config], more].concat();
        Process::start(&folder, "node-2", &arguments)
    };
    // While it runs, nobody takes its folder away: not under its own address, and not under another.
    let (grpc, http) = (free_address(), free_address());
    let advertise = deployment.node_addresses[1].clone();
    let other = ["--rebuild", "--listen", &grpc, "--http-listen", &http, "--advertise", &advertise];
    let (code, output) = start(&other).wait();
    assert!(code == Some(1) && output.contains("is in use by another process"), "{output}");
    assert!(aside(&deployment).is_empty());
    deployment.nodes[1].kill_9();
    std::fs::write(folder.join("node-2").join("standing"), "rubbish").unwrap();
    let (code, output) = start(&[]).wait();
    assert!(code == Some(1) && output.contains("`quorate node --config FILE --rebuild`"), "{output}");
    deployment.nodes[1] = start(&["--rebuild"]);
    let http = deployment.node_http[1].clone();
    deployment.wait_ready(&http).await;
    assert_eq!(aside(&deployment).len(), 1, "{:?}", aside(&deployment));
    // It counts again: with another one killed, the two decide.
    deployment
        .until(async || {
            let nodes = deployment.admin().list_nodes(Default::default()).await.unwrap().nodes;
            nodes.len() == 3 && nodes.iter().all(|node| node.voter && node.role != "unreachable")
        })
        .await;
    deployment.nodes[2].kill_9();
    let stop = Arc::new(AtomicBool::new(false));
    let client = tokio::spawn(spend(deployment.client(), stop.clone()));
    deployment.until_account("user", "alice", |account| account.spent_micros > 10 * MICROS).await;
    stop.store(true, Ordering::Relaxed);
    client.await.unwrap();
    // Nobody could give it back what it has.
    deployment.nodes.iter_mut().for_each(Process::kill_9);
    let (code, output) = start(&["--rebuild"]).wait();
    assert!(
        code == Some(1) && output.contains("none of the other nodes of cluster test knows a leader"),
        "{output}"
    );
    assert_eq!(aside(&deployment).len(), 1);
}
