"""One measurement: `quorate bench` as the load, whoever is loaded, and what the loaded processes cost meanwhile."""

import json
import subprocess
import threading

from .processes import resident_bytes

SAMPLE_EVERY_S = 0.25
# What `quorate bench` knows to watch.
ROLES = ("nodes", "gateways", "provider")


class Failed(Exception):
    """A measurement that came to nothing; the message says what was run and what it said."""


def measure(settings, arguments, watch):
    """`arguments` of `quorate bench`; `watch`: processes by role. The row of its report, with the most memory they had."""
    pids = {role: [pid for process in processes for pid in process.pids()] for role, processes in watch.items()}
    command = [settings.load, "bench", *arguments, "--duration", settings.seconds, "--output", "json"]
    for role in ROLES:
        if pids.get(role):
            command += ["--watch", f"{role}=" + ",".join(map(str, pids[role]))]
    command = [str(word) for word in command]
    with Memory(pids) as memory:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=settings.seconds + 60)
        except subprocess.TimeoutExpired as error:
            raise Failed(f"{' '.join(command)} did not end") from error
    if done.returncode != 0:
        raise Failed(f"{' '.join(command)}: {done.stderr.strip()}")
    row = row_of(done.stdout)
    if row["operations"] == 0:
        raise Failed(f"{' '.join(command)}: nothing was answered within {settings.seconds} s")
    row["resident_bytes"] = memory.most
    return row


def row_of(output):
    """The one row of a report of `quorate bench`."""
    (row,) = json.loads(output)["rows"]
    return row


class Memory:
    """The most resident memory of each role while this is entered."""

    def __init__(self, pids):
        self.pids, self.most, self.over = pids, {}, threading.Event()
        self.thread = threading.Thread(target=self.sample, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def sample(self):
        while True:
            for role, pids in self.pids.items():
                self.most[role] = max(self.most.get(role, 0), resident_bytes(pids))
            if self.over.wait(SAMPLE_EVERY_S):
                return
