"""What was measured on: machine, versions, commit. Everything that a reader needs to do it again."""

import os
import platform
import subprocess
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def describe():
    return {
        "cpu": cpu_model(Path("/proc/cpuinfo").read_text()),
        "cpus_used": cpus_used(),
        "cpus": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "file_system": file_system(ROOT),
        "load_average_before": round(os.getloadavg()[0], 2),
        "started": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    }


def cpus_used():
    return sorted(os.sched_getaffinity(0))


def cpu_model(cpuinfo):
    for line in cpuinfo.splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown"


def file_system(folder):
    """Where the data is, as `findmnt` names it."""
    return first_line(["findmnt", "--noheadings", "--output", "FSTYPE", "--target", folder])


def quorate_version(settings):
    return first_line([settings.quorate, "--version"]).removeprefix("quorate ")


def commit():
    """Of the work tree, which the binary was built from if it was built last; a `+` says that it was changed."""
    short = first_line(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"])
    status = ["git", "-C", ROOT, "status", "--porcelain", "--", "crates", "proto", "Cargo.lock"]
    return short + ("+" if first_line(status) else "")


def first_line(command):
    """That says something."""
    try:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = [line.strip() for line in (done.stdout or done.stderr).splitlines()]
    return next((line for line in lines if line), "")
