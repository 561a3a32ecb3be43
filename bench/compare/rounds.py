"""Who is measured when: all systems in each round, in turns from the front and from the back, so that a machine that gets
slower or faster favours nobody; each started anew, alone on the machine."""

from dataclasses import dataclass, field
from typing import Callable

from .load import Failed
from .processes import NotReady
from .settings import Missing


@dataclass
class System:
    """`start()` is a context that gives `measure(case)`, which gives a row."""

    name: str
    start: Callable
    cases: list
    # Told in the results.
    note: str = ""


@dataclass
class Measured:
    system: str
    case: dict
    rounds: list = field(default_factory=list)

    def as_json(self):
        return {"system": self.system, "case": self.case, "rounds": self.rounds}


def alternate(systems, rounds, progress):
    """Rows, one for each system and case, with what each round gave; and what could not be measured, with the reason. A
    system that failed once is out: medians of fewer rounds would not be comparable."""
    rows, failed = {}, {}
    for system in systems:
        for case in system.cases:
            rows[key(system, case)] = Measured(system.name, case)
    for number in range(rounds):
        for system in systems if number % 2 == 0 else reversed(systems):
            if system.name in failed:
                continue
            progress(f"round {number + 1} of {rounds}: {system.name}")
            try:
                with system.start() as measure:
                    for case in system.cases:
                        row = measure(case)
                        progress(f"  {words(case)}: {summary(row)}")
                        rows[key(system, case)].rounds.append(row)
            except (NotReady, Failed, Missing) as error:
                failed[system.name] = str(error)
                progress(f"{system.name} is left out: {error}")
    return [row.as_json() for row in rows.values() if row.system not in failed], failed


def key(system, case):
    return (system.name, tuple(sorted(case.items())))


def words(case):
    return ", ".join(f"{name} {value}" for name, value in case.items())


def summary(row):
    if "per_second" not in row:
        return words(row)
    text = f"{row['per_second']:,.0f}/s, p50 {row['p50_micros'] / 1e3:.2f} ms, p99 {row['p99_micros'] / 1e3:.2f} ms"
    if row["errors"]:
        text += f"; {row['errors']} errors, the first: {row['first_error']}"
    return text
