//! Real processes over TLS, with certificates of `quorate certs`: its own words are pasted into the configs.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::rt::TokioExecutor;
use support::{Process, free_address, node_config, policy, request_of_100};

const READY_WITHIN: Duration = Duration::from_secs(60);

/// The command line, with no more of an environment than it is given.
fn quorate(arguments: &[&str], environment: &BTreeMap<String, String>) -> Result<String, String> {
    let output = Command::new(env!("CARGO_BIN_EXE_quorate"))
        .args(arguments)
        .envs(environment)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Three nodes, a provider and a gateway.
struct Secured {
    folder: tempfile::TempDir,
    nodes: Vec<String>,
    /// What `quorate certs init` said, by holder.
    said: BTreeMap<String, String>,
    gateway: String,
    /// Of node 1.
    metrics: String,
    processes: BTreeMap<String, Process>,
}

fn host(address: &str) -> &str {
    address.rsplit_once(':').unwrap().0
}

impl Secured {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let nodes: Vec<String> = (0..3).map(|_| free_address()).collect();
        let mut made = Self {
            nodes,
            said: BTreeMap::new(),
            gateway: free_address(),
            metrics: free_address(),
            processes: BTreeMap::new(),
            folder,
        };
        made.certificates(&["init"]);
        for id in 1..=3 {
            made.start_node(id);
        }
        let policy_file = made.path("policy.yaml");
        std::fs::write(&policy_file, policy(1_000_000, "Lifetime")).unwrap();
        let apply = ["apply", "-f", policy_file.to_str().unwrap()];
        let deadline = Instant::now() + READY_WITHIN;
        while let Err(error) = made.run(&apply, "alice") {
            assert!(Instant::now() < deadline, "{error}");
        }
        made.start_gateway().await;
        made
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes those of all, or makes them again.
    fn certificates(&mut self, how: &[&str]) {
        let certs = self.path("certs");
        let holders: Vec<String> =
            self.nodes.iter().zip(1..).map(|(address, id)| format!("{id}={}", host(address))).collect();
        let nodes = holders.iter().flat_map(|holder| ["--node", holder.as_str()]);
        let others = ["--gateway", "gateway-1", "--operator", "alice=admin", "--operator", "bob=read"];
        let arguments: Vec<&str> = ["certs"]
            .into_iter()
            .chain(how.iter().copied())
            .chain(["--dir", certs.to_str().unwrap()])
            .chain(nodes)
            .chain(others)
            .collect();
        self.take_down(&arguments);
    }

    /// Runs `quorate certs`, and keeps what it says of each holder.
    fn take_down(&mut self, arguments: &[&str]) {
        let said = quorate(arguments, &BTreeMap::new()).unwrap();
        for paragraph in said.split("\n\n").filter(|paragraph| paragraph.starts_with("# ")) {
            let (head, rest) = paragraph.split_once('\n').unwrap();
            let name = head.trim_start_matches("# ").split(' ').next().unwrap();
            self.said.insert(name.to_owned(), format!("{rest}\n"));
        }
    }

    fn start_node(&mut self, id: usize) {
        self.start_node_with(id, &[]);
    }

    fn start_node_with(&mut self, id: usize, more: &[&str]) {
        let (name, data) = (format!("node-{id}"), self.path(&format!("node-{id}")));
        let http = if id == 1 { self.metrics.clone() } else { free_address() };
        let config = node_config(id, &self.nodes, &http, &data) + &self.said[&name];
        let file = self.path(&format!("{name}.yaml"));
        std::fs::write(&file, config).unwrap();
        let arguments = [&["node", "--config", file.to_str().unwrap()], more].concat();
        let process = Process::start(self.folder.path(), &name, &arguments);
        self.processes.insert(name, process);
    }

    async fn start_gateway(&mut self) {
        let provider = free_address();
        let started =
            Process::start(self.folder.path(), "provider", &["mock-provider", "--listen", &provider]);
        self.processes.insert("provider".to_owned(), started);
        let (file, http) = (self.path("gateway-1.yaml"), free_address());
        let config = format!(
            "name: gateway-1\nlisten: {}\nhttp_listen: {http}\nnodes: [\"{}\"]\nbackends:\n  - {{name: mock, provider: OpenAI, base_url: \"http://{provider}/v1\"}}\n{}",
            self.gateway,
            self.nodes.join("\", \""),
            self.said["gateway-1"]
        );
        std::fs::write(&file, config).unwrap();
        let process =
            Process::start(self.folder.path(), "gateway-1", &["gateway", "--config", file.to_str().unwrap()]);
        self.processes.insert("gateway-1".to_owned(), process);
        let deadline = Instant::now() + READY_WITHIN;
        while self.chat().await != Some(200) {
            assert!(Instant::now() < deadline, "the gateway does not serve");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn chat(&self) -> Option<u16> {
        let http = HttpClient::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let request = Request::post(format!("http://{}/v1/chat/completions", self.gateway))
            .header("content-type", "application/json")
            .header("x-user-id", "alice")
            .body(Full::new(Bytes::from(request_of_100(false).to_string())))
            .unwrap();
        let response = http.request(request).await.ok()?;
        let status = response.status().as_u16();
        response.into_body().collect().await.ok()?;
        Some(status)
    }

    /// The command line as `who`.
    fn run(&self, arguments: &[&str], who: &str) -> Result<String, String> {
        let exports = self.said[who].lines().map(|line| line.strip_prefix("export ").unwrap());
        let environment = exports.map(|line| line.split_once('=').unwrap());
        let mut environment: BTreeMap<String, String> =
            environment.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        environment.insert("QUORATE_NODES".to_owned(), self.nodes.join(","));
        environment.insert("QUORATE_BY".to_owned(), "somebody".to_owned());
        quorate(arguments, &environment)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_with_certificates_of_its_own() {
    let mut secured = Secured::start().await;
    let nodes = secured.run(&["get", "nodes"], "bob").unwrap();
    assert_eq!(nodes.matches("follower").count(), 2, "{nodes}");
    assert!(!nodes.contains("unreachable"), "{nodes}");

    // Each may do what its certificate says, and what it changed is signed with its name.
    let top_up = ["adjust", "--tenant", "default", "--budget", "user", "--subject", "alice", "--top-up", "5"];
    let refused = secured.run(&top_up, "bob").unwrap_err();
    assert!(refused.contains("bob (read) may not call quorate.admin.v1.Admin/AdjustAccount"), "{refused}");
    secured.run(&top_up, "alice").unwrap();
    let history = secured.run(&["history", "audit"], "bob").unwrap();
    assert!(history.contains("alice (as somebody)"), "{history}");

    // Without a certificate, or with the gateway's.
    let plain = BTreeMap::from([("QUORATE_NODES".to_owned(), secured.nodes.join(","))]);
    let refused = quorate(&["get", "nodes"], &plain).unwrap_err();
    assert!(refused.contains("the node speaks TLS; give --tls-ca"), "{refused}");
    let certs = secured.path("certs");
    let file = |name: &str| certs.join(name).to_str().unwrap().to_owned();
    let as_gateway = [
        "get",
        "nodes",
        "--tls-ca",
        &file("ca.crt"),
        "--tls-cert",
        &file("gateway-1.crt"),
        "--tls-key",
        &file("gateway-1.key"),
    ];
    let refused = quorate(&as_gateway, &plain).unwrap_err();
    assert!(refused.contains("gateway-1 (gateway) may not call"), "{refused}");
    let half = quorate(&["get", "nodes", "--tls-ca", &file("ca.crt")], &plain).unwrap_err();
    assert!(half.contains("--tls-cert"), "{half}");

    let http = HttpClient::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let metrics = http.get(format!("http://{}/metrics", secured.metrics).parse().unwrap()).await.unwrap();
    let metrics = metrics.into_body().collect().await.unwrap().to_bytes();
    let metrics = String::from_utf8_lossy(&metrics);
    let expires = metrics
        .lines()
        .find_map(|line| line.strip_prefix("quorate_node_tls_certificate_expires_timestamp_seconds "))
        .unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!(expires.parse::<u64>().unwrap() > now + 360 * 24 * 3_600, "{expires}");
    assert!(metrics.contains("quorate_node_tls_reload_failures_total 0"), "{metrics}");

    let shown = quorate(&["certs", "show", &file("node-1.crt"), "-o", "json"], &plain).unwrap();
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown[0]["name"], "node-1");
    assert_eq!(shown[0]["roles"][0], "node");
    assert_eq!(shown[0]["hosts"][0], host(&secured.nodes[0]));

    // New ones for all: nobody is started again, but for one node, whose peers have to take the new one.
    let before = std::fs::read(certs.join("node-1.crt")).unwrap();
    let again =
        quorate(&["certs", "issue", "--dir", certs.to_str().unwrap(), "--gateway", "gateway-1"], &plain);
    assert!(again.unwrap_err().contains("is there already"));
    secured.certificates(&["issue", "--replace"]);
    assert_ne!(std::fs::read(certs.join("node-1.crt")).unwrap(), before);
    secured.processes.get_mut("node-1").unwrap().kill_9();
    secured.start_node(1);
    let deadline = Instant::now() + READY_WITHIN;
    while secured.run(&["get", "nodes"], "bob").map_or(true, |nodes| nodes.contains("unreachable")) {
        assert!(Instant::now() < deadline, "node 1 does not come back");
    }
    assert_eq!(secured.chat().await, Some(200));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_added_backed_up_and_rebuilt_over_tls() {
    let mut secured = Secured::start().await;
    let address = free_address();
    let (certs, holder) = (secured.path("certs"), format!("4={}", host(&address)));
    secured.take_down(&["certs", "issue", "--dir", certs.to_str().unwrap(), "--node", &holder]);
    secured.nodes.push(address.clone());
    secured.start_node(4);
    let add = ["nodes", "add", "--id", "4", "--address", &address];
    let refused = secured.run(&add, "bob").unwrap_err();
    assert!(refused.contains("bob (read) may not call quorate.admin.v1.Admin/AddNode"), "{refused}");
    let deadline = Instant::now() + READY_WITHIN;
    let added = loop {
        match secured.run(&add, "alice") {
            Ok(added) => break added,
            // It does not listen yet.
            Err(error) => assert!(error.contains("nobody answers") && Instant::now() < deadline, "{error}"),
        }
    };
    assert_eq!(added.trim(), "node 4 added; voters: 1, 2, 3, 4");
    let history = secured.run(&["history", "audit"], "bob").unwrap();
    let recorded = |line: &str| line.contains("add node") && line.contains("alice (as somebody)");
    assert!(history.lines().any(recorded), "{history}");

    let file = secured.path("backup.quorate");
    let backup = ["backup", file.to_str().unwrap()];
    let refused = secured.run(&backup, "bob").unwrap_err();
    assert!(refused.contains("may not call quorate.admin.v1.Admin/Backup") && !file.exists(), "{refused}");
    assert!(secured.run(&backup, "alice").unwrap().contains("cluster test, log up to entry"));

    secured.processes.get_mut("node-4").unwrap().kill_9();
    let folder = secured.path("node-4");
    std::fs::write(folder.join("standing"), "rubbish").unwrap();
    let checked = quorate(&["check", folder.to_str().unwrap()], &BTreeMap::new()).unwrap_err();
    assert!(checked.contains("is damaged"), "{checked}");
    secured.start_node_with(4, &["--rebuild"]);
    let deadline = Instant::now() + READY_WITHIN;
    while secured.run(&["nodes", "list"], "bob").map_or(true, |nodes| nodes.matches("follower").count() != 3)
    {
        assert!(Instant::now() < deadline, "{}", secured.processes["node-4"].output());
    }
    let removed = secured.run(&["nodes", "remove", "4"], "alice").unwrap();
    assert_eq!(removed.trim(), "node 4 removed; voters: 1, 2, 3");
    let (code, output) = secured.processes.remove("node-4").unwrap().wait();
    assert_eq!(code, Some(1));
    assert!(output.contains("node 4 was removed from the cluster"), "{output}");
}

fn node(folder: &Path, config: &str, more: &[&str]) -> Process {
    let path = folder.join("node.yaml");
    std::fs::write(&path, config).unwrap();
    let _ = std::fs::remove_file(folder.join("node.log"));
    let arguments = [&["node", "--config", path.to_str().unwrap()], more].concat();
    Process::start(folder, "node", &arguments)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tls_a_node_stays_on_its_machine_unless_told() {
    let folder = tempfile::tempdir().unwrap();
    let address = free_address();
    let port = address.rsplit_once(':').unwrap().1;
    let config = node_config(1, std::slice::from_ref(&address), &free_address(), &folder.path().join("data"));
    let open = config
        .replace(&format!("listen: {address}"), &format!("listen: 0.0.0.0:{port}\nadvertise: {address}"));
    assert_ne!(open, config);
    let (code, output) = node(folder.path(), &open, &[]).wait();
    assert_eq!(code, Some(1));
    for word in ["listen: 0.0.0.0:", "quorate certs init", "127.0.0.1", "--insecure, QUORATE_INSECURE=true"] {
        assert!(output.contains(word), "{word:?} is missing in:\n{output}");
    }
    // A file that is missing is named with its key.
    let files =
        format!("{config}tls: {{ca_file: /nowhere/ca.crt, cert_file: /nowhere/a, key_file: /nowhere/b}}\n");
    let (code, output) = node(folder.path(), &files, &[]).wait();
    assert_eq!(code, Some(1));
    assert!(output.contains("tls.ca_file: /nowhere/ca.crt: cannot be read"), "{output}");

    let told = node(folder.path(), &open, &["--insecure"]);
    let deadline = Instant::now() + READY_WITHIN;
    let nodes = BTreeMap::from([("QUORATE_NODES".to_owned(), address)]);
    while !quorate(&["get", "nodes"], &nodes).is_ok_and(|nodes| nodes.contains("leader")) {
        assert!(Instant::now() < deadline, "{}", told.output());
    }
    // And who comes with TLS hears that there is none.
    let certs = folder.path().join("certs");
    let dir = certs.to_str().unwrap();
    quorate(&["certs", "init", "--dir", dir, "--operator", "alice=admin"], &nodes).unwrap();
    let file = |name: &str| certs.join(name).to_str().unwrap().to_owned();
    let (ca, cert, key) = (file("ca.crt"), file("alice.crt"), file("alice.key"));
    let secured = ["get", "nodes", "--tls-ca", &ca, "--tls-cert", &cert, "--tls-key", &key];
    let refused = quorate(&secured, &nodes).unwrap_err();
    assert!(refused.contains("the node speaks plaintext"), "{refused}");
}
