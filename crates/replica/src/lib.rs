//! The replicated ledger: openraft over a frame log in sled, snapshots in files.
