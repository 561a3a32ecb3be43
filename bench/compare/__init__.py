"""Quorate beside its peers on one machine: `bench/run` measures, `bench/report` writes docs/performance.md.

One file for each comparison (limitador, redis, gateway, envoy, litellm), and below them: settings, processes, quorate (a
cluster), load (one measurement), rounds (who is measured when), results, tables, svg."""
