"""Quorate's own processes: three nodes, a gateway if wanted, and the simulated provider. Not: what is measured."""

import json
import subprocess
import time
from contextlib import contextmanager

from .processes import NotReady, Processes, accepts, answers, free_ports

NODES = 3
APPLY_WITHIN_S = 30

# One account for each user, too large to be exhausted.
BUDGET = """apiVersion: quorate.dev/v1alpha1
kind: Identity
spec:
  tenant: {{header: x-tenant-id, default: default}}
---
apiVersion: quorate.dev/v1alpha1
kind: Budget
metadata: {{name: bench}}
spec:
  {subject}
  limit: {{tokens: {tokens}}}
  window: Day
  enforcement: {enforcement}
"""
PLENTY = 900_000_000_000


def budget(enforcement="Reserve", tokens=PLENTY, by_user=True):
    subject = "subject: [{header: x-user-id}]" if by_user else ""
    return BUDGET.format(subject=subject, tokens=tokens, enforcement=enforcement)


class Cluster:
    """Where everything listens, and the processes by role."""

    def __init__(self, settings, processes):
        self.settings, self.processes = settings, processes
        self.nodes, self.node_processes, self.gateway_processes = [], [], []
        self.gateway = None
        # The gateway's rate limit service, `host:port`.
        self.rls = None

    def watch(self):
        return {"nodes": self.node_processes, "gateways": self.gateway_processes}

    def start_nodes(self):
        ports = free_ports(2 * NODES)
        self.nodes = [f"127.0.0.1:{port}" for port in ports[:NODES]]
        peers = "".join(f"  - {{id: {id}, address: '{node}'}}\n" for id, node in enumerate(self.nodes, 1))
        for id, (node, http) in enumerate(zip(self.nodes, ports[NODES:]), 1):
            config = (
                f"cluster: bench\nid: {id}\nlisten: '{node}'\nhttp_listen: '127.0.0.1:{http}'\n"
                f"data_dir: '{self.processes.folder}/data-{id}'\npeers:\n{peers}"
            )
            self.node_processes.append(self.start("node", f"node-{id}", config))
        for process, http in zip(self.node_processes, ports[NODES:]):
            self.processes.wait_until(process, lambda: answers(http, "/readyz"))

    def start_gateway(self, provider_port, more="", rate_limit=None):
        """`more`: lines of its config; `rate_limit`: settings of its rate limit service, which is not there without."""
        listen, http, rls = free_ports(3)
        nodes = ", ".join(f"'{node}'" for node in self.nodes)
        config = (
            f"name: bench\nlisten: '127.0.0.1:{listen}'\nhttp_listen: '127.0.0.1:{http}'\nnodes: [{nodes}]\n"
            f"backends: [{{name: mock, provider: OpenAI, base_url: 'http://127.0.0.1:{provider_port}/v1'}}]\n{more}\n"
        )
        if rate_limit is not None:
            # Without headers for the client, as Limitador answers by default.
            keys = {"listen": f"127.0.0.1:{rls}", "response_headers": False, **rate_limit}
            config += f"rate_limit: {json.dumps(keys)}\n"
        process = self.start("gateway", "gateway", config)
        self.gateway_processes.append(process)
        self.processes.wait_until(process, lambda: answers(http, "/readyz"))
        self.gateway, self.rls = f"http://127.0.0.1:{listen}/v1", f"127.0.0.1:{rls}"

    def apply(self, *documents):
        """Policies, as soon as there is a leader to take them."""
        path = self.processes.folder / "policy.yaml"
        path.write_text("---\n".join(documents))
        command = [self.settings.quorate, "apply", "-f", path, "--nodes", ",".join(self.nodes)]
        deadline = time.monotonic() + APPLY_WITHIN_S
        while True:
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode == 0:
                return
            if time.monotonic() > deadline:
                raise NotReady(f"the policy cannot be applied: {done.stderr}")
            time.sleep(0.2)

    def start(self, command, name, config):
        path = self.processes.folder / f"{name}.yaml"
        path.write_text(config)
        argv = [self.settings.quorate, "--log", "error", command, "--config", path, "--stop-at-eof"]
        return self.processes.start(name, argv, stops_at_eof=True)


def start_provider(settings, processes):
    """The simulated provider; returns its process and port."""
    (port,) = free_ports(1)
    argv = [settings.quorate, "--log", "error", "mock-provider", "--listen", f"127.0.0.1:{port}", "--stop-at-eof"]
    process = processes.start("provider", argv, stops_at_eof=True)
    processes.wait_until(process, lambda: accepts(port))
    return process, port


@contextmanager
def cluster(settings, *documents):
    """Three nodes with these policies."""
    with Processes(settings.work / "cluster") as processes:
        one = Cluster(settings, processes)
        one.start_nodes()
        one.apply(*documents)
        yield one
