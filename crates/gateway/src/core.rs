//! What all requests of a gateway share.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    backend::Backends, budget::BudgetKeeper, config::GatewayConfig, error::GatewayError, health::Health,
    memory::Memory, metrics::Metrics, policy::PolicyReceiver, upstream::Upstream,
};

/// Long texts counted at the same time: counting is pure CPU.
const COUNTING_MAX: usize = 4;

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) config: GatewayConfig,
    pub(crate) backends: Backends,
    pub(crate) upstream: Upstream,
    pub(crate) keeper: Arc<dyn BudgetKeeper>,
    pub(crate) policy: PolicyReceiver,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) health: Health,
    /// Everything that must finish before the gateway may stop: calls and settlements.
    pub(crate) tasks: TaskTracker,
    pub(crate) in_flight: Arc<Semaphore>,
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
        keeper: Arc<dyn BudgetKeeper>,
        policy: PolicyReceiver,
        metrics: Arc<Metrics>,
    ) -> Result<Self, GatewayError> {
        let backends = Backends::open(&config.backends)?;
        let memory_bytes = config.limits.bodies_bytes_max;
        let upstream = Upstream::new(&config.timeouts)?;
        let tasks = TaskTracker::new();
        let stop = CancellationToken::new();
        let health = Health::start(&backends, &config.name, &keeper, &tasks, &stop);
        let in_flight = Arc::new(Semaphore::new(config.limits.in_flight_max.min(Semaphore::MAX_PERMITS)));
        Ok(Self {
            config,
            backends,
            upstream,
            keeper,
            policy,
            metrics,
            health,
            tasks,
            in_flight,
            counting: Semaphore::new(COUNTING_MAX),
            memory: Memory::new(memory_bytes),
            stop,
            cut: CancellationToken::new(),
            give_up: CancellationToken::new(),
        })
    }
}
