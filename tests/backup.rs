//! Backups of real processes, and the way out when a majority is lost for good, as docs/operations.md describes it.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

mod support;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use quorate_ledger::{Amount, Charge, Command};
use quorate_rpc::admin::{Consistency, ListAccountsRequest};
use support::{Deployment, policy, request_of_100};

const MICROS: u64 = 1_000_000;

impl Deployment {
    fn data_dir(&self, id: usize) -> PathBuf {
        self.folder.path().join(format!("node-{id}"))
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// As an operator does with an editor: another name and another folder for each node.
    fn rename(&self, cluster: &str) {
        for id in 1..=3 {
            let path = self.path(&format!("node-{id}.yaml"));
            let config = fs::read_to_string(&path).unwrap();
            let data_dir = self.data_dir(id).display().to_string();
            let config =
                config.replace(&format!("data_dir: {data_dir}\n"), &format!("data_dir: {data_dir}-new\n"));
            fs::write(&path, config.replace("cluster: test\n", &format!("cluster: {cluster}\n"))).unwrap();
        }
    }

    async fn start_restored(&mut self, file: &str) {
        for id in 1..=3 {
            let config = self.path(&format!("node-{id}.yaml"));
            let said = self.quorate(&["restore", file, "--config", &config]).unwrap();
            assert!(said.contains(&format!("is node {id} of cluster test-")), "{said}");
        }
        for id in 1..=3 {
            self.nodes[id - 1] = self.spawn_node(id);
        }
        for http in self.node_http.clone() {
            self.wait_ready(&http).await;
        }
    }

    /// Spends 2 of each subject and holds 3 more; returns when all of it was acknowledged.
    async fn spend(&self, subjects: u64) {
        let client = self.client();
        for subject in 0..subjects {
            let spend = |units| Amount::from_units(units).unwrap();
            let reserve = |id| Command::Reserve {
                tenant: "default".into(),
                id,
                charges: vec![Charge {
                    budget: "user".into(),
                    subject: format!("s{subject}"),
                    amount: spend(3),
                    at_least: spend(3),
                }],
                ttl_ms: 3_600_000,
                wait: false,
            };
            let (spent, held) = (client.new_id(), client.new_id());
            for command in [
                reserve(spent),
                Command::Settle {
                    tenant: "default".into(),
                    id: spent,
                    actual: vec![spend(2)],
                    estimated: false,
                },
                reserve(held),
            ] {
                client.execute(command, Duration::from_secs(20)).await.unwrap();
            }
        }
    }

    async fn assert_spent(&self, subjects: u64) {
        let admin = self.admin();
        for subject in 0..subjects {
            let request = ListAccountsRequest { subject: format!("s{subject}"), ..Default::default() };
            let accounts = admin.list_accounts(request).await.unwrap().accounts;
            let of = |account: &quorate_rpc::admin::Account| (account.spent_micros, account.reserved_micros);
            assert_eq!(accounts.iter().map(of).collect::<Vec<_>>(), [(2 * MICROS, 3 * MICROS)], "s{subject}");
        }
        let violations = admin.check_invariants(Default::default()).await.unwrap().violations;
        assert_eq!(violations, Vec::<String>::new());
    }
}

/// The name that a command said the restored cluster could have.
fn name_in(said: &str) -> String {
    said.trim().rsplit(' ').next().unwrap().to_owned()
}

fn key_in(said: &str) -> String {
    said.lines().find(|line| line.starts_with("qk_")).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_was_acknowledged_survives_the_loss_of_a_majority() {
    let mut deployment = Deployment::start(&policy(250, "Lifetime")).await;
    let key =
        key_in(&deployment.quorate(&["keys", "create", "--tenant", "acme", "--user", "alice"]).unwrap());
    let bearer = format!("Bearer {key}");
    let body = request_of_100(false);
    let asks = async |deployment: &Deployment| {
        let headers = [("authorization", bearer.as_str())];
        deployment.chat_with(0, &headers, &body).await.map_or(0, |answer| answer.status)
    };
    deployment.until(async || asks(&deployment).await == 200).await;
    deployment.quorate(&["drain", "backend", "spare"]).unwrap();
    deployment.spend(20).await;
    // What the survivor has not received when the others die is lost; here it has all.
    let survivor = async || {
        let account = deployment.account(2, "user", "s19", Consistency::Stale).await;
        account.is_some_and(|account| {
            (account.spent_micros, account.reserved_micros) == (2 * MICROS, 3 * MICROS)
        })
    };
    deployment.until(survivor).await;

    for lost in [1, 2] {
        deployment.nodes[lost - 1].kill_9();
        fs::remove_dir_all(deployment.data_dir(lost)).unwrap();
    }
    let data_dir = deployment.data_dir(3).to_str().unwrap().to_owned();
    let running = deployment.quorate(&["check", &data_dir]).unwrap_err();
    assert!(running.contains("in use by another process"), "{running}");
    deployment.nodes[2].kill_9();

    let checked = deployment.quorate(&["check", &data_dir]).unwrap();
    assert!(checked.contains("all is well") && checked.contains("(term, index) = ("), "{checked}");
    println!("{checked}");
    let json: serde_json::Value =
        serde_json::from_str(&deployment.quorate(&["check", &data_dir, "--json"]).unwrap()).unwrap();
    assert_eq!(json["damage"], serde_json::json!([]));
    assert!(json["log"]["last"]["index"].as_u64().unwrap() > 20);
    let file = deployment.path("survivor.quorate");
    let said = deployment.quorate(&["backup", &file, "--data-dir", &data_dir]).unwrap();
    println!("{said}");
    let config = deployment.path("node-1.yaml");
    let same_name = deployment.quorate(&["restore", &file, "--config", &config]).unwrap_err();
    assert!(same_name.contains(&name_in(&said)), "{same_name}");
    println!("{same_name}");
    deployment.rename(&name_in(&said));
    deployment.start_restored(&file).await;

    deployment.assert_spent(20).await;
    // The key is known, its user's budget is where it was, and the policy can be changed.
    deployment.until(async || asks(&deployment).await == 200).await;
    assert_eq!(asks(&deployment).await, 429);
    let providers = deployment.quorate(&["get", "providers"]).unwrap();
    assert!(providers.contains("spare") && providers.contains("drained"), "{providers}");
    let audit = deployment.admin().list_audit(Default::default()).await.unwrap().records;
    assert!(audit.len() >= 3, "{audit:?}");
    let raised = deployment.path("raised.yaml");
    fs::write(&raised, policy(1_000, "Lifetime")).unwrap();
    deployment.quorate(&["apply", "-f", &raised]).unwrap();
    deployment.until(async || asks(&deployment).await == 200).await;
    deployment.spend(20).await;
    // The survivor comes back as it was: it is told that it is another cluster's.
    let old = fs::read_to_string(deployment.path("node-3.yaml")).unwrap();
    let old = old.replace(&format!("cluster: {}", name_in(&said)), "cluster: test");
    let old = old.replace(&format!("data_dir: {data_dir}-new"), &format!("data_dir: {data_dir}"));
    deployment.nodes[2].kill_9();
    fs::write(deployment.path("node-3.yaml"), old).unwrap();
    let (code, output) = deployment.spawn_node(3).wait();
    assert_eq!(code, Some(1));
    assert!(output.contains("belongs to cluster test-"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_running_cluster_is_restored_with_everything_in_it() {
    let mut deployment = Deployment::without_gateways(&policy(250, "Lifetime")).await;
    deployment.spend(10).await;
    let file = deployment.path("running.quorate");
    // Any node takes the call.
    let leader = deployment.leader().await;
    let follower = deployment.node_addresses[(leader + 1) % 3].clone();
    let said = deployment.quorate(&["backup", &file, "--nodes", &follower]).unwrap();
    println!("{said}");
    assert!(said.contains("cluster test, ") && said.contains(" 10 accounts, 10 open reservations"), "{said}");
    let again = deployment.quorate(&["backup", &file]).unwrap_err();
    assert!(again.contains("is there already"), "{again}");
    // What comes later is not in it.
    deployment.spend(10).await;
    for node in &mut deployment.nodes {
        node.kill_9();
    }
    let unreachable = deployment.path("none.quorate");
    deployment.quorate(&["backup", &unreachable]).unwrap_err();
    assert!(!fs::exists(&unreachable).unwrap() && !fs::exists(format!("{unreachable}.partial")).unwrap());
    deployment.rename(&name_in(&said));
    deployment.start_restored(&file).await;
    deployment.assert_spent(10).await;
    let config = deployment.path("node-1.yaml");
    let twice = deployment.quorate(&["restore", &file, "--config", &config]).unwrap_err();
    assert!(twice.contains("is not empty"), "{twice}");
    // A damaged folder is said to be so, by exit code too, and where.
    deployment.nodes[0].kill_9();
    let folder = format!("{}-new", deployment.data_dir(1).display());
    fs::write(format!("{folder}/log/end"), "rubbish").unwrap();
    let damaged = deployment.quorate(&["check", &folder]).unwrap_err();
    println!("{damaged}");
    assert!(damaged.contains("file \"end\" cannot be read") && damaged.contains("--rebuild"), "{damaged}");
    let salvaged = deployment.path("salvaged.quorate");
    let from_folder = ["backup", &salvaged, "--data-dir", &folder];
    let refused = deployment.quorate(&from_folder).unwrap_err();
    assert!(refused.contains("--salvage") && !fs::exists(&salvaged).unwrap(), "{refused}");
    let said = deployment.quorate(&[&from_folder[..], &["--salvage"]].concat()).unwrap();
    assert!(said.contains(" 10 accounts, 10 open reservations"), "{said}");
}
