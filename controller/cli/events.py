"""The verb events: what happened, and what happens."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import click

from controller.cli.context import client, complete_kind, complete_name, to_kind
from controller.cli.output import clean, coloured, note, print_table, print_value
from controller.errors import ControllerUnreachable

Event = Mapping[str, Any]

_PATH = "/events"
_WORDS = (
    "active", "quarantined", "down", "unmanaged", "gone", "migrating", "moved", "stayed",
    *(f"{part}-{word}" for part in ("openflow", "ovsdb", "libvirt") for word in ("up", "degraded", "down")),
    "drift", "left-out", "created", "changed", "deleting", "deleted", "turned-away", "started", "stopped",
)  # fmt: skip
_UUID = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-")
_WIDTHS = (24, 10, 20, 18)


def _to_event_kind(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    others = {"switch": "Switch", "controller": "Controller"}
    return others.get(value.lower()) or to_kind(ctx, parameter, value) if value is not None else None


def _complete_event_kind(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    own = [word for word in ("switch", "controller") if word.startswith(incomplete.lower())]
    return [*complete_kind(ctx, parameter, incomplete), *own]


def _complete_word(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    return [word for word in _WORDS if word.startswith(incomplete)]


@click.command(epilog="Examples: fleetswitch events --since 1h --kind port; fleetswitch events -f --host kvm01")
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens, until Ctrl-C.")
@click.option("--kind", callback=_to_event_kind, shell_complete=_complete_event_kind,
              help="Of objects of this kind; switch (turned away) and controller are kinds here.")  # fmt: skip
@click.option("--name", help="Of the object or the guest of this name.")
@click.option("--event", help="With this word: active, quarantined, moved, openflow-down, drift, created, ...",
              shell_complete=_complete_word)  # fmt: skip
@click.option("--host", help="That have to do with this host.", shell_complete=complete_name("Host"))
@click.option("--network", help="That have to do with this network.", shell_complete=complete_name("Network"))
@click.option("--since", metavar="TIME", help="Not before 2026-01-31T08:00:00Z, or so long ago: 90s, 15m, 2h, 7d.")
@click.option("-n", "--last", type=click.IntRange(0, 5000), default=100, show_default=True, metavar="COUNT",
              help="Only the last so many of those that are there.")  # fmt: skip
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table",
              show_default=True, help="The form of the output; JSON with -f is one event a line.")  # fmt: skip
@click.pass_context
def events(ctx: click.Context, /, follow: bool, last: int, output: str, **filters: str | None) -> None:
    """What happened in the fleet: vNICs, hosts' connections, drift, changes and who asked for them."""
    if not follow:
        found = list(client(ctx).items(_PATH, last=last, **filters))
        if output == "table":
            print_events(found)
        else:
            print_value(found, output)
        return
    _follow(ctx, last, output, filters)


def print_events(found: Sequence[Event]) -> None:
    """Events as a table."""
    print_table(["TIME", "KIND", "NAME", "EVENT", "MESSAGE"], [_cells(event) for event in found])


def _follow(ctx: click.Context, last: int, output: str, filters: Mapping[str, str | None]) -> None:
    before = list(client(ctx).items(_PATH, last=last, **filters))
    for event in before:
        _print(event, output)
    after = before[-1]["id"] if before else 0 if last else None
    is_away = False
    while True:
        try:
            for told in client(ctx).follow(_PATH, after, **filters):
                is_away = False
                if told is not None and "id" not in told:
                    note("the controller keeps so many events, and some of those since the last one here are gone")
                elif told is not None:
                    after = told["id"]
                    _print(told, output)
        except ControllerUnreachable as error:
            if not is_away:
                note(f"{error.what}; trying again")
            is_away = True


def _print(event: Event, output: str) -> None:
    if output == "table":
        cells = [clean(cell) for cell in _cells(event)]
        padded = [cell.ljust(width) for cell, width in zip(cells, _WIDTHS, strict=False)]
        click.echo("  ".join([*map(coloured, padded), cells[-1]]))
    elif output == "json":
        click.echo(json.dumps(event))
    else:
        print_value([event], output)


def _cells(event: Event) -> list[Any]:
    # A vNIC that nobody registered has a row that is named by its UUID and MAC.
    name = event["vm"] if event["kind"] == "Port" and event["vm"] and _UUID.match(event["name"]) else event["name"]
    return [event["time"], event["kind"], name, event["event"], event["message"]]
