"""Chat completions: straight to the simulated provider, and through one gateway with three nodes behind it."""

from contextlib import contextmanager

from . import charts, quorate, results, tables
from .load import measure
from .processes import Processes
from .rounds import System

PROVIDER, RESERVE, LEASE = "provider alone", "gateway, Reserve", "gateway, Lease"
# Answers that do not wait for their settlement.
BEHIND = "gateway, Reserve, settling behind"
NO_WAIT = "timeouts: {settle_wait_ms: 0}"
TENANTS = 64
MODES = {"JSON": [], "SSE": ["--stream"]}


def prepare(_settings):
    return {}


def systems(settings):
    clients = settings.either([1, 4, 16, 64, 256], [1, 64])
    cases = [{"answer": mode, "clients": number} for mode in MODES for number in clients]
    return [
        System(PROVIDER, lambda: start_provider(settings), cases, "no gateway"),
        System(RESERVE, lambda: start_gateway(settings, "Reserve"), cases, "one gateway, three nodes; a budget for each user"),
        System(BEHIND, lambda: start_gateway(settings, "Reserve", NO_WAIT), cases, f"the same with {NO_WAIT}"),
        System(LEASE, lambda: start_gateway(settings, "Lease"), cases, "one gateway, three nodes; enforcement: Lease"),
    ]


@contextmanager
def start_provider(settings):
    with Processes(settings.work / "provider") as processes:
        provider, port = quorate.start_provider(settings, processes)
        yield caller(settings, f"http://127.0.0.1:{port}/v1", {"provider": [provider]})


@contextmanager
def start_gateway(settings, enforcement, more=""):
    with quorate.cluster(settings, quorate.budget(enforcement)) as cluster:
        provider, port = quorate.start_provider(settings, cluster.processes)
        cluster.start_gateway(port, more)
        yield caller(settings, cluster.gateway, {**cluster.watch(), "provider": [provider]})


def caller(settings, url, watch):
    """Chat requests to any gateway that speaks OpenAI's API."""

    def run(case):
        arguments = ["gateway", "--gateway", url, "--clients", case["clients"], "--tenants", TENANTS]
        return measure(settings, [*arguments, *MODES[case.get("answer", "JSON")]], watch)

    return run


def report(result):
    rows = results.Rows(result)
    lines = []
    for mode in MODES:
        for case in rows.cases(answer=mode):
            for system in rows.systems():
                row = rows.of(system, **case)
                costs = [results.median(row, f"cpu_micros_per_operation.{role}") for role in ("gateways", "nodes", "provider", "bench")]
                adds = "" if system == PROVIDER else tables.milliseconds(added(rows, system, case))
                cells = [*tables.rate_and_latency(row), adds, *map(tables.micros, costs)]
                lines.append([f"{mode}, {case['clients']}", system, *cells])
    head = ["answer, clients", "system", *tables.RATE_AND_LATENCY, "adds at p50", "CPU: gateway", "nodes", "provider", "load"]
    plots = {}
    for mode in MODES:
        rate = charts.over_clients(rows, "per_second", answer=mode)
        plots[f"gateway-{mode.lower()}"] = charts.lines(f"Chat completions, {mode}", "requests/s", rate, logarithmic=True)
    plots["gateway-adds"] = charts.lines("What a gateway adds to the median, JSON", "milliseconds", added_by_clients(rows), logarithmic=True)
    return tables.Section(verdicts(rows), tables.table(head, lines, left=2), plots)


def added(rows, system, case):
    """Microseconds at the median, or None."""
    values = [rows.value(name, "p50_micros", **case) for name in (system, PROVIDER)]
    return None if None in values else values[0] - values[1]


def added_by_clients(rows):
    series = {}
    for system in rows.systems():
        points = [(case["clients"], added(rows, system, case)) for case in rows.cases(system, answer="JSON")]
        if system != PROVIDER:
            # A plot in steps of ten has no place for nothing.
            series[system] = [(clients, max(value / 1e3, 0.001)) for clients, value in points if value is not None]
    return {system: points for system, points in series.items() if points}


def verdicts(rows):
    told = []
    for system in (RESERVE, BEHIND, LEASE):
        adds = added(rows, system, {"answer": "JSON", "clients": 1})
        measured = f"{(adds or 0) / 1e3:.2f} ms, JSON, one client"
        goal = f"{system}: less than 0.5 ms added to the median of an idle gateway"
        told.append(tables.goal(goal, measured, None if adds is None else adds < 500))
        most = rows.most(system, "per_second", answer="JSON")
        measured = f"{most or 0:,.0f} a second at the most, JSON"
        goal = f"{system}: at least 15,000 requests a second on two cores shared with provider and load"
        told.append(tables.goal(goal, measured, None if most is None else most >= 15_000))
    return told
