//! Envoy's rate limit service (`envoy.service.ratelimit.v3`) as another door to the same accounts: who asks is a proxy, what
//! it tells of a request are descriptors. Not the headers of answers of the HTTP door; those are in `crate::ratelimit`.
//!
//! `service` takes a call; `question` says what is asked of which account (`descriptors`: the domains of
//! envoyproxy/ratelimit's configuration; `attributes`: every other policy); `spend` asks the ledger; `answer` puts it into
//! words; `ending` does what goes on behind the answer; `local_holds` keeps what slices of this process hold. `config_stream`
//! is apart: it brings the configuration that a control plane sends into the cluster's policy.

mod answer;
mod attributes;
mod bodies;
mod config;
mod config_stream;
mod descriptors;
mod ending;
mod group;
mod local_holds;
mod metadata;
mod metrics;
mod question;
mod reservation;
mod server;
mod service;
mod spend;
mod streamed_config;
mod subject;

pub use config::{ConfigStream, RateLimitConfig};
pub(crate) use config_stream::{admin, follow as follow_config_stream};
pub(crate) use local_holds::LocalHolds;
pub(crate) use metrics::RateLimitMetrics;
pub(crate) use server::{Listening, serve};
