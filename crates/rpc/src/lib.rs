//! The gRPC contract: generated types, conversions to the ledger's words, and the client with leader routing.

/// `quorate.budget.v1`
#[allow(missing_debug_implementations, clippy::all)]
pub mod budget {
    tonic::include_proto!("quorate.budget.v1");
}

/// `quorate.admin.v1`
#[allow(missing_debug_implementations, clippy::all)]
pub mod admin {
    tonic::include_proto!("quorate.admin.v1");
}

/// `quorate.raft.v1`
#[allow(missing_debug_implementations, clippy::all)]
pub mod raft {
    tonic::include_proto!("quorate.raft.v1");
}

/// All of `proto/` as an encoded `FileDescriptorSet`, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
