"""What the terminal gets: aligned tables, YAML, JSON, diffs; nothing that a terminal would obey."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click
import yaml

from controller.errors import FleetError, InvalidInput

NOTHING = "-"
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # five times as fast where PyYAML was built with it

_COLOURS: Mapping[str, str] = {
    "up": "green", "active": "green", "created": "green",
    "down": "red", "quarantined": "red", "deleted": "red",
    "openflow-up": "green", "ovsdb-up": "green", "libvirt-up": "green",
    "openflow-down": "red", "ovsdb-down": "red", "libvirt-down": "red", "turned-away": "red", "error": "red",
    "drift": "yellow", "warning": "yellow", "pending": "yellow", "absent": "yellow", "changed": "yellow",
}  # fmt: skip


def text_of(value: Any) -> str:
    """A value in one line of a table; ``-`` for nothing."""
    if value is None or value == "" or value == [] or value == {}:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ",".join(f"{clean(key)}={text_of(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ",".join(map(text_of, value))
    return clean(value)


def clean(value: object) -> str:
    """Without characters that a terminal obeys: names of guests and reasons of hosts come from anybody."""
    text = str(value)
    return text if text.isprintable() else "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], indent: str = "") -> None:
    """Columns wide enough for what they hold, two blanks between; states in colour on a terminal."""
    cells = [list(columns), *([text_of(value) for value in row] for row in rows)]
    widths = [max(len(row[number]) for row in cells) for number in range(len(columns))]
    for line, row in enumerate(cells):
        padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        padded[-1] = row[-1]
        if line:
            padded = [coloured(cell) for cell in padded]
        click.echo(indent + ("  ".join(padded).rstrip() if not line else "  ".join(padded)))


def print_value(value: Any, form: str) -> None:
    """JSON, or YAML: a list of documents is a stream of them, which ``apply`` takes."""
    if form == "json":
        click.echo(json.dumps(value, indent=2))
    elif isinstance(value, list):
        click.echo(yaml.dump_all(value, Dumper=_DUMPER, sort_keys=False, explicit_start=True), nl=False)
    else:
        click.echo(yaml.dump(value, Dumper=_DUMPER, sort_keys=False), nl=False)


def print_details(document: Mapping[str, Any], indent: str = "") -> None:
    """One object, a field a line; a list of objects is a table."""
    width = max((len(clean(name)) for name in document), default=0)
    for name, value in document.items():
        nested = isinstance(value, Mapping) and any(isinstance(item, (Mapping, list)) for item in value.values())
        if value and (nested or name == "status"):
            click.echo(f"{indent}{clean(name)}:")
            print_details(value, indent + "  ")
        elif isinstance(value, list) and value and all(item and isinstance(item, Mapping) for item in value):
            click.echo(f"{indent}{clean(name)}:")
            keys = [key for key in value[0] if any(item.get(key) not in (None, "") for item in value)] or [*value[0]]
            rows = [[item.get(key) for key in keys] for item in value]
            print_table([clean(key).upper() for key in keys], rows, indent + "  ")
        else:
            click.echo(f"{indent}{(clean(name) + ':').ljust(width + 1)} {text_of(value)}")


def print_diff(diff: str) -> None:
    """A unified diff, in the colours of git."""
    for line in diff.splitlines():
        colour = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1])
        click.echo(click.style(clean(line), fg=colour))


def print_error(error: FleetError) -> None:
    """One line a problem, on stderr."""
    problems = error.problems if isinstance(error, InvalidInput) else (error,)
    for problem in problems:
        where = f"{clean(problem.where)}: " if problem.where else ""
        remedy = f" ({clean(problem.remedy)})" if problem.remedy else ""
        click.echo(f"{click.style('error:', fg='red')} {where}{clean(problem.what)}{remedy}", err=True)


def note(text: str) -> None:
    """A remark that is no result: on stderr."""
    click.echo(clean(text), err=True)


def action(word: str) -> str:
    """A state or action in its colour."""
    return coloured(clean(word))


def coloured(padded: str) -> str:
    """A state's word, blanks around it or not, in its colour; any other text as it is."""
    colour = _COLOURS.get(padded.strip())
    return click.style(padded, fg=colour) if colour else padded
