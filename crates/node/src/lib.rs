//! A budget node: tenant actors, the batching proposer and the gRPC services.
