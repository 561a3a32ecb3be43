//! What all requests of a gateway share.

use std::sync::Arc;

use quorate_rpc::{
    IN_FLIGHT_MAX, Keys,
    lease::{LeaseSettings, Leases},
};
use tokio::sync::{Semaphore, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    budget::BudgetKeeper,
    config::GatewayConfig,
    error::GatewayError,
    health::Health,
    latency::Latencies,
    leased::{self, KeeperLends},
    memory::Memory,
    metrics::Metrics,
    policy::PolicyReceiver,
    policy::Sources,
    rate_limit::LocalHolds,
    repay::Repayer,
    spare::Spare,
    tier::Hints,
    upstream::Upstream,
};

/// What the fleet believes of each backend.
pub(crate) type Providers = watch::Receiver<quorate_rpc::Providers>;

/// What a gateway follows.
#[derive(Debug, Clone)]
pub(crate) struct Followed {
    pub(crate) policy: PolicyReceiver,
    pub(crate) keys: watch::Receiver<Keys>,
    pub(crate) providers: Providers,
}

/// Long texts counted at the same time: counting is pure CPU.
const COUNTING_MAX: usize = 4;

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) config: GatewayConfig,
    pub(crate) sources: Arc<Sources>,
    pub(crate) upstream: Upstream,
    pub(crate) keeper: Arc<dyn BudgetKeeper>,
    pub(crate) policy: PolicyReceiver,
    pub(crate) keys: watch::Receiver<Keys>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) health: Arc<Health>,
    pub(crate) latencies: Arc<Latencies>,
    pub(crate) tier_hints: Hints,
    pub(crate) spare: Arc<Spare>,
    pub(crate) repayer: Arc<Repayer>,
    /// Slices of hot accounts that this process holds.
    pub(crate) leases: Leases,
    /// What proxies reserved from them.
    pub(crate) local_holds: LocalHolds,
    /// Everything that must finish before the gateway may stop: calls and settlements.
    pub(crate) tasks: TaskTracker,
    pub(crate) in_flight: Arc<Semaphore>,
    /// Reservations of which nobody knows whether they were made, as many as may be in flight at once.
    pub(crate) unheard: Arc<Semaphore>,
    pub(crate) counting: Semaphore,
    pub(crate) memory: Memory,
    /// No new requests.
    pub(crate) stop: CancellationToken,
    /// Answers still running are cut off now, and charged like those of clients that hung up.
    pub(crate) cut: CancellationToken,
    /// Reservations that cannot be ended are left to expire.
    pub(crate) give_up: CancellationToken,
}

impl Core {
    pub(crate) fn new(
        config: GatewayConfig,
        sources: Arc<Sources>,
        keeper: Arc<dyn BudgetKeeper>,
        followed: Followed,
        metrics: Arc<Metrics>,
    ) -> Result<Self, GatewayError> {
        let memory = Memory::new(config.limits.bodies_bytes_max);
        let upstream = Upstream::new(&config.timeouts)?;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let me = (config.name.as_str(), config.timeouts.probe_ms);
        let health = Health::start(me, &keeper, &followed.providers, &metrics, &tasks, &stop);
        let in_flight = Arc::new(Semaphore::new(config.limits.in_flight_max.min(Semaphore::MAX_PERMITS)));
        let spare = Arc::new(Spare::default());
        let repayer = Arc::new(Repayer {
            spare: Arc::clone(&spare),
            keeper: Arc::clone(&keeper),
            metrics: Arc::clone(&metrics),
            stop: stop.clone(),
        });
        tasks.spawn(Arc::clone(&repayer).run());
        let hold_ms = config.hold_longest_ms();
        let lender = Arc::new(KeeperLends(Arc::clone(&keeper)));
        let leases = Leases::start(lender, LeaseSettings::new(hold_ms));
        let Followed { policy, keys, providers } = followed;
        // Ends with the policies' sender, or with the core.
        let following = leased::follow_policy(policy.clone(), leases.clone());
        let until = stop.clone();
        tasks.spawn(async move { until.run_until_cancelled(following).await });
        Ok(Self {
            config,
            sources,
            upstream,
            keeper,
            policy,
            keys,
            metrics,
            health,
            latencies: Arc::new(Latencies::new(providers)),
            tier_hints: Hints::default(),
            spare,
            repayer,
            leases,
            local_holds: LocalHolds::default(),
            tasks,
            in_flight,
            unheard: Arc::new(Semaphore::new(IN_FLIGHT_MAX)),
            counting: Semaphore::new(COUNTING_MAX),
            memory,
            stop,
            cut: CancellationToken::new(),
            give_up: CancellationToken::new(),
        })
    }

    /// OpenMetrics text, as of now.
    pub(crate) fn metrics_text(&self) -> String {
        self.metrics.leases.set(&self.leases, |budget| self.metrics.budget_label(budget));
        self.metrics.encode()
    }
}
