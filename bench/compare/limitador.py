"""Envoy's rate limit service: Limitador, in the memory of one process, and Quorate's gateway as the agent of three durable
nodes. One descriptor with one entry, the user; a limit for each user that is never short.

Limitador's server is not on crates.io, so it must be given: bench/README.md has the commands that build it."""

from contextlib import contextmanager

from . import charts, machine, quorate, results, settings as here, tables
from .load import measure
from .processes import Processes, accepts, free_ports
from .rounds import System

LIMITADOR, LEASE, RESERVE = "Limitador", "Quorate, Lease", "Quorate, Reserve"
USERS = 10_000
CONNECTIONS = 8
# Its policy file: see `variables` in Limitador's documentation.
LIMITS = """- namespace: bench
  max_value: 900000000000
  seconds: 3600
  conditions: []
  variables: ["descriptors[0].user_id"]
"""
# The same in the format of Envoy's own service, which `quorate apply` takes.
DOMAIN = """domain: bench
descriptors:
  - key: user_id
    rate_limit: {{unit: hour, requests_per_unit: 4000000000}}
    enforcement: {enforcement}
"""


def prepare(settings):
    return {"limitador-server": machine.first_line([server(settings), "--version"])}


def server(settings):
    path = settings.limitador
    if path is None:
        raise here.Missing("limitador-server cannot be had from crates.io; build it as bench/README.md says, then --limitador PATH")
    if not path.is_file():
        raise here.Missing(f"{path} is no file; --limitador takes the path of limitador-server")
    return path


def systems(settings):
    cases = [{"clients": clients} for clients in settings.either([1, 16, 64, 256], [1, 64])]
    return [
        System(LIMITADOR, lambda: start_limitador(settings), cases, "one process, in memory"),
        System(LEASE, lambda: start_quorate(settings, "Lease"), cases, "a gateway that holds leases from three nodes"),
        System(RESERVE, lambda: start_quorate(settings, "Reserve"), cases, "a gateway, each call committed by three nodes"),
    ]


@contextmanager
def start_limitador(settings):
    with Processes(settings.work / "limitador") as processes:
        process, port = launch(settings, processes)
        yield caller(settings, f"127.0.0.1:{port}", {"gateways": [process]})


def launch(settings, processes, limits=LIMITS):
    """Its process and the port of its gRPC service."""
    rls, http = free_ports(2)
    path = processes.folder / "limits.yaml"
    path.write_text(limits)
    argv = [server(settings), path, "--rls-ip", "127.0.0.1", "--rls-port", rls]
    argv += ["--http-ip", "127.0.0.1", "--http-port", http, "memory"]
    process = processes.start("limitador", argv)
    processes.wait_until(process, lambda: accepts(rls))
    return process, rls


@contextmanager
def start_quorate(settings, enforcement):
    with quorate.cluster(settings, DOMAIN.format(enforcement=enforcement)) as cluster:
        _, provider = quorate.start_provider(settings, cluster.processes)
        cluster.start_gateway(provider, rate_limit={})
        yield caller(settings, cluster.rls, cluster.watch())


def caller(settings, target, watch):
    def run(case):
        connections = min(case["clients"], CONNECTIONS)
        arguments = ["rls", "--target", target, "--users", USERS, "--sessions", connections]
        return measure(settings, [*arguments, "--clients", case["clients"]], watch)

    return run


def report(result):
    rows = results.Rows(result)
    lines = []
    for system in rows.systems():
        for case in rows.cases(system):
            row = rows.of(system, **case)
            nodes, gateway = (results.median(row, f"cpu_micros_per_operation.{role}") for role in ("nodes", "gateways"))
            memory = results.memory(row)
            cpu = (tables.micros(gateway), tables.micros(nodes))
            lines.append([system, f"{case['clients']}", *tables.rate_and_latency(row), *cpu, tables.mib(memory)])
    most = max((case["clients"] for case in rows.cases()), default=0)
    return tables.Section(
        [verdict(rows, system, most) for system in (LEASE, RESERVE)],
        tables.table(["system", "clients", *tables.RATE_AND_LATENCY, "CPU a call", "of the nodes", "memory"], lines),
        {
            "limitador-rate": charts.lines("ShouldRateLimit: calls", "calls/s", charts.over_clients(rows, "per_second")),
            "limitador-p99": charts.lines(
                "ShouldRateLimit: latency at the 99th percentile",
                "milliseconds",
                charts.over_clients(rows, "p99_micros", 1e-3),
                logarithmic=True,
            ),
        },
    )


def verdict(rows, system, clients):
    def ratio(figure):
        return results.times(*(rows.value(name, figure, clients=clients) for name in (system, LIMITADOR)))

    rate, p99 = ratio("per_second"), ratio("p99_micros")
    return tables.goal(
        f"{system} reaches at least Limitador's throughput, with a p99 of not more than twice its",
        f"{rate or 0:.2f} times the throughput and {p99 or 0:.2f} times the p99, at {clients} clients",
        rate and p99 and rate >= 1 and p99 <= 2,
    )
