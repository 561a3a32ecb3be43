//! The section `rate_limit` of a gateway's configuration.

use quorate_ledger::TTL_MAX_MS;
use quorate_rpc::tls::{HttpTlsFiles, TlsFiles};
use serde::Deserialize;

/// Envoy's rate limit service.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimitConfig {
    /// `host:port` where proxies call.
    pub listen: String,
    /// How `listen` is served; none: in plaintext.
    pub tls: Option<HttpTlsFiles>,
    /// Whose accounts these are, where descriptors name no tenant. Default: `default`.
    #[serde(default = "default_tenant")]
    pub tenant: String,
    /// The domain whose descriptors are attributes of a request, for the budgets of all other policies; empty: none.
    /// Default: `quorate`.
    #[serde(default = "default_domain")]
    pub attributes_domain: String,
    /// Every limit counts, and none is ever over.
    #[serde(default)]
    pub shadow_mode: bool,
    /// Every limit is one of `quota_mode`.
    #[serde(default)]
    pub quota_mode: bool,
    /// Answers bring `RateLimit-Limit`, `-Remaining` and `-Reset` for the client. Default: true.
    #[serde(default = "yes")]
    pub response_headers: bool,
    /// Answers bring domain, descriptors and the metadata of limits that were kept, as dynamic metadata.
    #[serde(default)]
    pub dynamic_metadata: bool,
    /// Until the cluster has decided, in milliseconds; after that UNAVAILABLE. Default: 1,000.
    #[serde(default = "default_decision_ms")]
    pub decision_ms: u64,
    /// How long a reservation waits for the word of what was used, in milliseconds; after that it is charged as it was
    /// made. Default: 660,000.
    #[serde(default = "default_reservation_ms")]
    pub reservation_ms: u64,
    /// Proxies settle here what they reserved here: where all that a call holds is of budgets with `enforcement: Lease`, slices
    /// of this process hold it. Default: false.
    #[serde(default)]
    pub hold_from_leases: bool,
    /// Calls at work; more are RESOURCE_EXHAUSTED. Default: 16,384.
    #[serde(default = "default_in_flight")]
    pub in_flight_max: usize,
    /// A control plane that sends limits; none: they come by `quorate apply` only.
    pub config_stream: Option<ConfigStream>,
}

/// `ratelimit.service.ratelimit.v3.RateLimitConfigDiscoveryService`, such as Envoy Gateway's.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigStream {
    /// `host:port` of the control plane.
    pub server: String,
    /// Our certificate for it, and the authority of its own; none: in plaintext.
    pub tls: Option<TlsFiles>,
    /// What we are called there. Default: the gateway's name.
    pub node_id: Option<String>,
    /// A certificate whose role may apply policies, for the cluster; none: that of `cluster_tls`.
    pub cluster_tls: Option<TlsFiles>,
}

fn default_tenant() -> String {
    "default".to_owned()
}

fn default_domain() -> String {
    "quorate".to_owned()
}

fn yes() -> bool {
    true
}

fn default_decision_ms() -> u64 {
    1_000
}

fn default_reservation_ms() -> u64 {
    660_000
}

fn default_in_flight() -> usize {
    16_384
}

impl RateLimitConfig {
    /// What the types cannot say.
    ///
    /// # Errors
    /// Names the key and what to write instead.
    pub(crate) fn check(&self) -> Result<(), String> {
        let wrong = |key: &str, message: &str| Err(format!("rate_limit.{key}: {message}"));
        if self.tenant.is_empty() || self.tenant.len() > 128 || self.tenant.chars().any(char::is_control) {
            return wrong("tenant", "must be 1 to 128 bytes without control characters");
        }
        if !(1..=60_000).contains(&self.decision_ms) {
            return wrong("decision_ms", "must be 1 to 60000");
        }
        if !(1..=TTL_MAX_MS).contains(&self.reservation_ms) {
            return wrong("reservation_ms", &format!("must be 1 to {TTL_MAX_MS}"));
        }
        if self.in_flight_max == 0 {
            return wrong("in_flight_max", "must be at least 1");
        }
        Ok(())
    }
}
