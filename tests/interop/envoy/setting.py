"""Processes around an Envoy: the files of deploy/envoy with the ports of this run, started and ended."""

import http.client
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import resources

DEPLOY = pathlib.Path(__file__).resolve().parents[3] / "deploy" / "envoy"
ENVOY = str(resources.files("envoy") / "_bin" / "envoy")
WITHIN = 30
HOUR, LOOKED_AT = 3600, 180


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def in_one_hour():
    """The limits of deploy/envoy are of an hour: none is to end while it is looked at."""
    left = HOUR - time.time() % HOUR
    if left < LOOKED_AT:
        time.sleep(left)


def until(what, holds, found=lambda: ""):
    end = time.monotonic() + WITHIN
    while time.monotonic() < end:
        held = holds()
        if held:
            return held
        time.sleep(0.05)
    sys.exit(f"never: {what}; {found()}")


def get(port, path):
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except OSError:
        return None, ""


class Setting:
    """A gateway that is only the rate limit service, and Envoys that ask it."""

    def __init__(self, quorate, work):
        self.quorate, self.work = quorate, pathlib.Path(work)
        self.nodes, self.provider = os.environ["NODES"], os.environ["PROVIDER"]
        self.running = []
        self.limits_port = free_port()

    def start(self, name, command):
        log = open(self.work / f"{name}.log", "w")
        process = subprocess.Popen(command, stdout=log, stderr=log)
        self.running.append((name, process))
        return process

    def cli(self, *arguments):
        command = [self.quorate, *arguments, "--nodes", self.nodes]
        done = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN)
        if done.returncode:
            sys.exit(f"{' '.join(command)}: {done.stderr}")
        return done.stdout

    def apply(self, name, change=lambda text: text):
        path = self.work / name
        path.write_text(change((DEPLOY / name).read_text()))
        self.cli("apply", "-f", str(path))

    def gateway(self, more=""):
        http_port = free_port()
        text = (DEPLOY / "gateway.yaml").read_text()
        nodes = ", ".join(f'"{node}"' for node in self.nodes.split(","))
        text = re.sub(r"nodes: .*", f"nodes: [{nodes}]", text)
        text = text.replace("127.0.0.1:9091", f"127.0.0.1:{http_port}")
        text = text.replace("127.0.0.1:8091", f"127.0.0.1:{self.limits_port}") + more
        path = self.work / "gateway.yaml"
        path.write_text(text)
        process = self.start(f"gateway-{http_port}", [self.quorate, "gateway", "--config", str(path)])
        until("the gateway is ready", lambda: get(http_port, "/readyz")[0] == 200)
        return process, http_port

    def envoy(self, name, change=lambda text: text):
        port, admin = free_port(), free_port()
        text = change((DEPLOY / f"{name}.yaml").read_text())
        for usual, own in [(10000, port), (9901, admin), (8091, self.limits_port), (8090, self.provider.rsplit(":", 1)[1])]:
            text = text.replace(f"port_value: {usual}", f"port_value: {own}")
        path = self.work / f"{name}-{port}.yaml"
        path.write_text(text)
        command = [ENVOY, "-c", str(path), "--use-dynamic-base-id", "--concurrency", "2", "-l", "warning"]
        self.start(f"envoy-{name}-{port}", command)
        until("Envoy is ready", lambda: get(admin, "/ready")[0] == 200)
        return Envoy(port, admin)

    def metric(self, http_port, series):
        lines = get(http_port, "/metrics")[1].splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(series)), 0)

    def account(self, budget, subject):
        """(spent, reserved) in hits."""
        for one in json.loads(self.cli("get", "accounts", "-o", "json"))["accounts"]:
            if one["budget"] == budget and one["subject"] == subject:
                return tuple(int(one.get(f"{field}_micros", 0)) // 1_000_000 for field in ("spent", "reserved"))
        return 0, 0

    def stop(self):
        for _, process in reversed(self.running):
            process.terminate()
        for _, process in self.running:
            try:
                process.wait(WITHIN)
            except subprocess.TimeoutExpired:
                process.kill()

    def show_logs(self):
        for name, _ in self.running:
            print(f"--- {name}", (self.work / f"{name}.log").read_text()[-3000:], sep="\n")


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)


class Envoy:
    def __init__(self, port, admin):
        self.port, self.admin = port, admin

    def chat(self, user, body, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WITHIN)
        sent = {"content-type": "application/json", "x-user-id": user, **(headers or {})}
        connection.request("POST", "/v1/chat/completions", body, sent)
        answer = connection.getresponse()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read().decode())

    def parallel(self, times, *arguments):
        with ThreadPoolExecutor(times) as pool:
            return list(pool.map(lambda _: self.chat(*arguments), range(times)))


def question(text="count to 5", tokens=5, size=None, **more):
    """A chat request, of exactly `size` bytes where that is said."""
    body = json.dumps({"model": "m", "max_tokens": tokens, "messages": [{"role": "user", "content": text}], **more})
    return body if size is None else body + " " * (size - len(body))
