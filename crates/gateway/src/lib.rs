//! The stateless gateway: identify, route, estimate, reserve, call upstream, settle.
mod provider;
mod tokenizer;
