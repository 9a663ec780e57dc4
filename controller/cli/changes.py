"""Verbs that change what is wanted: apply, delete; and wait, until it is so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from controller.cli.client import changed_places, object_path
from controller.cli.context import changing, client, complete_kind, complete_name, to_kind
from controller.cli.files import as_object, read_files, title
from controller.cli.output import action, clean, note, print_diff
from controller.errors import InvalidInput, NotConfirmed

_ABOUT_FILE = "A YAML or JSON file, a folder of them, or - for standard input; may be repeated."
_FILE = click.option("-f", "--file", "files", multiple=True, metavar="FILE", help=_ABOUT_FILE)


@click.command(epilog="Example: fleetswitch apply -f fleet.yaml --dry-run")
@_FILE
@changing()
@click.pass_context
def apply(ctx: click.Context, files: tuple[str, ...], wait: float, dry_run: bool) -> None:
    """Make objects as the files describe them, all or none.

    It ends with 3 where a host has not confirmed the change in time, or something is wrong there that was not before
    it. What was wrong before the change, and did not come with one of that host, is a warning.
    """
    if not files:
        raise click.UsageError("nothing to apply; name a file with -f", ctx)
    documents = read_files(files)
    try:
        answer = client(ctx).post("/apply", [as_object(item) for item in documents], wait=wait or None, dry_run=dry_run)
    except InvalidInput as error:
        raise changed_places(error, [(title(item), item.where) for item in documents]) from None
    report(answer, dry_run)


@click.command(epilog="Examples: fleetswitch delete network web; fleetswitch delete -f fleet.yaml")
@click.argument("kind", callback=to_kind, required=False, shell_complete=complete_kind)
@click.argument("name", required=False, shell_complete=complete_name(None))
@_FILE
@click.option("--force", is_flag=True, help="Delete even what other objects still use.")
@click.option("--generation", type=click.IntRange(0), metavar="NUMBER",
              help="Only if the object still has this generation, which `get` shows.")  # fmt: skip
@changing()
@click.pass_context
def delete(
    ctx: click.Context,
    kind: str | None,
    name: str | None,
    files: tuple[str, ...],
    force: bool,
    generation: int | None,
    wait: float,
    dry_run: bool,
) -> None:
    """Delete one object, or those that the files describe."""
    how = {"force": force, "wait": wait or None, "dry_run": dry_run}
    if files:
        if kind is not None:
            raise click.UsageError("name an object or files with -f, not both", ctx)
        if generation is not None:
            raise click.UsageError("--generation is that of one object; name it by KIND NAME", ctx)
        targets = [{"kind": item.kind, "name": item.name} for item in read_files(files)]
        answer = client(ctx).post("/delete", targets, **how)
    elif kind is None or name is None:
        raise click.UsageError("say which: KIND NAME, or -f FILE", ctx)
    else:
        answer = client(ctx).delete(object_path(kind, name), generation=generation, **how)
    report(answer, dry_run)


@click.command(epilog="Example: fleetswitch apply -f fleet.yaml --wait 0; fleetswitch wait --wait 60")
@click.option("--sequence", type=click.IntRange(0), help="The change to wait for; the last one when absent.")
@click.option("--wait", type=click.FloatRange(0, 600), default=60.0, show_default=True, metavar="SECONDS",
              help="Wait no longer than this.")  # fmt: skip
@click.pass_context
def wait(ctx: click.Context, sequence: int | None, wait: float) -> None:
    """Wait until every switch has confirmed what was changed.

    With --sequence, what was wrong with a host before that change is a warning; without it, nothing may be wrong.
    """
    _confirm(client(ctx).get("/wait", sequence=sequence, wait=wait))


def report(answer: Mapping[str, Any], dry_run: bool, *, hint: bool = True) -> None:
    """Say what became of each object, and whether the switches have it. Raises NotConfirmed."""
    outcomes = answer["outcomes"]
    for outcome in outcomes:
        if dry_run and outcome["diff"]:
            print_diff(outcome["diff"])
        would = "would be " if dry_run and outcome["action"] != "unchanged" else ""
        click.echo(f"{clean(outcome['kind'])} {clean(outcome['name'])} {would}{action(outcome['action'])}")
    if dry_run:
        return
    if answer["confirmed"] is None:
        if not hint:
            return
        note(f"stored, not yet confirmed by the switches; see: fleetswitch wait --sequence {answer['sequence']}")
    else:
        _confirm(answer)


def _confirm(answer: Mapping[str, Any]) -> None:
    """Say that every switch confirmed. Raises NotConfirmed naming the first of those that did not, tells all."""
    missing = answer["unconfirmed"]
    for item in answer["troubles"]:
        note(f"warning: Host {item['host']}: {item['what']} was degraded before this change already: {item['reason']}")
    if answer["confirmed"]:
        note("confirmed by every switch")
        return
    for item in missing[:-1]:
        note(f"Host {item['host']}: {item['what']} has not confirmed: {item['reason']}")
    last = missing[-1]
    raise NotConfirmed(
        f"{last['what']} has not confirmed: {last['reason']}",
        where=f"Host {last['host']}",
        remedy=f"it is stored and goes on; see: fleetswitch wait --sequence {answer['sequence']}",
    )
