//! Clusters of real processes on free loopback ports, and a small HTTP client.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use quorate_rpc::admin::{Account, Consistency, ListAccountsRequest};
use quorate_rpc::tls::Security;
use quorate_rpc::{Client, ClientConfig, ClientError};
use serde_json::Value;

pub const READY_WITHIN: Duration = Duration::from_secs(60);

/// A process that dies with its handle.
#[derive(Debug)]
pub struct Process {
    pub child: Child,
    pub log: PathBuf,
}

impl Process {
    pub fn start(folder: &Path, name: &str, arguments: &[&str]) -> Self {
        let log = folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_quorate"))
            .args(arguments)
            .env("QUORATE_LOG", "info,openraft=error")
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Self { child, log }
    }

    pub fn kill_9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Exit code and everything it printed.
    pub fn wait(mut self) -> (Option<i32>, String) {
        let deadline = Instant::now() + READY_WITHIN;
        let code = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status.code();
            }
            assert!(Instant::now() < deadline, "{} does not end:\n{}", self.log.display(), self.output());
            std::thread::yield_now();
        };
        (code, self.output())
    }

    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let output = self.output();
            let lines: Vec<&str> = output.lines().collect();
            eprintln!("--- {}\n{}", self.log.display(), lines[lines.len().saturating_sub(40)..].join("\n"));
        }
    }
}

/// A free port on a loopback address that no other test process uses at the same time.
pub fn free_address() -> String {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let [high, low] = u16::try_from(std::process::id() % 0xfe00).unwrap().to_be_bytes();
    let host = format!("127.{}.{}.{}", 1 + high / 2, low, 1 + NEXT.fetch_add(1, Ordering::Relaxed) % 250);
    TcpListener::bind((host.as_str(), 0)).unwrap().local_addr().unwrap().to_string()
}

/// Three nodes, two gateways and a simulated provider, each a process of its own.
#[derive(Debug)]
pub struct Deployment {
    pub folder: tempfile::TempDir,
    pub nodes: Vec<Process>,
    pub gateways: Vec<Process>,
    pub provider: Process,
    pub more_providers: Vec<Process>,
    pub node_addresses: Vec<String>,
    pub node_http: Vec<String>,
    pub gateway_addresses: Vec<String>,
    pub provider_address: String,
    pub http: HttpClient<HttpConnector, Full<Bytes>>,
}

impl Deployment {
    pub async fn start(policy: &str) -> Self {
        let mut deployment = Self::without_gateways(policy).await;
        for _ in 0..2 {
            deployment.start_gateway(&[]).await;
        }
        deployment
    }

    pub async fn without_gateways(policy: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [node_addresses, node_http] =
            [(); 2].map(|()| (0..3).map(|_| free_address()).collect::<Vec<_>>());
        let provider_address = free_address();
        let provider =
            Process::start(folder.path(), "provider", &["mock-provider", "--listen", &provider_address]);
        for id in 1..=3 {
            let config = node_config(
                id,
                &node_addresses,
                &node_http[id - 1],
                &folder.path().join(format!("node-{id}")),
            );
            std::fs::write(folder.path().join(format!("node-{id}.yaml")), config).unwrap();
        }
        let http = HttpClient::builder(TokioExecutor::new()).build_http();
        let mut deployment = Self {
            nodes: Vec::new(),
            gateways: Vec::new(),
            provider,
            more_providers: Vec::new(),
            node_addresses,
            node_http,
            gateway_addresses: Vec::new(),
            provider_address,
            http,
            folder,
        };
        for id in 1..=3 {
            let node = deployment.spawn_node(id);
            deployment.nodes.push(node);
        }
        let request =
            quorate_rpc::admin::ApplyPolicyRequest { document: policy.to_owned(), ..Default::default() };
        deployment.admin().apply_policy(request).await.unwrap();
        deployment
    }

    pub fn spawn_node(&self, id: usize) -> Process {
        let config = self.folder.path().join(format!("node-{id}.yaml"));
        Process::start(
            self.folder.path(),
            &format!("node-{id}"),
            &["node", "--config", config.to_str().unwrap()],
        )
    }

    /// One more gateway, the last of `gateways` then; `more` are flags.
    pub async fn start_gateway(&mut self, more: &[&str]) {
        let mock = [("mock", self.provider_address.clone())];
        self.add_gateway(&mock, "", more).await;
    }

    /// One more gateway, with these backends: name and address.
    pub async fn start_gateway_to(&mut self, backends: &[(&str, String)]) {
        self.add_gateway(backends, "", &[]).await;
    }

    /// The same with more lines in its config.
    pub async fn start_gateway_with(&mut self, backends: &[(&str, String)], lines: &str) {
        self.add_gateway(backends, lines, &[]).await;
    }

    async fn add_gateway(&mut self, backends: &[(&str, String)], lines: &str, more: &[&str]) {
        let number = self.gateways.len() + 1;
        let (proxy, http) = (free_address(), free_address());
        let nodes = self.node_addresses.iter().map(|address| format!("\"{address}\"")).collect::<Vec<_>>();
        let mut config = format!(
            "name: gateway-{number}\nlisten: {proxy}\nhttp_listen: {http}\nnodes: [{}]\nbackends:\n",
            nodes.join(", "),
        );
        for (name, address) in backends {
            config += &format!("  - {{name: {name}, provider: OpenAI, base_url: \"http://{address}/v1\"}}\n");
        }
        config += lines;
        let path = self.folder.path().join(format!("gateway-{number}.yaml"));
        std::fs::write(&path, config).unwrap();
        let name = format!("gateway-{number}");
        let arguments = [&["gateway", "--config", path.to_str().unwrap()], more].concat();
        self.gateways.push(Process::start(self.folder.path(), &name, &arguments));
        self.wait_ready(&http).await;
        self.gateway_addresses.push(proxy);
    }

    /// One more simulated provider, for as long as the deployment; its address.
    pub async fn start_provider(&mut self, more: &[&str]) -> String {
        let address = free_address();
        let arguments = [&["mock-provider", "--listen", &address], more].concat();
        let name = format!("provider-{}", self.more_providers.len());
        self.more_providers.push(Process::start(self.folder.path(), &name, &arguments));
        self.until(async || self.get(&address, "/mock/served").await.is_some()).await;
        address
    }

    pub async fn wait_ready(&self, http: &str) {
        let deadline = Instant::now() + READY_WITHIN;
        while !matches!(self.get(http, "/readyz").await, Some((200, _))) {
            assert!(Instant::now() < deadline, "{http} does not become ready");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn get(&self, address: &str, path: &str) -> Option<(u16, Bytes)> {
        let response = self.http.get(format!("http://{address}{path}").parse().unwrap()).await.ok()?;
        let status = response.status().as_u16();
        Some((status, response.into_body().collect().await.ok()?.to_bytes()))
    }

    /// A chat completion through a gateway: status, headers and body. `None` if the connection broke.
    pub async fn chat(&self, gateway: usize, user: &str, body: &Value) -> Option<Answer> {
        self.chat_with(gateway, &[("x-user-id", user)], body).await
    }

    pub async fn chat_with(&self, gateway: usize, headers: &[(&str, &str)], body: &Value) -> Option<Answer> {
        let mut request =
            Request::post(format!("http://{}/v1/chat/completions", self.gateway_addresses[gateway]))
                .header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body.to_string()))).unwrap();
        let response = self.http.request(request).await.ok()?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.into_body().collect().await.ok()?.to_bytes();
        Some(Answer { status, headers, body })
    }

    /// The command line against this cluster: what it printed, or what it printed when it failed.
    pub fn quorate(&self, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new(env!("CARGO_BIN_EXE_quorate"))
            .args(arguments)
            .env("QUORATE_NODES", self.node_addresses.join(","))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(text(&output.stdout) + &text(&output.stderr))
        }
    }

    pub async fn until(&self, mut holds: impl AsyncFnMut() -> bool) {
        let deadline = Instant::now() + READY_WITHIN;
        while !holds().await {
            assert!(Instant::now() < deadline, "it does not become so");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn all_gateways_run_the_policy_in_force(&self) {
        self.until(async || {
            let answer = self.admin().list_gateways(Default::default()).await.unwrap();
            answer.gateways.len() == self.gateways.len()
                && answer.gateways.iter().all(|gateway| gateway.policy_version == answer.policy_version)
        })
        .await;
    }

    pub fn client(&self) -> Client {
        let nodes = self.node_addresses.clone();
        Client::connect(ClientConfig {
            name: "test".to_owned(),
            nodes,
            operation_timeout_ms: 5_000,
            security: Security::Plain,
        })
    }

    pub fn admin(&self) -> quorate_rpc::Admin {
        self.client().admin()
    }

    /// The account as one node sees it.
    pub async fn account(
        &self,
        node: usize,
        budget: &str,
        subject: &str,
        consistency: Consistency,
    ) -> Option<Account> {
        self.try_account(node, budget, subject, consistency).await.unwrap()
    }

    async fn try_account(
        &self,
        node: usize,
        budget: &str,
        subject: &str,
        consistency: Consistency,
    ) -> Result<Option<Account>, ClientError> {
        let nodes = vec![self.node_addresses[node].clone()];
        let admin = Client::connect(ClientConfig {
            name: "test".to_owned(),
            nodes,
            operation_timeout_ms: 5_000,
            security: Security::Plain,
        })
        .admin();
        let request = ListAccountsRequest {
            consistency: consistency.into(),
            budget: budget.to_owned(),
            subject: subject.to_owned(),
            ..Default::default()
        };
        Ok(admin.list_accounts(request).await?.accounts.into_iter().next())
    }

    /// The account, as soon as it is as wanted; there may be no leader meanwhile.
    pub async fn until_account(&self, budget: &str, subject: &str, wanted: fn(&Account) -> bool) -> Account {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let account = self.try_account(0, budget, subject, Consistency::Linearizable).await;
            if let Some(account) = account.ok().flatten().filter(wanted) {
                return account;
            }
            assert!(Instant::now() < deadline, "account {budget} {subject} does not become as wanted");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Which node leads, as an index.
    pub async fn leader(&self) -> usize {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            if let Ok(answer) = self.admin().list_nodes(quorate_rpc::admin::ListNodesRequest {}).await
                && let Some(leader) = answer.nodes.iter().find(|node| node.role == "leader")
            {
                return usize::try_from(leader.id).unwrap() - 1;
            }
            assert!(Instant::now() < deadline, "nobody leads");
        }
    }

    /// Tokens that the provider's own record says it served.
    pub async fn served(&self) -> u64 {
        let (_, body) = self.get(&self.provider_address, "/mock/served").await.unwrap();
        serde_json::from_slice::<Value>(&body).unwrap()["total_tokens"].as_u64().unwrap()
    }
}

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: hyper::HeaderMap,
    pub body: Bytes,
}

pub fn node_config(id: usize, addresses: &[String], http: &str, data_dir: &Path) -> String {
    let peers: Vec<String> = addresses
        .iter()
        .zip(1..)
        .map(|(address, id)| format!("  - {{id: {id}, address: \"{address}\"}}\n"))
        .collect();
    format!(
        "cluster: test\nid: {id}\nlisten: {}\nhttp_listen: {http}\ndata_dir: {}\npeers:\n{}",
        addresses[id - 1],
        data_dir.display(),
        peers.concat()
    )
}

/// One budget for each user.
pub fn policy(tokens: u64, window: &str) -> String {
    format!(
        "apiVersion: quorate.dev/v1alpha1\nkind: Budget\nmetadata: {{name: user}}\nspec:\n  subject: [{{header: x-user-id}}]\n  limit: {{tokens: {tokens}}}\n  window: {window}\n"
    )
}

/// 10 tokens in, 90 out. The bound of this prompt is 11: not below what the provider says that it read.
pub fn request_of_100(stream: bool) -> Value {
    serde_json::json!({
        "model": "gpt-4o",
        "max_tokens": 90,
        "stream": stream,
        "messages": [{"role": "user", "content": "Hello there!"}],
        "metadata": {"mock_input_tokens": "10", "mock_tokens": "90"},
    })
}
