"""Raw results of a comparison, and the figures that tables and plots take from them: medians of the rounds."""

import json
import statistics
from pathlib import Path


def write(folder, result):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result['comparison']}.json"
    part = path.with_suffix(".part")
    part.write_text(dump(result) + "\n")
    part.rename(path)
    return path


def dump(result):
    """JSON with a row on each line: small, and its changes can be read."""
    head = json.dumps({**result, "rows": []}, indent=1)
    rows = ",\n".join("  " + json.dumps(row) for row in result["rows"])
    return head.replace('"rows": []', f'"rows": [\n{rows}\n ]')


def read(folder, comparison):
    """None if it was not measured."""
    path = Path(folder) / f"{comparison}.json"
    return json.loads(path.read_text()) if path.exists() else None


class Rows:
    """The rows of a result, by system and case."""

    def __init__(self, result):
        self.rows = result["rows"]

    def systems(self):
        return list(dict.fromkeys(row["system"] for row in self.rows))

    def cases(self, system=None, **case):
        """Cases, in their order, that have all of `case`."""
        found = [row["case"] for row in self.rows if system in (None, row["system"]) and fits(row, case)]
        return [one for index, one in enumerate(found) if one not in found[:index]]

    def of(self, system, **case):
        """The one row of the system that fits, or None."""
        found = [row for row in self.rows if row["system"] == system and fits(row, case)]
        return found[0] if found else None

    def most(self, system, figure, **case):
        """The largest median among the cases that fit; None if there is none."""
        values = [self.value(system, figure, **one) for one in self.cases(system, **case)]
        return max((value for value in values if value is not None), default=None)

    def value(self, system, figure, **case):
        """The median of the rounds; None where nothing was measured."""
        row = self.of(system, **case)
        return median(row, figure) if row else None


def fits(row, case):
    return all(row["case"].get(name) == value for name, value in case.items())


def median(row, figure):
    """`figure` with dots: `cpu_micros_per_operation.nodes`."""
    values = [value for one in row["rounds"] if (value := inner(one, figure)) is not None]
    return statistics.median(values) if values else None


def spread(row, figure):
    """The least and the most of the rounds."""
    values = [value for one in row["rounds"] if (value := inner(one, figure)) is not None]
    return (min(values), max(values)) if values else None


def inner(value, path):
    for name in path.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def memory(row):
    """Resident bytes of what is compared: without the provider, which is the same for all. None if not measured."""
    parts = [median(row, f"resident_bytes.{role}") for role in ("nodes", "gateways")]
    known = [part for part in parts if part is not None]
    return sum(known) if known else None


def errors(row):
    return sum(one.get("errors", 0) for one in row["rounds"])


def times(ours, theirs):
    """None where one is missing."""
    return None if ours is None or not theirs else ours / theirs
