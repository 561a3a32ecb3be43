//! Generated from the contracts of others: Envoy's rate limit service, and the stream that configures it.

#![allow(missing_debug_implementations, unused_qualifications, clippy::all, clippy::unwrap_used)]

/// Nested like the packages, because they refer to each other by that path.
pub mod envoy {
    pub mod config {
        pub mod core {
            pub mod v3 {
                tonic::include_proto!("envoy.config.core.v3");
            }
        }
    }
    pub mod extensions {
        pub mod common {
            pub mod ratelimit {
                pub mod v3 {
                    tonic::include_proto!("envoy.extensions.common.ratelimit.v3");
                }
            }
        }
    }
    pub mod r#type {
        pub mod v3 {
            tonic::include_proto!("envoy.r#type.v3");
        }
    }
    pub mod service {
        pub mod ratelimit {
            pub mod v3 {
                tonic::include_proto!("envoy.service.ratelimit.v3");
            }
        }
        pub mod discovery {
            pub mod v3 {
                tonic::include_proto!("envoy.service.discovery.v3");
            }
        }
    }
}

pub mod google {
    pub mod rpc {
        tonic::include_proto!("google.rpc");
    }
}

pub mod ratelimit {
    pub mod config {
        pub mod ratelimit {
            pub mod v3 {
                tonic::include_proto!("ratelimit.config.ratelimit.v3");
            }
        }
    }
    pub mod service {
        pub mod ratelimit {
            pub mod v3 {
                tonic::include_proto!("ratelimit.service.ratelimit.v3");
            }
        }
    }
}

pub use envoy::service::{discovery::v3 as discovery, ratelimit::v3 as rls};
pub use ratelimit::{config::ratelimit::v3 as rls_config, service::ratelimit::v3 as rls_discovery};
