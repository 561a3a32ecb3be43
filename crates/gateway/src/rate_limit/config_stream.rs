//! Follows a control plane that sends limits (Envoy Gateway), and puts them into the cluster's policy. Every answer of the
//! stream is the whole state: domains that it does not name any more go. One that cannot be used is refused with the reason,
//! and what was in force stays so.
//!
//! Any number of gateways may follow the same stream: the policy changes only from the version that was read, and applying
//! what is there already changes nothing.

use std::sync::Arc;
use std::time::Duration;

use quorate_policy::manifests::{ManifestSet, Mode, Source};
use quorate_rpc::admin::{ApplyMode, ApplyPolicyRequest, GetPolicyRequest};
use quorate_rpc::discovery::{DiscoveryRequest, DiscoveryResponse};
use quorate_rpc::envoy::config::core::v3::Node;
use quorate_rpc::rls_discovery::rate_limit_config_discovery_service_client::RateLimitConfigDiscoveryServiceClient;
use quorate_rpc::tls::{Names, Security};
use quorate_rpc::{Admin, Client, ClientConfig, ClientError};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::config::ConfigStream;
use super::streamed_config::{MANAGED_BY, TYPE_URL, manifests};
use crate::config::GatewayConfig;
use crate::error::GatewayError;
use crate::metrics::Metrics;

const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// Somebody else changes the policy at the same time.
const CONFLICTS_MAX: usize = 8;
/// As much as a policy may have.
const MESSAGE_MAX_BYTES: usize = 64 << 20;
const COMMENT: &str = "limits from the config stream";
const NAMES: Names = Names {
    ca: "rate_limit.config_stream.cluster_tls.ca_file",
    cert: "rate_limit.config_stream.cluster_tls.cert_file",
    key: "rate_limit.config_stream.cluster_tls.key_file",
};
const SERVER_NAMES: Names = Names {
    ca: "rate_limit.config_stream.tls.ca_file",
    cert: "rate_limit.config_stream.tls.cert_file",
    key: "rate_limit.config_stream.tls.key_file",
};

/// The way to change the policy: a certificate of a gateway may not do that, so the stream may have one of its own.
pub(crate) fn admin(
    config: &GatewayConfig,
    stream: &ConfigStream,
    own: &Client,
) -> Result<Admin, GatewayError> {
    let client = match &stream.cluster_tls {
        None => own.clone(),
        Some(files) => Client::connect(ClientConfig {
            name: config.name.clone(),
            nodes: config.nodes.clone(),
            operation_timeout_ms: config.timeouts.reserve_ms,
            security: Security::mutual(files.named(NAMES))?,
        }),
    };
    Ok(client.admin().acting_as(&config.name))
}

/// Runs until `stop`.
///
/// # Errors
/// Files of TLS that cannot be used, or an address that is none.
pub(crate) fn follow(
    stream: ConfigStream,
    name: String,
    admin: Admin,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) -> Result<impl Future<Output = ()> + Send, GatewayError> {
    let security = match &stream.tls {
        None => Security::Plain,
        Some(files) => Security::with_others(files.named(SERVER_NAMES))?,
    };
    let channel = quorate_rpc::channel(&stream.server, &security)
        .map_err(|error| GatewayError::Config(format!("rate_limit.config_stream.server: {error}")))?;
    let follower = Follower { node: stream.node_id.unwrap_or(name), server: stream.server, admin, metrics };
    Ok(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = follower.run(channel) => {}
        }
    })
}

struct Follower {
    node: String,
    server: String,
    admin: Admin,
    metrics: Arc<Metrics>,
}

/// Why an answer was not taken up.
enum Refused {
    /// It is wrong, and stays wrong.
    Wrong(String),
    /// The cluster could not be asked.
    Later(String),
}

impl Follower {
    async fn run(&self, channel: tonic::transport::Channel) {
        let mut backoff = BACKOFF_MIN;
        // Of the last answer that was taken up.
        let mut taken = String::new();
        loop {
            let before = taken.clone();
            let ended = self.stream(channel.clone(), &mut taken).await;
            tracing::warn!(
                server = self.server,
                reason = ended,
                "the config stream ended; it is opened again"
            );
            if taken != before {
                backoff = BACKOFF_MIN;
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Until it ends; gives the reason.
    async fn stream(&self, channel: tonic::transport::Channel, taken: &mut String) -> String {
        let (say, said) = mpsc::channel(4);
        let mut client =
            RateLimitConfigDiscoveryServiceClient::new(channel).max_decoding_message_size(MESSAGE_MAX_BYTES);
        // A new stream has taken up nothing, so that it is sent everything: the policy may have changed since.
        let mut version = String::new();
        let first = DiscoveryRequest {
            node: Some(Node {
                id: self.node.clone(),
                user_agent_name: "quorate".to_owned(),
                ..Node::default()
            }),
            type_url: TYPE_URL.to_owned(),
            ..DiscoveryRequest::default()
        };
        if say.send(first.clone()).await.is_err() {
            return "it could not be opened".to_owned();
        }
        let mut answers = match client.stream_rls_configs(ReceiverStream::new(said)).await {
            Ok(opened) => opened.into_inner(),
            Err(status) => return status.message().to_owned(),
        };
        loop {
            let answer = match answers.message().await {
                Ok(Some(answer)) => answer,
                Ok(None) => return "the server closed it".to_owned(),
                Err(status) => return status.message().to_owned(),
            };
            let error_detail = match self.take_up(&answer).await {
                Ok(()) => {
                    version.clone_from(&answer.version_info);
                    taken.clone_from(&answer.version_info);
                    None
                }
                Err(Refused::Wrong(reason)) => {
                    self.metrics.rate_limit.config_refused.inc();
                    tracing::error!(
                        server = self.server,
                        version = answer.version_info,
                        reason,
                        "a configuration was refused"
                    );
                    Some(quorate_rpc::google::rpc::Status {
                        code: Code::InvalidArgument.into(),
                        message: reason,
                        details: Vec::new(),
                    })
                }
                // Neither yes nor no: the next stream brings it again.
                Err(Refused::Later(reason)) => return reason,
            };
            let reply = DiscoveryRequest {
                version_info: version.clone(),
                response_nonce: answer.nonce,
                error_detail,
                ..first.clone()
            };
            if say.send(reply).await.is_err() {
                return "the server does not listen".to_owned();
            }
        }
    }

    async fn take_up(&self, answer: &DiscoveryResponse) -> Result<(), Refused> {
        let text = manifests(&answer.resources).map_err(Refused::Wrong)?;
        let source = Source { name: "config stream", text: &text };
        let (sent, _) = ManifestSet::parse(&[source], Mode::Strict)
            .map_err(|errors| Refused::Wrong(errors.to_string()))?;
        for _ in 0..CONFLICTS_MAX {
            match self.put(&sent).await {
                Ok(Some(version)) => {
                    self.metrics.rate_limit.config_taken.inc();
                    tracing::info!(
                        version,
                        domains = answer.resources.len(),
                        "limits of the config stream in force"
                    );
                    return Ok(());
                }
                Ok(None) => {}
                Err(refused) => return Err(refused),
            }
        }
        Err(Refused::Later("the policy is changed by others all the time".to_owned()))
    }

    /// `None`: the policy has changed meanwhile.
    async fn put(&self, sent: &ManifestSet) -> Result<Option<u64>, Refused> {
        let later = |error: ClientError| Refused::Later(error.to_string());
        let present = self.admin.get_policy(GetPolicyRequest::default()).await.map_err(later)?;
        let base = ManifestSet::from_document(&present.document)
            .map_err(|errors| Refused::Later(format!("cannot read the policy in force: {errors}")))?;
        let next = base.with_managed(MANAGED_BY, sent).map_err(Refused::Wrong)?;
        if next == base {
            return Ok(Some(present.version));
        }
        let (document, mode) = if next.is_empty() {
            (base.to_document(), ApplyMode::Delete)
        } else {
            (next.to_document(), ApplyMode::Replace)
        };
        let request = ApplyPolicyRequest {
            document,
            expected_version: Some(present.version),
            mode: mode.into(),
            comment: COMMENT.to_owned(),
            // What a newer release wrote stays.
            lenient: true,
            ..ApplyPolicyRequest::default()
        };
        match self.admin.apply_policy(request).await {
            Ok(applied) => Ok(Some(applied.version)),
            Err(ClientError::Rejected { code: Code::InvalidArgument, message }) => {
                Err(Refused::Wrong(message))
            }
            Err(ClientError::Rejected { code: Code::Aborted, .. }) => Ok(None),
            Err(error) => Err(later(error)),
        }
    }
}
