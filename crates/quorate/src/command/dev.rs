//! `quorate dev`: a whole deployment on this machine, in one process but over real sockets, for a first look and for tests.

use std::io::{IsTerminal as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use quorate_gateway::{BackendConfig, Gateway, GatewayConfig, GatewayListeners, Provider};
use quorate_node::{AlertsConfig, Limits, Node, NodeConfig, NodeListeners, PeerConfig, SecretsConfig};
use quorate_rpc::admin::{ApplyPolicyRequest, GetPolicyRequest};
use quorate_rpc::tls::Security;
use quorate_rpc::{Admin, Client, ClientConfig};

use crate::command::manifest_files::{FileOptions, Manifests};
use crate::command::{dev_backends, told_to_stop};
use crate::logging::{self, LogOptions};
use crate::mock_provider::{MockProvider, Settings};

const NODES: u16 = 3;
const GATEWAYS: u16 = 2;
/// Marks a folder as ours, so that `--fresh` removes nothing else.
const MARKER: &str = "quorate-dev";
const OPENAI_KEY: &str = "OPENAI_API_KEY";
const READY_WITHIN: Duration = Duration::from_secs(20);
pub const SAMPLE_POLICY: &str = include_str!("../../../../deploy/policy.yaml");

/// Run three nodes, two gateways and a simulated provider on this machine
///
/// The simulated provider stands in for every backend that the policy names, in the API of its kind. A second start goes
/// on with the same budgets.
///
/// Examples:
///   quorate dev
///   quorate dev --ephemeral --policy deploy/examples/providers
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
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
    /// Other ports than the usual ones: gateways at this one and the next, all others within the 50 above
    #[arg(long, value_name = "PORT", conflicts_with = "ephemeral", value_parser = clap::value_parser!(u16).range(1024..=65_000))]
    port_base: Option<u16>,
    /// Policy to apply instead of the sample: a file, or a folder of them
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Send requests to the real OpenAI, with the key in OPENAI_API_KEY
    #[arg(long, conflicts_with = "simulated")]
    openai: bool,
    /// Use the simulated provider without asking, also where OPENAI_API_KEY is set
    #[arg(long)]
    simulated: bool,
    /// Log to the terminal instead of a file beside the data
    #[arg(short, long)]
    verbose: bool,
}

/// Every address of a running dev deployment.
struct Addresses {
    nodes: Vec<String>,
    gateways: Vec<String>,
    provider: String,
}

impl Dev {
    pub async fn run(mut self, mut log: LogOptions) -> Result<()> {
        let is_sample = self.policy.is_none();
        let policy = self.policy.take().map(|path| FileOptions::of(path).read()).transpose()?;
        self.openai = self.openai || self.offer_openai();
        // Before anything is touched: a port that is taken means that another one may be using the folder.
        let provider_listener = bind(self.port(8090, 10), "the simulated provider")?;
        let node_listeners = self.bind_nodes()?;
        let gateway_listeners = self.bind_gateways()?;
        let addresses = Addresses {
            nodes: node_listeners.iter().map(|listeners| address(&listeners.grpc)).collect::<Result<_>>()?,
            gateways: gateway_listeners
                .iter()
                .filter_map(|listeners| listeners.proxy.as_ref().map(address))
                .collect::<Result<_>>()?,
            provider: address(&provider_listener)?,
        };
        let folder = self.prepare_folder(&addresses)?;
        if !self.ephemeral && !self.verbose {
            log.to_file_unless_told(Some(folder.join("log")));
        }
        logging::start(&log)?;
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
            security: Security::Plain,
        })
        .admin()
        .acting_as("quorate dev");
        let ready = tokio::time::timeout(READY_WITHIN, apply_first_policy(&admin, policy)).await;
        ready.context("the nodes did not elect a leader in time")??;
        let mut gateways = Vec::new();
        for (listeners, number) in gateway_listeners.into_iter().zip(1..) {
            let config = self.gateway_config(number, &addresses, &listeners, &folder)?;
            gateways.push(Gateway::start(config, listeners).with_context(|| format!("gateway {number}"))?);
        }
        self.print_screen(&addresses, &folder, is_sample);
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

    /// A folder of earlier starts goes on, unless it is not ours, or was made on other ports: the nodes know each other
    /// by their addresses.
    fn prepare_folder(&self, addresses: &Addresses) -> Result<PathBuf> {
        let folder = if self.ephemeral {
            std::env::temp_dir().join(format!("quorate-dev-{}", uuid::Uuid::now_v7()))
        } else {
            self.data_dir.clone()
        };
        let marker = folder.join(MARKER);
        let made_by_us = std::fs::read_to_string(&marker).ok();
        let text = format!("made by `quorate dev`; safe to delete\nnodes {}\n", addresses.nodes.join(" "));
        match &made_by_us {
            None if !is_empty(&folder) => bail!(
                "{} was not made by `quorate dev`; name another folder with --data-dir",
                folder.display()
            ),
            Some(made) if !self.fresh && *made != text => bail!(
                "the data in {} was made on other ports; start with the same --port-base again, or with --fresh",
                folder.display()
            ),
            _ => {}
        }
        if self.fresh {
            for id in 1..=NODES {
                remove(&folder.join(format!("node-{id}")))?;
            }
        }
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        std::fs::write(&marker, text).with_context(|| format!("cannot write {}", marker.display()))?;
        Ok(folder)
    }

    /// Asks at a terminal whether to use the real OpenAI, where there is a key for it.
    fn offer_openai(&self) -> bool {
        let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        if self.simulated || self.ephemeral || !terminal || std::env::var_os(OPENAI_KEY).is_none() {
            return false;
        }
        print!("{OPENAI_KEY} is set. Send requests to the real OpenAI, which costs money? [y/N] ");
        let mut answer = String::new();
        let asked = std::io::stdout().flush().and_then(|()| std::io::stdin().read_line(&mut answer));
        asked.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
    }

    /// The usual port, or another that is so far above the base; 0: any.
    fn port(&self, usual: u16, above_base: u16) -> u16 {
        match self.port_base {
            _ if self.ephemeral => 0,
            Some(base) => base + above_base,
            None => usual,
        }
    }

    fn bind_nodes(&self) -> Result<Vec<NodeListeners>> {
        let one = |number: u16| {
            let what = format!("node {number}");
            Ok(NodeListeners {
                grpc: bind(self.port(7700 + number, 20 + number), &what)?,
                http: bind(self.port(7710 + number, 30 + number), &what)?,
            })
        };
        (1..=NODES).map(one).collect()
    }

    fn bind_gateways(&self) -> Result<Vec<GatewayListeners>> {
        let one = |number: u16| {
            let what = format!("gateway {number}");
            Ok(GatewayListeners {
                proxy: Some(bind(self.port(8079 + number, number - 1), &what)?),
                http: bind(self.port(9079 + number, 39 + number), &what)?,
                rate_limit: None,
            })
        };
        (1..=GATEWAYS).map(one).collect()
    }

    fn gateway_config(
        &self,
        number: u16,
        addresses: &Addresses,
        listeners: &GatewayListeners,
        folder: &Path,
    ) -> Result<GatewayConfig> {
        let backends = if self.openai {
            let openai = BackendConfig::new("openai", Provider::OpenAI, String::new());
            vec![BackendConfig { api_key_env: Some(OPENAI_KEY.to_owned()), ..openai }]
        } else {
            dev_backends::simulated(&addresses.provider, folder)?
        };
        Ok(GatewayConfig {
            name: format!("dev-gateway-{number}"),
            listen: listeners.proxy.as_ref().map(address).transpose()?.unwrap_or_default(),
            http_listen: address(&listeners.http)?,
            tls: None,
            http_tls: None,
            insecure: false,
            nodes: addresses.nodes.clone(),
            cluster_tls: None,
            backends,
            rate_limit: None,
            secrets: quorate_gateway::SecretsConfig::default(),
            limits: quorate_gateway::Limits::default(),
            timeouts: quorate_gateway::Timeouts::default(),
        })
    }

    fn print_screen(&self, addresses: &Addresses, folder: &Path, is_sample: bool) {
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
        let first = gateways.first().map_or("", String::as_str);
        let at = self.port_base.map_or_else(String::new, |_| format!(" --nodes {}", nodes.join(",")));
        // What the policies of others name is theirs to know.
        let (other_words, adjust) = match is_sample {
            true => (
                format!(
                    "
The same in Anthropic's words, whoever serves it:

  curl -s http://{first}/v1/messages -H 'content-type: application/json' -H 'x-user-id: alice' \\
    -d '{{\"model\": \"claude-haiku-4-5\", \"max_tokens\": 90, \"messages\": [{{\"role\": \"user\", \"content\": \"Hello!\"}}]}}'
"
                ),
                format!(
                    "
  cargo run --release -- adjust --tenant default --budget user-hourly --subject alice --top-up 1000{at}"
                ),
            ),
            false => Default::default(),
        };
        println!(
            "Quorate runs. Ctrl-C stops it; a second start goes on with the same budgets (--fresh: with new ones).

  nodes     {}
  gateways  {}
  provider  {backend}
  data      {} (with the log)

Send a request:

  curl -s http://{first}/v1/chat/completions -H 'content-type: application/json' -H 'x-user-id: alice' \\
    -d '{{\"model\": \"gpt-4o-mini\", \"max_tokens\": 90, \"messages\": [{{\"role\": \"user\", \"content\": \"Hello!\"}}]}}'
{other_words}
Look at the budgets and the backends, from another terminal:

  cargo run --release -- get accounts{at}
  cargo run --release -- get providers{at}
  cargo run --release -- describe tenant default{at}{adjust}
",
            nodes.join("  "),
            gateways.iter().map(|gateway| format!("http://{gateway}/v1")).collect::<Vec<_>>().join("  "),
            folder.display(),
        );
        if std::env::var_os(OPENAI_KEY).is_some() && !self.openai {
            println!("OPENAI_API_KEY is set: start with --openai to send requests to the real OpenAI.\n");
        }
    }
}

/// Waits for a leader; applies the sample only where there is no policy, so that a second start keeps what was changed.
async fn apply_first_policy(admin: &Admin, policy: Option<Manifests>) -> Result<()> {
    let known = admin.get_policy(GetPolicyRequest::default()).await?;
    let document = match policy {
        Some(manifests) => manifests.set.to_document(),
        None if known.version > 0 => return Ok(()),
        None => SAMPLE_POLICY.to_owned(),
    };
    admin.apply_policy(ApplyPolicyRequest { document, ..Default::default() }).await?;
    Ok(())
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
        tls: None,
        http_tls: None,
        insecure: false,
        limits: Limits::default(),
        secrets: SecretsConfig::default(),
        alerts: AlertsConfig::default(),
        // One machine, no network between the nodes: a leader is found sooner.
        raft: quorate_node::RaftTimers { heartbeat_ms: 100, election_min_ms: 400, election_max_ms: 800 },
        clock: quorate_node::ClockConfig::default(),
    })
}

fn bind(port: u16, what: &str) -> Result<TcpListener> {
    TcpListener::bind(("127.0.0.1", port)).with_context(|| {
        format!(
            "port {port} of {what} is taken; is another `quorate dev` running? (--port-base takes others, --ephemeral any)"
        )
    })
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none())
}

fn remove(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

fn address(listener: &TcpListener) -> Result<String> {
    Ok(listener.local_addr()?.to_string())
}
