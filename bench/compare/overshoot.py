"""What gets through when a budget is short: parallel requests of one user, and what the provider served of them."""

import http.client
import json
import threading
import urllib.request
from urllib.parse import urlsplit

CASE = {"parallel": 20, "tokens": 100, "allowed": 250}
# 100 tokens, as the simulated provider counts them; slow enough that all are under way together.
TEXT = "mock:latency-ms=50 mock:input-tokens=30 mock:tokens=70"
MAX_TOKENS = 70
BODY = json.dumps(
    {"model": "gpt-4o", "max_tokens": MAX_TOKENS, "messages": [{"role": "user", "content": TEXT}]}, separators=(",", ":")
)
# For who does not count tokens: at most one in a byte.
WORST_CASE = len(BODY) + MAX_TOKENS
TIMEOUT_S = 20


def measure(url, provider_port):
    statuses, lock, gate = [], threading.Lock(), threading.Barrier(CASE["parallel"])

    def ask():
        status = post(url, gate)
        with lock:
            statuses.append(status)

    before = served(provider_port)
    threads = [threading.Thread(target=ask) for _ in range(CASE["parallel"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = served(provider_port)
    admitted = statuses.count(200)
    return {
        "admitted": admitted,
        "refused": statuses.count(429),
        "errors": len(statuses) - admitted - statuses.count(429),
        "tokens": after["total_tokens"] - before["total_tokens"],
    }


def post(url, gate):
    """The status of the answer; 0 for none. All are sent at the same time."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=TIMEOUT_S)
    headers = {"content-type": "application/json", "x-user-id": "alice"}
    try:
        connection.connect()
        gate.wait(TIMEOUT_S)
        connection.request("POST", f"{place.path}/chat/completions", BODY, headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except (OSError, http.client.HTTPException, threading.BrokenBarrierError):
        return 0
    finally:
        connection.close()


def served(provider_port):
    with urllib.request.urlopen(f"http://127.0.0.1:{provider_port}/mock/served", timeout=TIMEOUT_S) as answer:
        return json.load(answer)
