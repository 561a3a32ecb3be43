"""Runs processes under callgrind and reads what it wrote: instructions by crate and by function, allocations, copies."""

import re
import shutil
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

# What asks for memory, however the allocator calls it; from outside of the allocator only.
ALLOCATES = re.compile(r"^(mi_(malloc|zalloc|calloc|realloc|heap_\w+?)(_aligned)?|malloc|calloc|realloc|posix_memalign)$")
ALLOCATOR = re.compile(r"^_?mi_|^_?(malloc|free|calloc|realloc)")
CRATE = re.compile(r"/(?:registry/src/[^/]+|git/checkouts)/([A-Za-z0-9_-]+?)-\d[^/]*/|/crates/([a-z-]+)/")


class Callgrind:
    """The tool, and where its files go while this is a context."""

    def __init__(self, keep=None):
        self.keep = keep

    def __enter__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="quorate-callgrind-"))
        return self

    def __exit__(self, *_):
        if self.keep:
            shutil.copytree(self.folder, self.keep, dirs_exist_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def command(self, name):
        return [
            "valgrind", "--tool=callgrind", "--instr-atstart=no", "--cache-sim=no", "--fair-sched=yes",
            f"--callgrind-out-file={self.folder / name}.%p", "--error-limit=no", "--quiet",
        ]

    def control(self, processes, *arguments):
        for process in processes:
            command = ["callgrind_control", *arguments, str(process.pid)]
            subprocess.run(command, check=True, capture_output=True, timeout=120)

    def start(self, processes):
        self.control(processes, "--instr=on")
        self.control(processes, "--zero")

    def stop(self, processes):
        self.control(processes, "--dump")
        self.control(processes, "--instr=off")
        found = Found()
        for process in processes:
            # Numbered: the newest is this one.
            files = self.folder.glob(f"{process.name}.{process.pid}.*")
            found.read(max(files, key=lambda path: int(path.suffix[1:])))
        return found


class Found:
    """Costs, summed over processes."""

    def __init__(self):
        self.by_crate, self.by_function, self.inclusive = Counter(), Counter(), Counter()
        self.allocating = Counter()

    @property
    def instructions(self):
        return sum(self.by_crate.values())

    @property
    def allocations(self):
        return sum(self.allocating.values())

    def copied(self):
        """Bytes moved by the C library, nearly: it moves what is large with `rep movsb`, each byte of which valgrind counts."""
        return sum(cost for name, cost in self.by_function.items() if re.search("memcpy|memmove", name))

    def divided(self, by):
        for counter in (self.by_crate, self.by_function, self.inclusive, self.allocating):
            for name in counter:
                counter[name] /= by
        return self

    def read(self, path):
        """The format is documented in Valgrind's manual ("Callgrind Format Specification")."""
        files, functions = {}, {}

        def named(table, text):
            number, _, name = text.partition(" ")
            if name:
                table[number] = name
            return table.get(number, number)

        file = function = callee = ""
        is_call = False
        for line in open(path, errors="replace"):
            first = line[:1]
            if first.isdigit() or first in "+-*":
                cost = int(line.rsplit(" ", 1)[1])
                self.inclusive[function] += cost
                if is_call:
                    is_call = False
                else:
                    self.by_crate[crate(file)] += cost
                    self.by_function[function] += cost
            elif line.startswith(("fl=", "fi=", "fe=")):
                file = named(files, line[3:].rstrip())
            elif line.startswith("fn="):
                function = named(functions, line[3:].rstrip())
            elif line.startswith("cfn="):
                callee = named(functions, line[4:].rstrip())
            elif line.startswith(("cfi=", "cfl=")):
                named(files, line[4:].rstrip())
            elif line.startswith("calls="):
                is_call = True
                if ALLOCATES.match(callee) and not ALLOCATOR.match(function):
                    self.allocating[function] += int(line[6:].split()[0])

    def show(self, count, top, brief=False):
        if not brief:
            print(f"  {self.instructions / count:10.0f} instructions and {self.allocations / count:.1f} allocations an operation")
        self.table("instructions by crate (inlined code counts where it was written)", self.by_crate, count, top)
        if brief:
            return
        self.table("instructions by function", self.by_function, count, top)
        ours = Counter({name: cost for name, cost in self.inclusive.items() if "quorate" in name})
        self.table("with all that they call, functions of quorate", ours, count, top)
        self.table("allocations by who asked", self.allocating, count, top)

    def table(self, title, costs, count, top):
        print(f"  {title}:")
        for name, cost in costs.most_common(top):
            figure = cost / count
            print(f"    {figure:12.1f}  {name[:120]}" if figure < 1000 else f"    {figure:12.0f}  {name[:120]}")


def crate(path):
    found = CRATE.search(path)
    if found:
        return found[1] or "quorate-" + found[2]
    if "/rustc/" in path or "/library/" in path:
        return "std: " + ("hash maps" if "hashbrown" in path else "core, alloc, std")
    if "mimalloc" in path:
        return "mimalloc"
    return "C library, allocator and unknown"
