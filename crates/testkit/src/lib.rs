//! Test tools: in-process cluster, seeded clock, history recorder. Never shipped.
