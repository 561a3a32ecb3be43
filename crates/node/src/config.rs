//! The configuration of a node. Every key is documented in `docs/operations.md`.

use std::net::TcpListener;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use quorate_rpc::listen;
use quorate_rpc::tls::{HttpTlsFiles, Names, Security, TlsFiles};
use serde::Deserialize;

use crate::error::NodeError;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// Name of the cluster: nodes of different names refuse each other.
    pub cluster: String,
    /// This node's number, unique in the cluster, never used again for another folder.
    pub id: u64,
    /// `host:port` of the gRPC endpoint.
    pub listen: String,
    /// `host:port` under which peers and clients reach this node; default: `listen`.
    pub advertise: Option<String>,
    /// `host:port` of /metrics, /healthz and /readyz.
    pub http_listen: String,
    /// Everything this node keeps.
    pub data_dir: PathBuf,
    /// All members of the cluster, this node among them.
    pub peers: Vec<PeerConfig>,
    /// How this node speaks gRPC, to peers and to callers; none: in plaintext.
    pub tls: Option<TlsFiles>,
    /// How `http_listen` is served; none: in plaintext.
    pub http_tls: Option<HttpTlsFiles>,
    /// Where there is no TLS: take connections from other machines all the same, unencrypted, from anybody.
    #[serde(default)]
    pub insecure: bool,
    #[serde(default)]
    pub limits: Limits,
    #[serde(default)]
    pub secrets: SecretsConfig,
    #[serde(default)]
    pub alerts: AlertsConfig,
    #[serde(default)]
    pub raft: RaftTimers,
    #[serde(default)]
    pub clock: ClockConfig,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerConfig {
    pub id: u64,
    pub address: String,
}

/// Where secrets are found that have no environment variable.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SecretsConfig {
    /// Holds `<name>/<key>`, as Kubernetes mounts secrets.
    pub dir: Option<PathBuf>,
}

/// Where alerts go whose budget does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AlertsConfig {
    /// `http://` or `https://`; none: nowhere, they are only shown.
    pub url: Option<String>,
    /// Signs them.
    pub secret: Option<SecretKey>,
}

/// Names a secret, never holds one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretKey {
    pub name: String,
    pub key: String,
}

/// What bounds the work a node takes on.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Operations of one tenant in flight.
    pub tenant_in_flight: usize,
    /// Reservations of one tenant that wait for others to be settled.
    pub tenant_waiting: usize,
    /// Operations waiting for a batch.
    pub proposer_queue: usize,
    /// Operations in one log entry.
    pub batch_operations: usize,
    /// Log entries in flight.
    pub batches_in_flight: usize,
    /// Operations of one session in flight.
    pub session_in_flight: usize,
    /// How long an operation may take when the caller does not say, in milliseconds.
    pub operation_timeout_ms: u64,
    /// How long a stopping node waits for what is in flight, in milliseconds.
    pub drain_ms: u64,
    /// Log entries between snapshots.
    pub snapshot_every_entries: u64,
    /// Log entries kept behind a snapshot, for followers that are a little behind.
    pub log_keep_entries: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            tenant_in_flight: 4_096,
            tenant_waiting: 1_024,
            proposer_queue: 16_384,
            batch_operations: 256,
            batches_in_flight: 4,
            session_in_flight: 4_096,
            operation_timeout_ms: 5_000,
            drain_ms: 5_000,
            snapshot_every_entries: 20_000,
            log_keep_entries: 5_000,
        }
    }
}

/// Milliseconds; the same on every node.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RaftTimers {
    pub heartbeat_ms: u64,
    pub election_min_ms: u64,
    pub election_max_ms: u64,
}

impl Default for RaftTimers {
    fn default() -> Self {
        Self { heartbeat_ms: 200, election_min_ms: 800, election_max_ms: 1_600 }
    }
}

/// When a clock is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClockConfig {
    /// A node whose clock is further from the others' does not lead if another one can, in milliseconds.
    pub max_offset_ms: u64,
}

impl ClockConfig {
    /// Less is within what networks and NTP leave open; more is near to what the ledger lets an id be ahead.
    const RANGE_MS: RangeInclusive<u64> = 20..=5_000;

    pub(crate) fn check(&self) -> Result<(), NodeError> {
        let (least, most) = (Self::RANGE_MS.start(), Self::RANGE_MS.end());
        match Self::RANGE_MS.contains(&self.max_offset_ms) {
            true => Ok(()),
            false => Err(NodeError::Config(format!(
                "clock.max_offset_ms is {}; it must be {least} to {most}",
                self.max_offset_ms
            ))),
        }
    }
}

impl Default for ClockConfig {
    fn default() -> Self {
        Self { max_offset_ms: 500 }
    }
}

impl NodeConfig {
    /// Without TLS only where nobody but this machine can reach it, unless the operator says otherwise.
    pub(crate) fn listen_on(&self, key: &'static str, address: &str) -> Result<TcpListener, NodeError> {
        let (section, over_tls) = match key {
            "http_listen" => ("http_tls", self.http_tls.is_some()),
            _ => ("tls", self.tls.is_some()),
        };
        let address = address.to_owned();
        match listen(&address, over_tls, self.insecure) {
            Ok(Some(listener)) => Ok(listener),
            Ok(None) => Err(NodeError::Reach { key, address, section }),
            Err(source) => Err(NodeError::Bind { key, address, source }),
        }
    }

    /// How this node speaks to others.
    pub(crate) fn security(&self) -> Result<Security, NodeError> {
        let Some(files) = &self.tls else { return Ok(Security::Plain) };
        Ok(Security::mutual(files.named(Names::TLS))?)
    }

    pub fn advertised(&self) -> &str {
        self.advertise.as_deref().unwrap_or(&self.listen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_that_makes_no_sense_is_refused() {
        assert!(ClockConfig::default().check().is_ok());
        for (max_offset_ms, good) in [(0, false), (19, false), (20, true), (5_000, true), (5_001, false)] {
            assert_eq!(ClockConfig { max_offset_ms }.check().is_ok(), good, "{max_offset_ms}");
        }
    }
}
