//! `quorate drain` and `quorate undrain`: by hand, nothing is sent to a backend any more, or it is used again.

use anyhow::Result;
use clap::{Args, Subcommand};
use quorate_rpc::admin::{DrainBackendRequest, UndrainBackendRequest};

use super::ClusterOptions;

/// Send nothing to a backend until it is undrained
///
/// Requests under way end as they would; new ones go to the other backends of their route, or are refused with 503 where
/// there is none. `quorate get providers` shows what is drained, since when and by whom.
///
/// Example: quorate drain backend openai
#[derive(Debug, Args)]
pub struct Drain {
    #[command(subcommand)]
    what: What,
}

/// Use a drained backend again
///
/// One that rests because it limits or fails comes back by itself.
///
/// Example: quorate undrain backend openai
#[derive(Debug, Args)]
pub struct Undrain {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// One backend, of a policy or of the gateways' own config
    Backend(Backend),
}

#[derive(Debug, Args)]
struct Backend {
    /// `namespace/name` as policies name it, or `name` where that is clear
    name: String,
    #[command(flatten)]
    cluster: ClusterOptions,
}

impl Drain {
    /// # Errors
    /// The cluster refuses it or cannot be reached.
    pub async fn run(self) -> Result<()> {
        let What::Backend(Backend { name, cluster }) = self.what;
        let request = DrainBackendRequest { backend: name };
        let done = cluster.admin()?.drain_backend(request).await?;
        say(&done.backend, if done.changed { "drained" } else { "was drained already" }, done.known);
        Ok(())
    }
}

impl Undrain {
    /// # Errors
    /// The cluster refuses it or cannot be reached.
    pub async fn run(self) -> Result<()> {
        let What::Backend(Backend { name, cluster }) = self.what;
        let request = UndrainBackendRequest { backend: name };
        let done = cluster.admin()?.undrain_backend(request).await?;
        say(&done.backend, if done.changed { "undrained" } else { "was not drained" }, done.known);
        Ok(())
    }
}

fn say(backend: &str, what: &str, known: bool) {
    println!("backend {backend} {what}");
    if !known {
        eprintln!(
            "the cluster has never heard of a backend {backend}: no policy has it, and no gateway has reported on it; \
             see `quorate get backends` and `quorate get providers`"
        );
    }
}
