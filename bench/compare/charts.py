"""Plots as SVG, written by hand: bars, and lines over a number of clients. They follow the reader's light or dark theme.

Deliberately absent: a plotting library, fonts of our own, anything that moves."""

from xml.sax.saxutils import escape

WIDTH = 760
MARGIN = 16
# One colour a system, in the order in which they appear; of equal lightness, and told apart by the colour-blind too.
LIGHT = ["#2f6fd0", "#d9730d", "#1f8a5b", "#a33ea1", "#6b6f76"]
DARK = ["#6ea8ff", "#ff9d45", "#4fcb95", "#dd86da", "#a5abb5"]
STYLE = """text{font:12px system-ui,-apple-system,"Segoe UI",Helvetica,Arial,sans-serif;fill:#24292f}
.title{font-size:14px;font-weight:600}.quiet{fill:#656d76}.end{text-anchor:end}.middle{text-anchor:middle}
.grid{stroke:#d0d7de;stroke-width:1}.line{fill:none;stroke-width:2.2;stroke-linejoin:round}"""
DARK_STYLE = "text{fill:#e6edf3}.quiet{fill:#9198a1}.grid{stroke:#3d444d}"


def bars(title, unit, values, words=None):
    """Horizontal bars: `(system, label, value)`. Equal systems have equal colours; `words(value)` is written at its end."""
    words = words or (lambda value: f"{value:,.0f}")
    systems = list(dict.fromkeys(system for system, _, _ in values))
    most = max((value for _, _, value in values), default=0) or 1
    left, row, gap, top = 300, 22, 12, 58
    body, y, above = [], top, None
    for system, label, value in values:
        y += gap if above not in (None, system) else 0
        above = system
        length = (WIDTH - left - 110) * value / most
        text = f"{system}, {label}" if label else system
        body += [
            f'<text class="end" x="{left - 10}" y="{y + 14}">{escape(text)}</text>',
            f'<rect class="c{systems.index(system)}" x="{left}" y="{y + 2}" width="{max(length, 1):.1f}" height="{row - 6}" rx="2"/>',
            f'<text x="{left + length + 6:.1f}" y="{y + 14}">{escape(words(value))}</text>',
        ]
        y += row
    return picture(title, unit, y + MARGIN, body, len(systems))


def lines(title, unit, series, x_label="clients", logarithmic=False):
    """`series`: system → [(x, y)]. x is drawn in steps of doubling; with `logarithmic`, y in steps of ten."""
    points = [point for one in series.values() for point in one]
    xs = sorted({x for x, _ in points}) or [1]
    left, right, top, bottom = 78, WIDTH - MARGIN, 58 + 20 * ((len(series) + 2) // 3), 0
    bottom = top + 230
    ticks = decades(points) if logarithmic else steps(max((y for _, y in points), default=1))
    across = scale(xs[0], xs[-1], left + 14, right - 14, True)
    up = scale(ticks[0], ticks[-1], bottom, top, logarithmic)
    body = []
    for tick in ticks:
        body.append(f'<line class="grid" x1="{left}" y1="{up(tick):.1f}" x2="{right}" y2="{up(tick):.1f}"/>')
        body.append(f'<text class="quiet end" x="{left - 8}" y="{up(tick) + 4:.1f}">{number(tick)}</text>')
    for x in xs:
        body.append(f'<text class="quiet middle" x="{across(x):.1f}" y="{bottom + 18}">{x}</text>')
    body.append(f'<text class="quiet middle" x="{(left + right) / 2:.0f}" y="{bottom + 36}">{escape(x_label)}</text>')
    for index, (system, one) in enumerate(series.items()):
        path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in one)
        body.append(f'<polyline class="line s{index}" points="{path}"/>')
        body += [f'<circle class="c{index}" cx="{across(x):.1f}" cy="{up(y):.1f}" r="3.2"/>' for x, y in one]
        legend_x, legend_y = left + 228 * (index % 3), 62 + 20 * (index // 3)
        body.append(f'<rect class="c{index}" x="{legend_x}" y="{legend_y - 9}" width="10" height="10" rx="2"/>')
        body.append(f'<text x="{legend_x + 16}" y="{legend_y}">{escape(system)}</text>')
    return picture(title, unit, bottom + 48, body, len(series))


def picture(title, unit, height, body, colours):
    light = "".join(f".c{i}{{fill:{colour}}}.s{i}{{stroke:{colour}}}" for i, colour in enumerate(LIGHT[:colours]))
    dark = "".join(f".c{i}{{fill:{colour}}}.s{i}{{stroke:{colour}}}" for i, colour in enumerate(DARK[:colours]))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}" role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}{light}@media (prefers-color-scheme:dark){{{DARK_STYLE}{dark}}}</style>",
            f'<text class="title" x="{MARGIN}" y="24">{escape(title)}</text>',
            f'<text class="quiet" x="{MARGIN}" y="42">{escape(unit)}</text>',
            *body,
            "</svg>\n",
        ]
    )


def scale(low, high, start, end, logarithmic):
    """From values to pixels."""
    from math import log

    at = log if logarithmic else float
    width = (at(high) - at(low)) or 1
    return lambda value: start + (end - start) * (at(max(value, low)) - at(low)) / width


def steps(most):
    """Four to six round numbers from 0 to at least `most`."""
    for exponent in range(-6, 15):
        for unit in (1, 2, 2.5, 5):
            step = unit * 10.0**exponent
            if step * 5 >= most:
                return [step * index for index in range(6)]
    return [0, most]


def decades(points):
    """Powers of ten around all values."""
    from math import ceil, floor, log10

    values = [y for _, y in points if y > 0] or [1]
    low, high = floor(log10(min(values))), ceil(log10(max(values)))
    return [10.0**exponent for exponent in range(low, max(high, low + 1) + 1)]


def number(value):
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:g}"


def over_clients(rows, figure, factor=1.0, **case):
    """For `lines`: system → medians over the number of clients."""
    series = {}
    for system in rows.systems():
        cases = [one for one in rows.cases(system, **case) if rows.value(system, figure, **one) is not None]
        series[system] = [(one["clients"], rows.value(system, figure, **one) * factor) for one in cases]
    return {system: points for system, points in series.items() if points}
