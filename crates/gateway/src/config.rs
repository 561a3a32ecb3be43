//! The configuration of one gateway, as read from its file. Every key has a comment; unknown keys are refused.

use std::{net::TcpListener, time::Duration};

use quorate_rpc::listen;
use quorate_rpc::tls::{HttpTlsFiles, TlsFiles};
use serde::Deserialize;

pub use crate::backend_config::{
    AwsConfig, BackendConfig, BackendLimits, BackendTimeouts, EntraConfig, Provider, Proxy, SecretsConfig,
};
use crate::error::GatewayError;
use crate::rate_limit::RateLimitConfig;

/// One gateway.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayConfig {
    /// The name of this gateway in logs, in provider reports and towards the nodes.
    pub name: String,
    /// `host:port` where applications connect. May be left out where `rate_limit` is the only door.
    #[serde(default)]
    pub listen: String,
    /// `host:port` of `/metrics`, `/healthz` and `/readyz`.
    pub http_listen: String,
    /// How `listen` is served; none: in plaintext.
    pub tls: Option<HttpTlsFiles>,
    /// How `http_listen` is served; none: in plaintext.
    pub http_tls: Option<HttpTlsFiles>,
    /// Where there is no TLS: take connections from other machines all the same, unencrypted.
    #[serde(default)]
    pub insecure: bool,
    /// The budget nodes, `host:port` each; any of them may be down.
    pub nodes: Vec<String>,
    /// How the nodes are spoken to; none: in plaintext.
    pub cluster_tls: Option<TlsFiles>,
    /// Where requests go: the first backend that lists the model, else the first that lists none. Where the policy has
    /// routes, those decide, and an entry here stands in for the policy's backend of the same name (with or without its
    /// namespace). May be empty then.
    #[serde(default)]
    pub backends: Vec<BackendConfig>,
    /// Where the keys of the policy's backends are.
    #[serde(default)]
    pub secrets: SecretsConfig,
    /// Envoy's rate limit service; none: it is not served.
    pub rate_limit: Option<RateLimitConfig>,
    #[serde(default)]
    pub limits: Limits,
    #[serde(default)]
    pub timeouts: Timeouts,
}

/// Bounds on what one gateway holds.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes of a request body; more is 413. Default: 16 MiB.
    pub body_bytes_max: usize,
    /// Bytes of all request headers; more is 431. Default: 64 KiB.
    pub header_bytes_max: usize,
    /// Bytes of an answer that is not streamed. Default: 32 MiB.
    pub answer_bytes_max: usize,
    /// Bytes of one event of a stream. Default: 1 MiB.
    pub event_bytes_max: usize,
    /// Bytes of all bodies above a MiB that are held at the same time; more wait. Default: 1 GiB.
    pub bodies_bytes_max: usize,
    /// Open connections; more wait to be accepted. Default: 10,000.
    pub connections_max: usize,
    /// Requests at work; more are 503. Default: 4,096.
    pub in_flight_max: usize,
    /// Backends that one request is sent to, one after the other. Default: 3, or one for each priority of its route if
    /// these are more.
    pub attempts_max: Option<usize>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 16 << 20,
            header_bytes_max: 64 << 10,
            answer_bytes_max: 32 << 20,
            event_bytes_max: 1 << 20,
            bodies_bytes_max: 1 << 30,
            connections_max: 10_000,
            in_flight_max: 4_096,
            attempts_max: None,
        }
    }
}

/// How long each wait may last, in milliseconds.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// Until the headers of a request have come, and between two requests of a connection. Default: 30,000.
    pub header_ms: u64,
    /// Until the body of a request has come. Default: 60,000.
    pub body_ms: u64,
    /// Until the cluster has decided on a reservation; after that 503. Default: 5,000.
    pub reserve_ms: u64,
    /// How long the end of an answer waits for its settlement, which goes on without it. Default: 1,000; 0: not at all.
    pub settle_wait_ms: u64,
    /// Connecting to a backend, TLS included. Default: 10,000.
    pub connect_ms: u64,
    /// Until a backend's answer begins. Default: 300,000.
    pub first_byte_ms: u64,
    /// Between two pieces of an answer. Default: 120,000.
    pub idle_ms: u64,
    /// From the reservation to the end of the answer. Default: 600,000.
    pub total_ms: u64,
    /// After that: how long a settlement may take before the reservation expires. Default: 60,000.
    pub settle_ms: u64,
    /// How long a client may take to accept what is ready for it; then it counts as gone. Default: 30,000.
    pub write_ms: u64,
    /// On stop: how long requests in flight may go on. Default: 30,000.
    pub stop_ms: u64,
    /// How long a probe of a backend that rested keeps others from probing it; at most 60,000. Default: 10,000.
    pub probe_ms: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            header_ms: 30_000,
            body_ms: 60_000,
            reserve_ms: 5_000,
            settle_wait_ms: 1_000,
            connect_ms: 10_000,
            first_byte_ms: 300_000,
            idle_ms: 120_000,
            total_ms: 600_000,
            settle_ms: 60_000,
            write_ms: 30_000,
            stop_ms: 30_000,
            probe_ms: 10_000,
        }
    }
}

impl Timeouts {
    /// How long a reservation lives.
    pub(crate) fn reservation_ms(&self) -> u64 {
        self.total_ms.saturating_add(self.settle_ms)
    }
}

impl GatewayConfig {
    /// How long any reservation of this process lives at most.
    pub(crate) fn reservation_longest(&self) -> Duration {
        let through_proxies = self.rate_limit.as_ref().map_or(0, |section| section.reservation_ms);
        Duration::from_millis(self.timeouts.reservation_ms().max(through_proxies))
    }

    /// How long slices of this process hold anything at most.
    pub(crate) fn hold_longest_ms(&self) -> u64 {
        let section = self.rate_limit.as_ref().filter(|section| section.hold_from_leases);
        self.timeouts.reservation_ms().max(section.map_or(0, |section| section.reservation_ms))
    }

    /// What the types cannot say.
    ///
    /// # Errors
    /// [`GatewayError::Config`] naming the key and what to write instead.
    pub fn check(&self) -> Result<(), GatewayError> {
        let wrong = |key: &str, message: &str| Err(GatewayError::Config(format!("{key}: {message}")));
        if self.name.is_empty() || self.name.len() > 128 {
            return wrong("name", "must be 1 to 128 bytes long");
        }
        if self.nodes.is_empty() {
            return wrong("nodes", "name at least one budget node, as host:port");
        }
        for (index, backend) in self.backends.iter().enumerate() {
            let key = format!("backends[{index}]");
            if backend.name.is_empty() || http::HeaderValue::from_str(&backend.name).is_err() {
                return wrong(&format!("{key}.name"), "must be one or more printable ASCII characters");
            }
            if self.backends[..index].iter().any(|other| other.name == backend.name) {
                return wrong(&format!("{key}.name"), "another backend has this name");
            }
            if let Err(message) = backend.check() {
                return wrong(&key, message);
            }
        }
        if let Some(rate_limit) = &self.rate_limit {
            rate_limit.check().map_err(GatewayError::Config)?;
        } else if self.listen.is_empty() {
            return wrong("listen", "give the address where applications connect, or a section `rate_limit`");
        }
        self.check_numbers()
    }

    /// Without TLS only where nobody but this machine can reach it, unless the operator says otherwise.
    pub(crate) fn listen_on(&self, key: &'static str, address: &str) -> Result<TcpListener, GatewayError> {
        let (section, over_tls) = match key {
            "http_listen" => ("http_tls", self.http_tls.is_some()),
            "rate_limit.listen" => {
                ("rate_limit.tls", self.rate_limit.as_ref().is_some_and(|section| section.tls.is_some()))
            }
            _ => ("tls", self.tls.is_some()),
        };
        let address = address.to_owned();
        match listen(&address, over_tls, self.insecure) {
            Ok(Some(listener)) => Ok(listener),
            Ok(None) => Err(GatewayError::Reach { key, address, section }),
            Err(source) => Err(GatewayError::Bind { key, address, source }),
        }
    }

    fn check_numbers(&self) -> Result<(), GatewayError> {
        let Limits {
            body_bytes_max,
            header_bytes_max,
            answer_bytes_max,
            event_bytes_max,
            bodies_bytes_max,
            connections_max,
            in_flight_max,
            attempts_max,
        } = self.limits;
        let at_least = |key: &str, value: usize, least: usize| {
            if value < least {
                return Err(GatewayError::Config(format!("limits.{key}: must be at least {least}")));
            }
            Ok(())
        };
        at_least("body_bytes_max", body_bytes_max, 1)?;
        at_least("header_bytes_max", header_bytes_max, 8192)?;
        at_least("answer_bytes_max", answer_bytes_max, 1024)?;
        at_least("event_bytes_max", event_bytes_max, 1024)?;
        at_least(
            "bodies_bytes_max",
            bodies_bytes_max,
            body_bytes_max.max(answer_bytes_max).saturating_add(2 << 20),
        )?;
        at_least("connections_max", connections_max, 1)?;
        at_least("in_flight_max", in_flight_max, 1)?;
        at_least("attempts_max", attempts_max.unwrap_or(1), 1)?;
        if self.timeouts.total_ms == 0 || self.timeouts.reservation_ms() > quorate_ledger::TTL_MAX_MS {
            return Err(GatewayError::Config(format!(
                "timeouts.total_ms: must be at least 1, and with settle_ms at most {}",
                quorate_ledger::TTL_MAX_MS
            )));
        }
        if !(1..=quorate_ledger::PROBE_LEASE_MAX_MS).contains(&self.timeouts.probe_ms) {
            let most = quorate_ledger::PROBE_LEASE_MAX_MS;
            return Err(GatewayError::Config(format!("timeouts.probe_ms: must be 1 to {most}")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = "
name: g1
listen: 127.0.0.1:0
http_listen: 127.0.0.1:0
nodes: ['127.0.0.1:1']
backends: [{name: openai, provider: OpenAI, base_url: 'https://api.openai.com/v1', api_key_env: OPENAI_API_KEY}]
";

    fn parse(text: &str) -> Result<GatewayConfig, String> {
        let config: GatewayConfig = serde_yaml_ng::from_str(text).map_err(|error| error.to_string())?;
        config.check().map_err(|error| error.to_string())?;
        Ok(config)
    }

    #[test]
    fn a_minimal_file_has_defaults() {
        let config = parse(MINIMAL).unwrap();
        assert_eq!(config.limits.body_bytes_max, 16 << 20);
        assert!(config.backends[0].stream_usage && !config.backends[0].pass_client_key);
    }

    #[test]
    fn the_example_has_every_kind() {
        let config = parse(include_str!("../../../deploy/gateway-providers.yaml")).unwrap();
        let kinds: Vec<Provider> = config.backends.iter().map(|backend| backend.provider).collect();
        for kind in [
            Provider::OpenAI,
            Provider::AzureOpenAI,
            Provider::Anthropic,
            Provider::AWSBedrock,
            Provider::AWSAnthropic,
        ] {
            assert!(kinds.contains(&kind), "{kind:?}");
        }
    }

    #[test]
    fn a_port_for_others_needs_tls_or_a_word() {
        let tls = "{cert_file: a, key_file: b}";
        let reach = |key: &'static str, address: &str, more: &str| {
            let config = parse(&format!("{MINIMAL}{more}")).unwrap();
            config.listen_on(key, address).map_err(|error| error.to_string())
        };
        for key in ["listen", "http_listen"] {
            assert!(reach(key, "127.0.0.1:0", "").is_ok());
            assert!(reach(key, "0.0.0.0:0", "insecure: true").is_ok());
        }
        assert!(reach("listen", "0.0.0.0:0", "").unwrap_err().contains("section `tls`"));
        assert!(reach("http_listen", "0.0.0.0:0", "").unwrap_err().contains("section `http_tls`"));
        assert!(reach("listen", "0.0.0.0:0", &format!("tls: {tls}")).is_ok());
        assert!(reach("http_listen", "0.0.0.0:0", &format!("tls: {tls}")).is_err());
        assert!(reach("http_listen", "0.0.0.0:0", &format!("http_tls: {tls}")).is_ok());
    }

    #[test]
    fn the_rate_limit_service_may_be_the_only_door() {
        let only = "name: g1\nhttp_listen: 127.0.0.1:0\nnodes: ['127.0.0.1:1']\n";
        let error = parse(only).unwrap_err();
        assert!(error.contains("section `rate_limit`"), "{error}");
        let config = parse(&format!("{only}rate_limit: {{listen: '0.0.0.0:0'}}\n")).unwrap();
        let section = config.rate_limit.clone().unwrap();
        assert_eq!((section.tenant.as_str(), section.decision_ms), ("default", 1_000));
        let error = config.listen_on("rate_limit.listen", &section.listen).unwrap_err().to_string();
        assert!(error.contains("section `rate_limit.tls`"), "{error}");
        for (more, said) in [
            ("decision_ms: 0", "rate_limit.decision_ms"),
            ("tenant: ''", "rate_limit.tenant"),
            ("reservation_ms: 0", "rate_limit.reservation_ms"),
            ("in_flight_max: 0", "rate_limit.in_flight_max"),
            ("lisen: x", "unknown field `lisen`"),
        ] {
            let text = format!("{only}rate_limit: {{listen: '127.0.0.1:0', {more}}}\n");
            assert!(parse(&text).unwrap_err().contains(said), "{more}");
        }
        let example = parse(include_str!("../../../deploy/envoy/gateway.yaml")).unwrap();
        assert!(example.listen.is_empty() && example.backends.is_empty());
    }

    #[test]
    fn mistakes_are_named() {
        for (from, to, said) in [
            ("name: g1", "nmae: g1", "unknown field `nmae`"),
            ("provider: OpenAI", "provider: Openai", "Openai"),
            ("['127.0.0.1:1']", "[]", "nodes"),
            ("api_key_env: OPENAI_API_KEY", "api_key_env: A, api_key_file: b", "not both"),
            ("nodes:", "timeouts: {total_ms: 0}\nnodes:", "timeouts.total_ms"),
            ("nodes:", "timeouts: {probe_ms: 60001}\nnodes:", "timeouts.probe_ms"),
            ("nodes:", "limits: {in_flight_max: 0}\nnodes:", "limits.in_flight_max"),
        ] {
            let error = parse(&MINIMAL.replace(from, to)).unwrap_err();
            assert!(error.contains(said), "{to}: {error}");
        }
    }
}
