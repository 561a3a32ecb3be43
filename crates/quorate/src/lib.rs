//! One binary: node, gateway, dev cluster, operator commands, benchmark and simulated provider.
