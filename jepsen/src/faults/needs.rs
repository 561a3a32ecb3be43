//! What a fault needs of the machine and of the deployment.

use crate::deploy::{self, DISK_TOOLS, NetworkChoice, Options, tool};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// A network of its own.
    Network,
    /// Packets handed out to a program: iptables with NFQUEUE.
    Queue,
    Tc,
    Strace,
    /// Clocks that can be set: libfaketime.
    Clocks,
    /// A disk for each node.
    Disks,
    /// To cut its power.
    Python,
    /// The binary of the previous release.
    Previous,
}

impl Need {
    /// Why it cannot be had, if so.
    pub fn missing(self, options: &Options) -> Option<String> {
        let tools: &[&str] = match self {
            Self::Network => return network_missing(options),
            Self::Queue => &["iptables"],
            Self::Tc => &["tc"],
            Self::Strace => &["strace"],
            Self::Python => &["python3"],
            Self::Clocks => {
                let none = || "libfaketime is not installed (package faketime)".to_owned();
                return deploy::faketime().is_none().then(none);
            }
            Self::Disks => {
                if let Some(missing) = network_missing(options) {
                    return Some(missing);
                }
                &DISK_TOOLS
            }
            Self::Previous => {
                let none = || "no binary of the previous release is given".to_owned();
                return options.previous.is_none().then(none);
            }
        };
        tool::missing(tools).map(|tool| format!("{tool} is not installed"))
    }
}

fn network_missing(options: &Options) -> Option<String> {
    match options.network {
        NetworkChoice::Loopback => Some("all share the loopback interface".to_owned()),
        NetworkChoice::Auto => deploy::network_missing(),
    }
}
