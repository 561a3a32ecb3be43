//! `quorate-jepsen faults list` and `faults try NAME`: what there is, and one fault by hand, with what it does to a trickle
//! of writes.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use quorate_rpc::admin::{DrainBackendRequest, UndrainBackendRequest};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio_util::sync::CancellationToken;

use super::{all, by_name, equip};
use crate::deploy::{self, Deployment, NetworkChoice, Options};

const WELL_WITHIN: Duration = Duration::from_secs(60);
const WRITE_WITHIN: Duration = Duration::from_millis(500);
/// Gateways want one.
const POLICY: &str = "apiVersion: quorate.dev/v1alpha1\nkind: Budget\nmetadata: {name: pulse}\n\
    spec: {limit: {tokens: 1000}, window: Hour}\n";
const WRITERS: usize = 16;

#[derive(Debug, Args)]
pub struct Faults {
    #[command(subcommand)]
    command: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// All faults, and which are not possible here
    List,
    /// Inject one, look, heal it, look again
    Try(Try),
}

#[derive(Debug, Args)]
struct Try {
    #[arg(required = true)]
    names: Vec<String>,
    /// The binary under test
    #[arg(long, default_value = "target/debug/quorate")]
    binary: PathBuf,
    /// The binary of the previous release
    #[arg(long)]
    previous: Option<PathBuf>,
    /// For logs and data; default: one in the temporary folder
    #[arg(long)]
    folder: Option<PathBuf>,
    #[arg(long, default_value_t = 3)]
    nodes: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds between injection and healing
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// All on the loopback interface
    #[arg(long)]
    loopback: bool,
}

impl Faults {
    /// # Errors
    /// A fault is unknown or not possible here, or the cluster was not well afterwards.
    pub async fn run(self) -> Result<()> {
        match self.command {
            What::List => {
                let options = Options::new(PathBuf::new(), PathBuf::new());
                for known in all() {
                    let missing =
                        known.missing(&options).map_or(String::new(), |why| format!(" (not here: {why})"));
                    println!("{:18} {}{missing}", known.name, known.about);
                }
                Ok(())
            }
            What::Try(what) => what.run().await,
        }
    }
}

impl Try {
    async fn run(self) -> Result<()> {
        deploy::end_on_signal();
        let binary = self.binary.canonicalize().with_context(|| format!("no {}", self.binary.display()))?;
        let folder = self
            .folder
            .clone()
            .unwrap_or_else(|| std::env::temp_dir().join(format!("quorate-faults-{}", std::process::id())));
        let mut options = Options::new(binary, folder);
        (options.nodes, options.seed, options.previous) = (self.nodes, self.seed, self.previous.clone());
        if self.loopback {
            options.network = NetworkChoice::Loopback;
        }
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        equip(&names, &mut options)?;
        println!("logs: {}", options.folder.display());
        let began = Instant::now();
        let deployment = Deployment::start(options).await?;
        let policy = deployment.options().folder.join("policy.yaml");
        std::fs::write(&policy, POLICY)?;
        let apply = ["apply", "-f", &policy.to_string_lossy()];
        deployment.quorate(&apply, WELL_WITHIN).await?;
        deployment.wait_until_well(WELL_WITHIN).await?;
        println!("all is well after {:.1} s", began.elapsed().as_secs_f64());
        let pulse = Pulse::start(&deployment);
        let mut random = StdRng::seed_from_u64(self.seed);
        let mut bad = Vec::new();
        for name in names {
            if let Err(error) = self.one(name, &deployment, &pulse, &mut random).await {
                println!("  BAD: {error:#}");
                bad.push(name);
                deployment.heal_all().await?;
                if let Err(error) = deployment.wait_until_well(WELL_WITHIN).await {
                    println!("  and it stays so: {error:#}");
                    break;
                }
            }
        }
        pulse.stop.cancel();
        for end in deployment.unexpected_ends() {
            println!("BAD: {end}");
            bad.push("unexpected end");
        }
        drop(deployment);
        anyhow::ensure!(bad.is_empty(), "not well: {}", bad.join(", "));
        Ok(())
    }

    async fn one(
        &self,
        name: &str,
        deployment: &Arc<Deployment>,
        pulse: &Pulse,
        random: &mut StdRng,
    ) -> Result<()> {
        println!(
            "{name}: leader {:?}, {}",
            deployment.leader().await,
            pulse.rate(Duration::from_secs(1)).await
        );
        let mut fault = by_name(name)?.make();
        let injected = fault.inject(deployment, random).await;
        println!("  injected: {}", injected.as_ref().map_or_else(|error| format!("{error:#}"), Clone::clone));
        let rate = pulse.rate(Duration::from_secs(self.seconds)).await;
        let views = deployment.views().await;
        let roles: Vec<String> = views.iter().map(|view| format!("{} {}", view.id, view.role)).collect();
        println!("  during: {rate}; nodes: {}", roles.join(", "));
        let now_ms = jiff::Timestamp::now().as_millisecond();
        match deployment.ledger_time_ms().await.map(i64::try_from) {
            Ok(Ok(ledger_ms)) => println!("  the ledger's time is {} ms ahead", ledger_ms - now_ms),
            Ok(Err(error)) => return Err(error.into()),
            Err(error) => println!("  no read: {error:#}"),
        }
        let began = Instant::now();
        println!("  healed: {}", fault.heal(deployment).await?);
        let healed = Instant::now();
        let write = pulse.next_write(WELL_WITHIN).await.context("no write after the fault")?;
        let well = deployment.wait_until_well(WELL_WITHIN).await;
        let after = healed.elapsed().as_secs_f64();
        println!(
            "  healing took {:.1} s, the next write {:.2} s, all was well after {after:.1} s",
            (healed - began).as_secs_f64(),
            write.as_secs_f64(),
        );
        well?;
        injected.map(drop)
    }
}

/// Writes all the time, so that it shows when there can be none, and so that the log grows.
#[derive(Debug)]
struct Pulse {
    stop: CancellationToken,
    written: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
}

impl Pulse {
    fn start(deployment: &Arc<Deployment>) -> Self {
        let pulse = Self { stop: CancellationToken::new(), written: Arc::default(), failed: Arc::default() };
        let (stop, written, failed) = (pulse.stop.clone(), pulse.written.clone(), pulse.failed.clone());
        let deployment = Arc::downgrade(deployment);
        // A runtime of its own: admin calls do not move between threads.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let writers = (0..WRITERS).map(|number| write(number, &deployment, &stop, &written, &failed));
            runtime.block_on(futures_util::future::join_all(writers));
            std::io::Result::Ok(())
        });
        pulse
    }

    async fn rate(&self, over: Duration) -> String {
        let counts = || (self.written.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed));
        let before = counts();
        tokio::time::sleep(over).await;
        let after = counts();
        format!("{} writes and {} failures in {} s", after.0 - before.0, after.1 - before.1, over.as_secs())
    }

    /// How long it takes until one succeeds that began from now on, more or less.
    async fn next_write(&self, within: Duration) -> Option<Duration> {
        let (began, before) = (Instant::now(), self.written.load(Ordering::Relaxed));
        while self.written.load(Ordering::Relaxed) == before {
            if began.elapsed() > within {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Some(began.elapsed())
    }
}

async fn write(
    number: usize,
    deployment: &Weak<Deployment>,
    stop: &CancellationToken,
    written: &AtomicU64,
    failed: &AtomicU64,
) {
    let (mut nodes, mut known, mut drained) = (Vec::new(), None, false);
    while let Some(deployment) = deployment.upgrade().filter(|_| !stop.is_cancelled()) {
        // Members come and go.
        if nodes != deployment.node_addresses() {
            nodes = deployment.node_addresses();
            known = Some(deployment.admin());
        }
        drop(deployment);
        let Some(admin) = &known else { return };
        let backend = format!("pulse-{number}");
        drained = !drained;
        let write = async {
            if drained {
                admin.drain_backend(DrainBackendRequest { backend }).await.is_ok()
            } else {
                admin.undrain_backend(UndrainBackendRequest { backend }).await.is_ok()
            }
        };
        let done = tokio::time::timeout(WRITE_WITHIN, write).await.unwrap_or(false);
        let counter = if done { written } else { failed };
        counter.fetch_add(1, Ordering::Relaxed);
        if !done {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
