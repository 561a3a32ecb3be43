//! Options of `quorate bench` for what is not Quorate's own: a rate limit service, a Redis, and whose CPU time is told.

use std::str::FromStr;

use anyhow::{Result, bail};
use clap::Args;
use quorate_rpc::tls::Security;

use crate::bench::{Process, RedisPlan, RlsPlan, Watched};

#[derive(Debug, Args)]
pub struct PeerOptions {
    /// For `rls` and `redis`: where it listens
    #[arg(long = "target", id = "peer", value_name = "HOST:PORT")]
    target: Option<String>,
    /// For `rls`: the domain of each call
    #[arg(long, default_value = "bench", value_name = "NAME")]
    domain: String,
    /// For `rls`: the key of each call's descriptor; the value is the user
    #[arg(long, default_value = "user_id", value_name = "KEY")]
    descriptor_key: String,
    /// For `rls` and `redis`: users that the load is spread over, each with a counter
    #[arg(long, default_value_t = 10_000, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    users: u64,
    /// For `rls`: what each call adds
    #[arg(long, default_value_t = 1, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    hits: u32,
    /// For `redis`: operations (INCRBY and EXPIRE) that a client sends before it reads an answer
    #[arg(long, default_value_t = 1, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pipeline: u32,
    /// For `redis`: each pipeline ends with WAIT for so many replicas
    #[arg(long, default_value_t = 0, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(0..=100))]
    wait_replicas: u32,
    /// Processes whose CPU time an operation is told of, by role: nodes, gateways or provider
    #[arg(long, value_name = "ROLE=PID,…")]
    watch: Vec<Watch>,
}

/// `nodes=17,18,19`
#[derive(Debug, Clone, PartialEq, Eq)]
struct Watch {
    role: Role,
    processes: Vec<Process>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Nodes,
    Gateways,
    Provider,
}

impl FromStr for Watch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (role, ids) = text.split_once('=').ok_or("wanted: ROLE=PID,PID, like nodes=17,18")?;
        let role = match role {
            "nodes" => Role::Nodes,
            "gateways" => Role::Gateways,
            "provider" => Role::Provider,
            other => return Err(format!("{other} is no role; there are nodes, gateways and provider")),
        };
        let process = |id: &str| match id.parse() {
            Ok(id) => Ok(Process { id }),
            Err(_) => Err(format!("{id:?} is no process id")),
        };
        Ok(Self { role, processes: ids.split(',').map(process).collect::<Result<_, _>>()? })
    }
}

impl PeerOptions {
    pub fn watched(&self) -> Watched {
        let of = |role| {
            let named = self.watch.iter().filter(|watch| watch.role == role);
            named.flat_map(|watch| watch.processes.iter().copied()).collect()
        };
        Watched { nodes: of(Role::Nodes), gateways: of(Role::Gateways), provider: of(Role::Provider) }
    }

    pub fn is_watching(&self) -> bool {
        !self.watch.is_empty()
    }

    /// # Errors
    /// `--target` is missing.
    fn target(&self) -> Result<&str> {
        match &self.target {
            Some(target) => Ok(target),
            None => bail!("`bench rls` and `bench redis` need --target HOST:PORT"),
        }
    }

    /// # Errors
    /// `--target` is missing.
    pub fn redis(&self) -> Result<RedisPlan> {
        Ok(RedisPlan {
            target: self.target()?.to_owned(),
            keys: self.users,
            pipeline: self.pipeline,
            replicas: self.wait_replicas,
        })
    }

    /// # Errors
    /// `--target` is missing.
    pub fn rls(&self, security: Security, connections: usize) -> Result<RlsPlan> {
        Ok(RlsPlan {
            target: self.target()?.to_owned(),
            security,
            domain: self.domain.clone(),
            key: self.descriptor_key.clone(),
            users: self.users,
            hits: self.hits,
            connections,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_names_a_role_and_its_processes() {
        let processes = vec![Process { id: 17 }, Process { id: 18 }];
        assert_eq!("nodes=17,18".parse(), Ok(Watch { role: Role::Nodes, processes }));
        for wrong in ["", "nodes", "nodes=", "nodes=1,", "cats=1", "nodes=-1"] {
            assert!(wrong.parse::<Watch>().is_err(), "{wrong}");
        }
    }
}
