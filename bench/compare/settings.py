"""How `bench/run` was called, and what it found or installed for it."""

import argparse
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .machine import ROOT

COMPARISONS = ("limitador", "redis", "gateway", "envoy", "litellm")
TARGET = ROOT / "target" / "bench"


class Missing(Exception):
    """Something that a comparison needs is not here; the message says how to get it."""


@dataclass
class Settings:
    quorate: Path
    # By us, from the work tree.
    built: bool
    # The binary that makes the load.
    load: Path
    limitador: Path | None
    # Of each measurement; a second of warm-up comes before it.
    seconds: int
    rounds: int
    quick: bool
    # Data of everything that is measured, on one file system. Removed afterwards.
    work: Path
    results: Path

    def either(self, usual, quick):
        return quick if self.quick else usual


def parse(arguments, description):
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparisons", nargs="*", metavar="COMPARISON", help="limitador, redis, gateway, envoy, litellm; none: all")
    parser.add_argument("--quick", action="store_true", help="one short round of fewer cases: to see that it works, not to publish")
    parser.add_argument("--rounds", type=int, help="of every measurement; the median counts [3; quick: 1]")
    parser.add_argument("--seconds", type=int, help="of a measurement, after a second of warm-up [3; quick: 2]")
    parser.add_argument("--quorate", type=Path, help="this binary, instead of building a release [target/release/quorate]")
    parser.add_argument("--load", type=Path, help="this binary of quorate makes the load [the same]")
    parser.add_argument("--limitador", type=Path, default=os.environ.get("LIMITADOR"), help="limitador-server, which cannot be had from crates.io; or LIMITADOR in the environment")
    parser.add_argument("--cpus", help="use only these, all together, as taskset names them: 0,1")
    parser.add_argument("--results", type=Path, default=TARGET / "results", help="folder for the raw results [target/bench/results]")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.comparisons if name not in COMPARISONS]
    if unknown:
        parser.error(f"{', '.join(unknown)}: no comparison; there are {', '.join(COMPARISONS)}")
    if options.cpus:
        # Inherited by everything that is started: the same for Quorate, its peers, the provider and the load.
        os.sched_setaffinity(0, {int(number) for number in options.cpus.split(",")})
    binary = (options.quorate or build()).resolve()
    settings = Settings(
        quorate=binary,
        load=(options.load or binary).resolve(),
        built=options.quorate is None,
        limitador=options.limitador and Path(options.limitador).resolve(),
        seconds=options.seconds or (2 if options.quick else 3),
        rounds=options.rounds or (1 if options.quick else 3),
        quick=options.quick,
        work=TARGET / f"work-{os.getpid()}",
        results=options.results,
    )
    return settings, options.comparisons or list(COMPARISONS)


def build():
    """A release of what is in the work tree."""
    print("building target/release/quorate", file=sys.stderr)
    subprocess.run(["cargo", "build", "--quiet", "--release", "-p", "quorate"], cwd=ROOT, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return target / "release" / "quorate"


def debian(command, package):
    """The path of a command, from Debian's package if it is not here yet."""
    found = shutil.which(command)
    if not found and os.geteuid() == 0 and shutil.which("apt-get"):
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", package]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        if subprocess.run(install, **quiet).returncode != 0:
            subprocess.run(["apt-get", "update", "-qq"], **quiet)
            subprocess.run(install, **quiet)
        found = shutil.which(command)
    if not found:
        raise Missing(f"{command} is not here; install Debian's package {package}")
    return Path(found)


def venv(name, requirements):
    """A virtual environment under target/bench with these packages of PyPI; its `bin`."""
    folder = TARGET / f"venv-{name}"
    wanted, stamp = "\n".join(requirements), folder / "installed"
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"installing {', '.join(requirements)} from PyPI", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        if subprocess.run([*pip, *requirements]).returncode != 0:
            raise Missing(f"{', '.join(requirements)} cannot be installed from PyPI")
        stamp.write_text(wanted)
    return folder / "bin"
