"""A cluster to profile: three nodes, a gateway and the simulated provider, each of them under a tool if wanted."""

import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
READY_WITHIN_S = 120
# What `quorate bench` charges.
POLICY = """apiVersion: quorate.dev/v1alpha1
kind: Budget
metadata: {name: bench}
spec:
  limit: {tokens: 900000000000}
  window: Year
  enforcement: ENFORCEMENT
"""


def chat(messages):
    """A request body that both dialects understand."""
    return json.dumps({"model": "gpt-4o", "max_tokens": 16, "messages": messages}).encode()


class Process:
    """A process of the cluster, found by its pid: valgrind keeps it, strace attaches to it."""

    def __init__(self, name, command, http, folder):
        self.name, self.http = name, http
        self.child = subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=open(folder / f"{name}.log", "wb"), cwd=folder,
        )
        self.pid = self.child.pid

    def threads(self, file):
        """The text of this file of each thread; one that ends meanwhile has none."""
        for thread in Path(f"/proc/{self.pid}/task").iterdir():
            try:
                yield (thread / file).read_text()
            except (FileNotFoundError, ProcessLookupError):
                pass

    def usage(self):
        """Seconds in user space and in the kernel, and how often it gave up the processor to wait."""
        user, system = (Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()[at] for at in (11, 12))
        waits = sum(int(re.search(r"\nvoluntary_ctxt_switches:\s+(\d+)", text)[1]) for text in self.threads("status"))
        return int(user) / TICKS, int(system) / TICKS, waits

    def cpu_ms(self):
        """On a processor, in user space and the kernel, by the scheduler's clock: of the threads that are alive."""
        return sum(int(text.split()[0]) for text in self.threads("schedstat")) / 1e6

    def metric(self, name):
        text = urllib.request.urlopen(f"http://{self.http}/metrics", timeout=60).read().decode()
        values = re.findall(rf"^{name}(?:\{{.*\}})? ([0-9.e+]+)$", text, re.M)
        return int(sum(float(value) for value in values))

    def is_ready(self):
        try:
            return urllib.request.urlopen(f"http://{self.http}/readyz", timeout=5).status == 200
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def stop(self):
        # Its end is the word to stop.
        self.child.stdin.close()
        try:
            self.child.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


class Cluster:
    """Runs while it is a context. `under`: the command that a process of this name is started with. `lease`: the gateway
    spends from slices. `policy`: manifests beside the one of the budget `bench`."""

    def __init__(self, binary, under=None, lease=False, policy=""):
        self.binary, self.under = binary.resolve(), under or {}
        self.policy = POLICY.replace("ENFORCEMENT", "Lease" if lease else "Reserve") + policy
        self.folder = Path(tempfile.mkdtemp(prefix="quorate-profile-"))
        self.started = []

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in reversed(self.started):
            process.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self):
        ports = free_ports(9)
        address = [f"127.0.0.1:{port}" for port in ports]
        self.node_addresses, gateway, provider = address[:3], address[6], address[8]
        self.gateway_url = f"http://{gateway}/v1"
        self.ports = {port: f"node-{at + 1}" for at, port in enumerate(ports[:3])}
        self.ports |= {ports[6]: "gateway", ports[8]: "provider"}
        self.provider = self.spawn("provider", ["mock-provider", "--listen", provider], None)
        peers = "".join(f"  - {{id: {at + 1}, address: '{node}'}}\n" for at, node in enumerate(self.node_addresses))
        # Under a tool a node is many times slower: nobody is to be taken for dead.
        timers = "raft: {heartbeat_ms: 1000, election_min_ms: 8000, election_max_ms: 12000}\n" if self.under else ""
        self.nodes = []
        for at, node in enumerate(self.node_addresses):
            name = f"node-{at + 1}"
            config = (
                f"cluster: profile\nid: {at + 1}\nlisten: '{node}'\nhttp_listen: '{address[3 + at]}'\n"
                f"data_dir: '{self.folder / name}'\n{timers}peers:\n{peers}"
            )
            self.nodes.append(self.spawn_with(name, "node", config, address[3 + at]))
        nodes = ", ".join(f"'{node}'" for node in self.node_addresses)
        config = (
            f"name: profile\nlisten: '{gateway}'\nhttp_listen: '{address[7]}'\nnodes: [{nodes}]\n"
            f"backends: [{{name: mock, provider: OpenAI, base_url: 'http://{provider}/v1', models: [gpt-4o]}}]\n"
        )
        self.gateway = self.spawn_with("gateway", "gateway", config, address[7])
        self.apply()

    def spawn_with(self, name, command, config, http):
        path = self.folder / f"{name}.yaml"
        path.write_text(config)
        return self.spawn(name, [command, "--config", path], http)

    def spawn(self, name, arguments, http):
        command = [*self.under.get(name, []), self.binary, "--log", "error", *arguments, "--stop-at-eof"]
        process = Process(name, command, http, self.folder)
        self.started.append(process)
        return process

    def apply(self):
        policy = self.folder / "policy.yaml"
        policy.write_text(self.policy)
        command = [self.binary, "apply", "--nodes", self.node_addresses[0], "-f", policy]
        until = time.monotonic() + READY_WITHIN_S
        while True:
            for process in self.started:
                if process.child.poll() is not None:
                    raise SystemExit(f"{process.name} ended: {(self.folder / (process.name + '.log')).read_text()}")
            applied = subprocess.run(command, capture_output=True, text=True, timeout=60)
            if applied.returncode == 0 and self.gateway.is_ready():
                return
            if time.monotonic() > until:
                raise SystemExit(f"the cluster is not ready: {applied.stderr}")
            time.sleep(0.2)

    def everyone(self):
        return [*self.nodes, self.gateway, self.provider]

    def flushes(self):
        return sum(node.metric("quorate_node_log_flushes_total") for node in self.nodes)

    def post(self, path, body, tenant):
        """One request, on a connection of its own; the answer must be a success."""
        host = self.gateway_url.split("/")[2]
        connection = http.client.HTTPConnection(host, timeout=120)
        connection.request("POST", "/v1" + path, body, {"content-type": "application/json", "x-tenant-id": tenant})
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        if answer.status != 200:
            raise SystemExit(f"{path}: {answer.status} {text[:300]}")

    def wire(self):
        """Bytes by who accepted the connection and who made it, in both directions, since the connections were made."""
        text = subprocess.run(["ss", "-tinpH"], capture_output=True, text=True, check=True).stdout
        names = {process.pid: process.name for process in self.started}
        found = {}
        for head, info in re.findall(r"^(ESTAB.*)\n\s+(.*)$", text, re.M):
            port = int(head.split()[3].rsplit(":", 1)[1])
            if port not in self.ports:
                continue
            peer = head.split()[4]
            other = re.search(rf"^ESTAB\s+\d+\s+\d+\s+{re.escape(peer)}\s.*pid=(\d+)", text, re.M)
            client = names.get(int(other[1]), "clients") if other else "clients"
            key = (client if not client.startswith("node") else "node") + " → " + self.ports[port].split("-")[0]
            size = lambda what: int((re.search(rf"{what}:(\d+)", info) or [0, 0])[1])
            out, back = found.get(key, (0, 0))
            found[key] = out + size("bytes_received"), back + size("bytes_sent")
        return found


def free_ports(count):
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports
