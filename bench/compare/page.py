"""What stands in docs/performance.md for one comparison, and where."""

import re


class NoPlace(Exception):
    """The page has no markers for a comparison."""


def replace(text, name, block):
    """The page with `block` between the markers of `name`."""
    place = re.compile(rf"(<!-- bench: {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not place.search(text):
        raise NoPlace(f"the page has no place for it: write <!-- bench: {name} --> and <!-- end --> where it belongs")
    return place.sub(lambda found: f"{found[1]}{block}\n{found[2]}", text, count=1)


def block(result, section):
    plots = "\n".join(f"![{words(name)}](performance/{name}.svg)" for name in section.plots)
    left_out = [f"- Not measured: {system}: {reason.splitlines()[0]}" for system, reason in result["failed"].items()]
    systems = [f"- **{system}**: {note}." for system, note in result["systems"].items() if note]
    parts = ["\n".join([*section.verdicts, *left_out]), plots, section.table, "\n".join(systems), made_on(result)]
    return "\n\n".join(part for part in parts if part)


def words(name):
    return name.replace("-", ", ", 1)


def made_on(result):
    """Machine, versions and settings in a line."""
    machine, settings = result["machine"], result["settings"]
    used, cpus = len(machine["cpus_used"]), machine["cpus"]
    rounds = "one round" if settings["rounds"] == 1 else f"medians of {settings['rounds']} rounds"
    text = (
        f"{machine['started']}: {used if used == cpus else f'{used} of {cpus}'} CPUs, {machine['cpu']}, "
        f"{machine['memory_bytes'] / 2**30:.0f} GiB, {machine['file_system']}, Linux {machine['kernel']}, load average "
        f"{machine['load_average_before']} before; {rounds}, {settings['seconds']} s each after a second of warm-up. "
        + "; ".join(f"{name} {version}" for name, version in result["versions"].items())
        + f". Raw results: [{result['comparison']}.json](performance/{result['comparison']}.json)."
    )
    if settings["quick"]:
        text += " **A quick run: it shows that the comparison works, not how fast anything is.**"
    return text
