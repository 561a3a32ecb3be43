"""Tables of Markdown, and how figures are written in them."""

from dataclasses import dataclass, field

from . import results

RATE_AND_LATENCY = ["a second", "least to most", "p50", "p99", "errors"]


@dataclass
class Section:
    """What a comparison puts into docs/performance.md."""

    # Goals, and whether they are reached.
    verdicts: list
    table: str
    # Name of the file, without `.svg` → its text.
    plots: dict = field(default_factory=dict)


def table(head, rows, left=1):
    """The first `left` columns are words, the others figures. A word that stands above as well is not said again."""
    rule = ["---"] * left + ["--:"] * (len(head) - left)
    lines, above = [head, rule], None
    for row in rows:
        cells = [str(cell) for cell in row]
        lines.append(["" if above == cells[0] else cells[0], *cells[1:]])
        above = cells[0]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def rate_and_latency(row):
    """Cells for RATE_AND_LATENCY."""
    least, most = results.spread(row, "per_second") or (0, 0)
    return [
        count(results.median(row, "per_second")),
        f"{least:,.0f} to {most:,.0f}",
        milliseconds(results.median(row, "p50_micros")),
        milliseconds(results.median(row, "p99_micros")),
        count(results.errors(row)),
    ]


def goal(goal, measured, reached):
    """`reached`: None where something of it was not measured."""
    if reached is None:
        return f"- Goal: {goal}. **Not measured.**"
    return f"- Goal: {goal}. **{'Reached' if reached else 'Not reached'}**: {measured}."


def clients(case):
    number = case["clients"]
    return f"{number:,} client" if number == 1 else f"{number:,} clients"


def count(value):
    return "" if value is None else f"{value:,.0f}"


def milliseconds(micros):
    if micros is None:
        return ""
    value = micros / 1e3
    return f"{value:.2f} ms" if value < 10 else f"{value:,.1f} ms" if value < 100 else f"{value:,.0f} ms"


def micros(value):
    if value is None:
        return ""
    return f"{value:.1f} µs" if value < 100 else f"{value:,.0f} µs"


def mib(value):
    return "" if value is None else f"{value / 2**20:,.0f} MiB"
