"""Counters: Redis with every write on its disk, and Quorate's session stream with three durable replicas.

An operation is INCRBY and EXPIRE there, which is what a rate limiter on Redis sends for each request, and a Reserve or a
Settle here. Redis is asked with several depths of pipelines, and its best counts."""

from contextlib import contextmanager

from . import charts, machine, quorate, results, settings as here, tables
from .load import measure
from .processes import Processes, accepts, free_ports
from .rounds import System

REDIS, QUORATE = "Redis", "Quorate"
USERS = 10_000


def prepare(settings):
    return {"redis-server": machine.first_line([server(), "--version"])}


def server():
    return here.debian("redis-server", "redis-server")


def systems(settings):
    shapes = settings.either(
        [(50, 1), (50, 16), (50, 64), (8, 256), (512, 1), (2048, 1)], [(50, 1), (50, 16), (2048, 1)]
    )
    redis = [{"clients": clients, "pipeline": pipeline} for clients, pipeline in shapes]
    ours = [{"clients": clients} for clients in settings.either([1, 64, 512, 2048], [1, 2048])]
    return [
        System(REDIS, lambda: start_redis(settings), redis, "one process; appendonly yes, appendfsync always, save ''"),
        System(QUORATE, lambda: start_quorate(settings), ours, "three nodes, each operation on the disks of two; 4 session streams"),
    ]


@contextmanager
def start_redis(settings):
    with Processes(settings.work / "redis") as processes:
        (port,) = free_ports(1)
        options = {"port": port, "bind": "127.0.0.1", "appendonly": "yes", "appendfsync": "always", "save": ""}
        options |= {"dir": processes.folder, "maxclients": 10_000}
        argv = [server()]
        for name, value in options.items():
            argv += [f"--{name}", value]
        process = processes.start("redis", argv)
        processes.wait_until(process, lambda: accepts(port))

        def run(case):
            target = ["redis", "--target", f"127.0.0.1:{port}", "--users", USERS]
            return measure(settings, [*target, *flags(case)], {"nodes": [process]})

        yield run


@contextmanager
def start_quorate(settings):
    with quorate.cluster(settings, quorate.budget(by_user=False)) as cluster:

        def run(case):
            target = ["session", "--nodes", ",".join(cluster.nodes)]
            return measure(settings, [*target, *flags(case)], cluster.watch())

        yield run


def flags(case):
    return [word for name, value in case.items() for word in (f"--{name}", value)]


def report(result):
    rows = results.Rows(result)
    lines, bars = [], []
    for system in rows.systems():
        for case in rows.cases(system):
            row = rows.of(system, **case)
            depth = case.get("pipeline")
            how = f"{case['clients']:,} clients" + (f", pipeline of {depth}" if depth else "")
            memory, cpu = results.total(row, "resident_bytes"), results.median(row, "cpu_micros_per_operation.nodes")
            lines.append([system, how, *tables.rate_and_latency(row), tables.micros(cpu), tables.mib(memory)])
            bars.append((system, how, results.median(row, "per_second")))
    ours, theirs = (rows.most(system, "per_second") for system in (QUORATE, REDIS))
    ratio = results.times(ours, theirs)
    verdict = tables.goal(
        "ahead of Redis with three durable replicas",
        f"at their best {ours or 0:,.0f} and {theirs or 0:,.0f} a second, {ratio or 0:.2f} times",
        ratio and ratio > 1,
    )
    head = ["system", "load", *tables.RATE_AND_LATENCY, "CPU of the servers", "memory"]
    plot = charts.bars("Counter updates on disk", "operations/s", bars)
    return tables.Section([verdict], tables.table(head, lines, left=2), {"redis": plot})
