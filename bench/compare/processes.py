"""Processes that end with the comparison, what they cost, and ports that are free. Not: what runs in them."""

import http.client
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

STOP_WITHIN_S = 5


class NotReady(Exception):
    """A process ended early or does not answer; the message has the end of what it said."""


class Process:
    def __init__(self, name, popen, log):
        self.name, self.popen, self.log = name, popen, log

    def pids(self):
        """Its own, and those of all it started."""
        return descendants(self.popen.pid)

    def said(self, lines=15):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class Processes:
    """Starts processes, and ends all of them when this is left."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.running = []

    def __enter__(self):
        self.folder.mkdir(parents=True)
        return self

    def __exit__(self, *_):
        for process in reversed(self.running):
            tell_to_stop(process)
        deadline = time.monotonic() + STOP_WITHIN_S
        for process in self.running:
            end(process, deadline)
        self.running.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, name, argv, environment=None, stops_at_eof=False):
        """`stops_at_eof`: the end of its standard input tells it to stop."""
        argv = [str(word) for word in argv]
        if not stops_at_eof and shutil.which("setpriv"):
            # So that it does not outlive us, however we end.
            argv = ["setpriv", "--pdeathsig", "KILL", *argv]
        log = self.folder / f"{name}.log"
        with log.open("ab") as out:
            popen = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE if stops_at_eof else subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env={"PATH": os.environ["PATH"], "HOME": str(self.folder), **(environment or {})},
                start_new_session=True,
            )
        process = Process(name, popen, log)
        self.running.append(process)
        return process

    def wait_until(self, process, ready, within_s=60):
        """Until `ready()` is true. Raises NotReady."""
        deadline = time.monotonic() + within_s
        while not ready():
            if process.popen.poll() is not None:
                raise NotReady(f"{process.name} ended early ({process.popen.returncode}):\n{process.said()}")
            if time.monotonic() > deadline:
                raise NotReady(f"{process.name} was not ready within {within_s} s:\n{process.said()}")
            time.sleep(0.05)


def tell_to_stop(process):
    if process.popen.stdin:
        process.popen.stdin.close()
    elif process.popen.poll() is None:
        process.popen.terminate()


def end(process, deadline):
    """Waits until the deadline, then kills it and what it left in its session."""
    try:
        process.popen.wait(max(0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        pass
    try:
        os.killpg(process.popen.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.popen.wait()


def free_ports(count):
    """Bound together, so that they differ, and let go again."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for bound in sockets:
            bound.bind(("127.0.0.1", 0))
        return [bound.getsockname()[1] for bound in sockets]
    finally:
        for bound in sockets:
            bound.close()


def accepts(port):
    try:
        socket.create_connection(("127.0.0.1", port), 0.2).close()
        return True
    except OSError:
        return False


def answers(port, path):
    """Whether `GET path` is a 2xx."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", path)
        return 200 <= connection.getresponse().status < 300
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def descendants(pid):
    """`pid` and everything below it, as /proc tells it."""
    children = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            parent = parent_of(entry)
            children.setdefault(parent, []).append(int(entry.name))
    found, left = [], [pid]
    while left:
        one = left.pop()
        found.append(one)
        left.extend(children.get(one, []))
    return found


def parent_of(entry):
    try:
        return parent_in((entry / "stat").read_text())
    except OSError:
        return None


def parent_in(stat):
    """The fourth field of proc(5)'s stat; the second, the name, may hold blanks and parentheses."""
    return int(stat.rpartition(")")[2].split()[1])


def resident_bytes(pids):
    return sum(resident_in(status) for status in map(read_status, pids))


def read_status(pid):
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return ""


def resident_in(status):
    for line in status.splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0
