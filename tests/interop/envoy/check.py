"""Real Envoys with the files of deploy/envoy ask Quorate for limits. Arguments: the quorate binary, a folder for logs.
NODES and PROVIDER say where a cluster and a simulated provider run."""

import json
import sys

from setting import Setting, in_one_hour, question, until

setting = Setting(sys.argv[1], sys.argv[2])
LIMIT = 250


def check(what, found, expected):
    if found != expected:
        setting.show_logs()
        sys.exit(f"{what}: found {found!r}, expected {expected!r}")
    print(f"ok  {what}")


def charged(budget, user, expected):
    what = f"{budget} {user} is charged {expected}"
    return until(what, lambda: setting.account(budget, user) == expected, lambda: setting.account(budget, user))


def counting():
    envoy = setting.envoy("counting")
    first = envoy.chat("json", question())
    used = first.json()["usage"]["total_tokens"]
    check("an answer in JSON passes", first.status, 200)
    check("with headers of what is left", first.headers["ratelimit-remaining"], str(LIMIT))
    check("and is charged at its end", bool(charged("llm/user", "json", (used, 0))), True)

    stream = envoy.chat("sse", question(stream=True, stream_options={"include_usage": True}))
    events = [json.loads(line[6:]) for line in stream.body.splitlines() if line.startswith("data: {")]
    used = next(event["usage"]["total_tokens"] for event in events if event.get("usage"))
    check("a stream passes", (stream.status, stream.headers["content-type"].split(";")[0]), (200, "text/event-stream"))
    check("and is charged at its end", bool(charged("llm/user", "sse", (used, 0))), True)

    parallel = envoy.parallel(20, "many", question("mock:tokens=90", 90))
    passed = [one for one in parallel if one.status == 200]
    spent = sum(one.json()["usage"]["total_tokens"] for one in passed)
    charged("llm/user", "many", (spent, 0))
    check("counting lets parallel requests go beyond the limit", len(passed) > 2 and spent > LIMIT, True)
    refused = envoy.chat("many", question())
    check("after that it is 429", refused.status, 429)
    check("in OpenAI's words", refused.json()["error"]["code"], "insufficient_quota")
    kind, left, retry = (refused.headers.get(name) for name in ("content-type", "ratelimit-remaining", "retry-after"))
    check("with headers", (kind, left, 0 < int(retry) <= 3600), ("application/json", "0", True))
    check("a refused request is not charged", setting.account("llm/user", "many"), (spent, 0))

    error = envoy.chat("errs", question("mock:status=500"))
    check("an upstream's error comes through", error.status, 500)
    charged("llm/user", "errs", (0, 0))
    check("and costs nothing", setting.account("llm/user", "errs"), (0, 0))


def reserving(kind=""):
    """`kind`: before the names of all users."""
    envoy = setting.envoy("reserving")
    body = question("ok", 15, size=85)
    parallel = envoy.parallel(20, f"{kind}res", body)
    passed = [one for one in parallel if one.status == 200]
    used = sum(one.json()["usage"]["total_tokens"] for one in passed)
    check("of 20 parallel requests of 100 tokens, 2 fit into 250", len(passed) >= 2, True)
    check("what they used is charged, nothing stays held", bool(charged("llm/reserving_user", f"{kind}res", (used, 0))), True)
    check("and no more than the limit", used <= LIMIT, True)

    # Those that stay open keep what is held for them: then no third fits.
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(20) as pool:
        slow = [pool.submit(envoy.chat, f"{kind}open", question("ok mock:latency-ms=2000", 15, size=85)) for _ in range(20)]
        statuses = sorted(one.result().status for one in slow)
    check("while they run, exactly 2 of 20 pass", statuses, [200] * 2 + [429] * 18)

    stream = envoy.chat(f"{kind}stream", question("count to 5", 15, stream=True, stream_options={"include_usage": True}))
    events = [json.loads(line[6:]) for line in stream.body.splitlines() if line.startswith("data: {")]
    used = next(event["usage"]["total_tokens"] for event in events if event.get("usage"))
    check("a stream is settled", bool(charged("llm/reserving_user", f"{kind}stream", (used, 0))), True)

    forged = envoy.chat(f"{kind}forge", question("ok", 15), {"x-quorate-reservation": "nonsense"})
    used = forged.json()["usage"]["total_tokens"]
    check("what a client calls a reservation is ignored", bool(charged("llm/reserving_user", f"{kind}forge", (used, 0))), True)
    error = envoy.chat(f"{kind}err", question("mock:status=500", 15))
    check("an upstream's error comes through", error.status, 500)
    check("and gives back what was held", bool(charged("llm/reserving_user", f"{kind}err", (0, 0))), True)


def leased(text):
    return text.replace("reserve: true", "reserve: true\n    enforcement: Lease")


def far_from_its_limit(text):
    return leased(text).replace("requests_per_unit: 250", "requests_per_unit: 100000")


def held_from_leases(http_port):
    envoy, local = setting.envoy("reserving"), 'quorate_gateway_lease_local_total{budget="llm/reserving_user"}'
    user = "leased-many"
    passed = [envoy.chat(user, question("ok", 15)).json()["usage"]["total_tokens"] for _ in range(500)]
    check("most are held from leases", setting.metric(http_port, local) > 250, True)
    check("what they used is charged", bool(charged("llm/reserving_user", user, (sum(passed), 0))), True)
    settled = setting.metric(http_port, "quorate_gateway_rate_limit_settled_total")
    check("each of them once", settled, len(passed))


def away(gateway):
    closed = setting.envoy("counting")
    opened = setting.envoy("counting", lambda text: text.replace("failure_mode_deny: true", "failure_mode_deny: false"))
    gateway.terminate()
    gateway.wait(30)
    check("service away, failure_mode_deny: refused", closed.chat("away", question()).status, 500)
    check("service away, otherwise: passes", opened.chat("away", question()).status, 200)


try:
    setting.apply("rate-limits.yaml")
    gateway, _ = setting.gateway()
    in_one_hour()
    counting()
    in_one_hour()
    reserving()
    away(gateway)
    in_one_hour()
    setting.apply("rate-limits.yaml", far_from_its_limit)
    _, http_port = setting.gateway("  hold_from_leases: true\n")
    held_from_leases(http_port)
    in_one_hour()
    setting.apply("rate-limits.yaml", leased)
    reserving("leased-")
finally:
    setting.stop()
