//! What a node that speaks TLS measures: until when its certificate is valid, whether new files can be used, and whom it
//! did not let in.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use quorate_rpc::tls::ServerTls;

#[derive(Debug)]
pub(crate) struct TlsMetrics {
    tls: Arc<ServerTls>,
    certificate_expires: Gauge,
    reload_failures: Counter<u64, AtomicU64>,
    refused_connections: Counter<u64, AtomicU64>,
}

impl TlsMetrics {
    pub fn register(tls: Arc<ServerTls>, registry: &mut Registry) -> Self {
        let metrics = Self {
            tls,
            certificate_expires: Gauge::default(),
            reload_failures: Counter::default(),
            refused_connections: Counter::default(),
        };
        registry.register(
            "tls_certificate_expires_timestamp_seconds",
            "When this node's certificate expires, in seconds since 1970",
            metrics.certificate_expires.clone(),
        );
        registry.register(
            "tls_reload_failures",
            "Times that changed TLS files could not be used",
            metrics.reload_failures.clone(),
        );
        registry.register(
            "tls_refused_connections",
            "Connections that did not get through the TLS handshake, for want of a certificate that counts or otherwise",
            metrics.refused_connections.clone(),
        );
        metrics
    }

    pub fn refresh(&self) {
        self.certificate_expires.set(self.tls.certificate_expires_s());
        self.reload_failures.inner().store(self.tls.reload_failures(), Ordering::Relaxed);
        self.refused_connections.inner().store(self.tls.refused(), Ordering::Relaxed);
    }
}
