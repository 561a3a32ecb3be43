"""LiteLLM's proxy and one gateway of Quorate, each with a budget of tokens for every user, before the simulated provider.

LiteLLM keeps its limits in the memory of each of its processes: who a caller is says `bench/litellm/bench_auth.py`, the
documented hook, with a limit of tokens a minute that is never short. Its own advice for production is followed: one worker
a core, no access log; a single worker is measured as well."""

import shutil
from contextlib import contextmanager

from . import charts, gateway, machine, quorate, results, settings as here, tables
from .load import Failed
from .processes import Processes, answers, free_ports
from .rounds import System

RESERVE, BEHIND, LEASE = "Quorate, Reserve", "Quorate, Reserve, settling behind", "Quorate, Lease"
OURS = (RESERVE, BEHIND, LEASE)
REQUIREMENTS = ["litellm[proxy]==1.108.7"]
FILES = machine.ROOT / "bench" / "litellm"
READY_WITHIN_S = 120
WARM_UPS = 2
TOKENS_A_MINUTE = 900_000_000
CONFIG = """model_list:
  - model_name: gpt-4o
    litellm_params: {{model: openai/gpt-4o, api_base: "http://127.0.0.1:{provider}/v1", api_key: none}}
general_settings: {{master_key: sk-bench, custom_auth: bench_auth.who}}
"""


def prepare(_settings):
    python = here.venv("litellm", REQUIREMENTS) / "python"
    told = "import importlib.metadata as m; print(m.version('litellm'))"
    return {"litellm": machine.first_line([python, "-c", told]), "python": machine.first_line([python, "--version"])}


def name(workers):
    return f"LiteLLM, {workers} worker{'s' if workers > 1 else ''}"


def workers():
    """One, and one a core."""
    return sorted({1, len(machine.cpus_used())})


def systems(settings):
    cases = [{"clients": clients} for clients in settings.either([1, 16, 64], [1, 64])]
    ours = [
        System(RESERVE, lambda: gateway.start_gateway(settings, "Reserve"), cases, "one gateway and three nodes"),
        System(BEHIND, lambda: gateway.start_gateway(settings, "Reserve", gateway.NO_WAIT), cases, f"the same with {gateway.NO_WAIT}"),
        System(LEASE, lambda: gateway.start_gateway(settings, "Lease"), cases, "one gateway and three nodes; enforcement: Lease"),
    ]
    theirs = [
        System(name(number), lambda number=number: start_litellm(settings, number), cases, "limits in memory, no database")
        for number in workers()
    ]
    return [*theirs, *ours]


@contextmanager
def start_litellm(settings, number):
    with Processes(settings.work / "litellm") as processes:
        process, port, provider = launch(settings, processes, number, TOKENS_A_MINUTE)
        measure = gateway.caller(settings, f"http://127.0.0.1:{port}/v1", {"gateways": [process], "provider": [provider]})
        warm_up(measure)
        yield measure


def warm_up(measure):
    """Its first requests take seconds, once in each worker; those do not count."""
    for attempt in range(WARM_UPS):
        try:
            measure({"clients": 16})
        except Failed:
            if attempt == WARM_UPS - 1:
                raise


def launch(settings, processes, number, tokens_a_minute):
    """The proxy, its port, and the provider behind it."""
    provider, provider_port = quorate.start_provider(settings, processes)
    for file in FILES.iterdir():
        if file.is_file():
            shutil.copy(file, processes.folder)
    (processes.folder / "config.yaml").write_text(CONFIG.format(provider=provider_port))
    (port,) = free_ports(1)
    binary = here.venv("litellm", REQUIREMENTS) / "litellm"
    argv = [binary, "--config", "config.yaml", "--host", "127.0.0.1", "--port", port]
    argv += ["--num_workers", number, "--log_config", "logging.json", "--telemetry", "False"]
    if number > 1:
        # Its import takes longer than the five seconds after which uvicorn believes a worker dead.
        argv += ["--timeout_worker_healthcheck", 60]
    environment = {
        "BENCH_TOKENS_A_MINUTE": str(tokens_a_minute),
        "LITELLM_LOG": "ERROR",
        "LITELLM_MODE": "PRODUCTION",
        # Prices from its own package, not from the internet.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    process = processes.start("litellm", argv, environment)
    processes.wait_until(process, lambda: answers(port, "/health/liveliness"), READY_WITHIN_S)
    return process, port, provider


def report(result):
    rows = results.Rows(result)
    lines, rates, resident = [], [], []
    for system in rows.systems():
        for case in rows.cases(system):
            row = rows.of(system, **case)
            cpu = [results.median(row, f"cpu_micros_per_operation.{role}") for role in ("gateways", "nodes")]
            cells = [*tables.rate_and_latency(row), *map(tables.micros, cpu), tables.mib(results.memory(row))]
            lines.append([system, case["clients"], *cells])
            rates.append((system, tables.clients(case), results.median(row, "per_second")))
        resident += resident_of(rows, system)
    head = ["system", "clients", *tables.RATE_AND_LATENCY, "CPU: gateway", "nodes", "memory"]
    return tables.Section(
        verdicts(rows, [system for system in rows.systems() if system not in OURS]),
        tables.table(head, lines),
        {
            "litellm-rate": charts.bars("Chat completions with a budget for each user", "requests/s", rates),
            "litellm-memory": charts.bars("Resident memory of all processes, 64 clients", "MiB", resident),
        },
    )


def resident_of(rows, system):
    """Bars in MiB; of Quorate the gateway apart, which is what a fleet has many of."""
    row = rows.of(system, clients=64)
    if row is None:
        return []
    parts = [("", results.memory(row))]
    if system in OURS:
        parts = [("gateway", results.median(row, "resident_bytes.gateways")), ("gateway and three nodes", results.memory(row))]
    return [(system, label, (value or 0) / 2**20) for label, value in parts]


def verdicts(rows, theirs):
    best = max((rows.most(system, "per_second") for system in theirs), default=None)
    told = []
    for system in OURS:
        ratio = results.times(rows.most(system, "per_second"), best)
        measured = f"{ratio or 0:,.0f} times, each at its best"
        told.append(tables.goal(f"{system}: at least 30 times LiteLLM's throughput", measured, ratio and ratio >= 30))
    for system in theirs:
        row, proxy = rows.of(RESERVE, clients=64), rows.of(system, clients=64)
        theirs_bytes = proxy and results.memory(proxy)
        for what, ours_bytes in (
            ("the gateway", row and results.median(row, "resident_bytes.gateways")),
            ("the gateway and three nodes", row and results.memory(row)),
        ):
            share = results.times(ours_bytes, theirs_bytes)
            measured = f"{share or 0:.2f} of {system}"
            told.append(tables.goal(f"a tenth of its memory, {what}", measured, share and share <= 0.1))
    return told
