//! The stateless gateway: identify, route, estimate, reserve, call upstream, settle.
