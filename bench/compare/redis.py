"""Counters: Redis with every write on its disk, and Quorate's session stream with three durable replicas.

An operation is INCRBY and EXPIRE there, which is what a rate limiter on Redis sends for each request, and a Reserve or a
Settle here. Redis is asked with several depths of pipelines, and its best counts; with two replicas and WAIT as well, which
is nearer to what Quorate does."""

import socket
from contextlib import contextmanager

from . import charts, machine, quorate, results, settings as here, tables
from .load import measure
from .processes import Processes, accepts, free_ports
from .rounds import System

REDIS, REPLICATED, QUORATE = "Redis", "Redis and two replicas", "Quorate"
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
        System(
            REPLICATED,
            lambda: start_redis(settings, replicas=2),
            [{"clients": case["clients"], "pipeline": case["pipeline"], "wait-replicas": 1} for case in redis],
            "the same three times, replicaof; each pipeline ends with WAIT 1, after which one replica has it in memory",
        ),
        System(QUORATE, lambda: start_quorate(settings), ours, "three nodes, each operation on the disks of two; 4 session streams"),
    ]


@contextmanager
def start_redis(settings, replicas=0):
    with Processes(settings.work / "redis") as processes:
        ports = free_ports(1 + replicas)
        servers = [launch(processes, port, ports[0]) for port in ports]
        if replicas:
            processes.wait_until(servers[0], lambda: ask(ports[0], "INFO replication").count("state=online") == replicas)

        def run(case):
            target = ["redis", "--target", f"127.0.0.1:{ports[0]}", "--users", USERS]
            return measure(settings, [*target, *flags(case)], {"nodes": servers})

        yield run


def launch(processes, port, leader):
    folder = processes.folder / f"data-{port}"
    folder.mkdir()
    options = {"port": port, "bind": "127.0.0.1", "appendonly": "yes", "appendfsync": "always", "save": ""}
    options |= {"dir": folder, "maxclients": 10_000, "repl-diskless-sync-delay": 0}
    argv = [server()]
    for name, value in options.items():
        argv += [f"--{name}", value]
    if port != leader:
        argv += ["--replicaof", "127.0.0.1", leader]
    process = processes.start(f"redis-{port}", argv)
    processes.wait_until(process, lambda: accepts(port))
    return process


def ask(port, command):
    """An inline command of Redis; what came of it, as far as it fits into one read."""
    with socket.create_connection(("127.0.0.1", port), 2) as connection:
        connection.sendall(f"{command}\r\n".encode())
        return connection.recv(1 << 16).decode(errors="replace")


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
            how = tables.clients(case) + (f", pipeline of {depth}" if depth else "")
            memory, cpu = results.memory(row), results.median(row, "cpu_micros_per_operation.nodes")
            lines.append([system, how, *tables.rate_and_latency(row), tables.micros(cpu), tables.mib(memory)])
            bars.append((system, how, results.median(row, "per_second")))
    head = ["system", "load", *tables.RATE_AND_LATENCY, "CPU of the servers", "memory"]
    plot = charts.bars("Counter updates on disk", "operations/s", bars)
    return tables.Section([verdict(rows, system) for system in (REDIS, REPLICATED)], tables.table(head, lines, left=2), {"redis": plot})


def verdict(rows, theirs):
    best = [rows.most(system, "per_second") for system in (QUORATE, theirs)]
    ratio = results.times(*best)
    return tables.goal(
        f"ahead of {theirs} with three durable replicas",
        f"at their best {best[0] or 0:,.0f} and {best[1] or 0:,.0f} a second, {ratio or 0:.2f} times",
        ratio and ratio > 1,
    )
