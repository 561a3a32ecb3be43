//! `quorate dev`: a whole deployment on this machine, in one process but over real sockets, for a first look and for tests.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use quorate_gateway::{BackendConfig, Gateway, GatewayConfig, GatewayListeners, Provider};
use quorate_node::{Limits, Node, NodeConfig, NodeListeners, PeerConfig};
use quorate_rpc::admin::{ApplyPolicyRequest, GetPolicyRequest};
use quorate_rpc::{Admin, Client, ClientConfig};

use crate::command::told_to_stop;
use crate::mock_provider::{MockProvider, Settings};

const NODES: u16 = 3;
const GATEWAYS: u16 = 2;
/// Marks a folder as ours, so that `--fresh` removes nothing else.
const MARKER: &str = "quorate-dev";
const READY_WITHIN: Duration = Duration::from_secs(20);
pub const SAMPLE_POLICY: &str = include_str!("../../../../deploy/policy.yaml");

/// A second start goes on with the same budgets.
#[derive(Debug, Args)]
pub struct Dev {
    /// Where the nodes keep their data
    #[arg(long, default_value = ".quorate/dev", value_name = "FOLDER")]
    data_dir: PathBuf,
    /// Forget what earlier starts have counted
    #[arg(long)]
    fresh: bool,
    /// Any free ports, printed as KEY=ADDRESS lines; the data is removed at the end
    #[arg(long)]
    ephemeral: bool,
    /// Policy to apply at the first start instead of the sample
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Send requests to the real OpenAI, with the key in OPENAI_API_KEY
    #[arg(long)]
    openai: bool,
}

/// Every address of a running dev deployment.
struct Addresses {
    nodes: Vec<String>,
    gateways: Vec<String>,
    provider: String,
}

impl Dev {
    pub async fn run(self) -> Result<()> {
        let folder = self.prepare_folder()?;
        let provider_listener = bind(self.port(8090), "the simulated provider")?;
        let node_listeners = self.bind_nodes()?;
        let gateway_listeners = self.bind_gateways()?;
        let addresses = Addresses {
            nodes: node_listeners.iter().map(|listeners| address(&listeners.grpc)).collect::<Result<_>>()?,
            gateways: gateway_listeners
                .iter()
                .map(|listeners| address(&listeners.proxy))
                .collect::<Result<_>>()?,
            provider: address(&provider_listener)?,
        };
        let provider = MockProvider::start(Settings::default(), provider_listener)?;
        let mut nodes = Vec::new();
        for (listeners, id) in node_listeners.into_iter().zip(1..) {
            let config = node_config(id, &addresses, &listeners, &folder)?;
            nodes.push(Node::start(config, listeners).await.with_context(|| format!("node {id}"))?);
        }
        let admin = Client::connect(ClientConfig {
            name: "dev".to_owned(),
            nodes: addresses.nodes.clone(),
            operation_timeout_ms: 5_000,
        })
        .admin();
        let ready = tokio::time::timeout(READY_WITHIN, self.apply_first_policy(&admin)).await;
        ready.context("the nodes did not elect a leader in time")??;
        let mut gateways = Vec::new();
        for (listeners, number) in gateway_listeners.into_iter().zip(1..) {
            let config = self.gateway_config(number, &addresses, &listeners)?;
            gateways.push(Gateway::start(config, listeners).with_context(|| format!("gateway {number}"))?);
        }
        self.print_screen(&addresses, &folder);
        told_to_stop().await?;
        println!("\nstopping");
        for gateway in gateways {
            gateway.stop().await;
        }
        futures_util::future::join_all(nodes.into_iter().map(Node::close)).await;
        provider.stop().await;
        if self.ephemeral {
            std::fs::remove_dir_all(&folder)
                .with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        Ok(())
    }

    fn prepare_folder(&self) -> Result<PathBuf> {
        let folder = if self.ephemeral {
            std::env::temp_dir().join(format!("quorate-dev-{}", uuid::Uuid::now_v7()))
        } else {
            self.data_dir.clone()
        };
        let marker = folder.join(MARKER);
        if self.fresh && folder.exists() {
            if !marker.exists() {
                bail!("{} was not made by `quorate dev`; --fresh does not remove it", folder.display());
            }
            std::fs::remove_dir_all(&folder)
                .with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        std::fs::write(&marker, "made by `quorate dev`; safe to delete\n")
            .with_context(|| format!("cannot write {}", marker.display()))?;
        Ok(folder)
    }

    /// 0: any.
    fn port(&self, port: u16) -> u16 {
        if self.ephemeral { 0 } else { port }
    }

    fn bind_nodes(&self) -> Result<Vec<NodeListeners>> {
        let one = |number: u16| {
            let what = format!("node {number}");
            Ok(NodeListeners {
                grpc: bind(self.port(7700 + number), &what)?,
                http: bind(self.port(7710 + number), &what)?,
            })
        };
        (1..=NODES).map(one).collect()
    }

    fn bind_gateways(&self) -> Result<Vec<GatewayListeners>> {
        let one = |number: u16| {
            let what = format!("gateway {number}");
            Ok(GatewayListeners {
                proxy: bind(self.port(8079 + number), &what)?,
                http: bind(self.port(9079 + number), &what)?,
            })
        };
        (1..=GATEWAYS).map(one).collect()
    }

    /// Waits for a leader; applies a policy only where there is none, so that a second start keeps what was changed.
    async fn apply_first_policy(&self, admin: &Admin) -> Result<()> {
        let known = admin.get_policy(GetPolicyRequest::default()).await?;
        if known.version > 0 && self.policy.is_none() {
            return Ok(());
        }
        let document = match &self.policy {
            Some(path) => {
                std::fs::read_to_string(path).with_context(|| format!("policy file {}", path.display()))?
            }
            None => SAMPLE_POLICY.to_owned(),
        };
        admin.apply_policy(ApplyPolicyRequest { document, expected_version: None, dry_run: false }).await?;
        Ok(())
    }

    fn gateway_config(
        &self,
        number: u16,
        addresses: &Addresses,
        listeners: &GatewayListeners,
    ) -> Result<GatewayConfig> {
        let backend = |name: &str, base_url: String, api_key_env: Option<&str>| BackendConfig {
            name: name.to_owned(),
            provider: Provider::OpenAI,
            base_url,
            api_key_env: api_key_env.map(str::to_owned),
            api_key_file: None,
            models: Vec::new(),
            pass_client_key: false,
            stream_usage: true,
            tokenizer: None,
            output_field: None,
        };
        let backends = if self.openai {
            vec![backend("openai", "https://api.openai.com/v1".to_owned(), Some("OPENAI_API_KEY"))]
        } else {
            vec![backend("mock", format!("http://{}/v1", addresses.provider), None)]
        };
        Ok(GatewayConfig {
            name: format!("dev-gateway-{number}"),
            listen: address(&listeners.proxy)?,
            http_listen: address(&listeners.http)?,
            nodes: addresses.nodes.clone(),
            backends,
            limits: quorate_gateway::Limits::default(),
            timeouts: quorate_gateway::Timeouts::default(),
        })
    }

    fn print_screen(&self, addresses: &Addresses, folder: &Path) {
        let Addresses { nodes, gateways, provider } = addresses;
        if self.ephemeral {
            println!("NODES={}\nGATEWAYS={}\nPROVIDER={provider}", nodes.join(","), gateways.join(","));
            return;
        }
        let backend = if self.openai {
            "https://api.openai.com".to_owned()
        } else {
            format!("simulated, http://{provider}")
        };
        println!(
            "Quorate runs. Ctrl-C stops it; a second start goes on with the same budgets (--fresh: with new ones).

  nodes     {}
  gateways  {}
  provider  {backend}
  data      {}

Send a request:

  curl -s http://{}/v1/chat/completions -H 'content-type: application/json' -H 'x-user-id: alice' \\
    -d '{{\"model\": \"gpt-4o-mini\", \"max_tokens\": 90, \"messages\": [{{\"role\": \"user\", \"content\": \"Hello!\"}}]}}'

Look at the budgets, from another terminal:

  cargo run --release -- get accounts
  cargo run --release -- describe tenant default
  cargo run --release -- adjust --tenant default --budget user-hourly --subject alice --top-up 1000
",
            nodes.join("  "),
            gateways.iter().map(|gateway| format!("http://{gateway}/v1")).collect::<Vec<_>>().join("  "),
            folder.display(),
            gateways.first().map_or("", String::as_str),
        );
        if std::env::var_os("OPENAI_API_KEY").is_some() && !self.openai {
            println!("OPENAI_API_KEY is set: start with --openai to send requests to the real OpenAI.\n");
        }
    }
}

fn node_config(
    id: u64,
    addresses: &Addresses,
    listeners: &NodeListeners,
    folder: &Path,
) -> Result<NodeConfig> {
    let peer = |(address, id): (&String, u64)| PeerConfig { id, address: address.clone() };
    Ok(NodeConfig {
        cluster: "dev".to_owned(),
        id,
        listen: address(&listeners.grpc)?,
        advertise: None,
        http_listen: address(&listeners.http)?,
        data_dir: folder.join(format!("node-{id}")),
        peers: addresses.nodes.iter().zip(1..).map(peer).collect(),
        limits: Limits::default(),
        // One machine, no network between the nodes: a leader is found sooner.
        raft: quorate_node::RaftTimers { heartbeat_ms: 100, election_min_ms: 400, election_max_ms: 800 },
    })
}

fn bind(port: u16, what: &str) -> Result<TcpListener> {
    TcpListener::bind(("127.0.0.1", port)).with_context(|| {
        format!(
            "port {port} of {what} is taken; is another `quorate dev` running? (--ephemeral takes free ports)"
        )
    })
}

fn address(listener: &TcpListener) -> Result<String> {
    Ok(listener.local_addr()?.to_string())
}
