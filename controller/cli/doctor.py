"""The verb doctor: what is wrong, where, and what to type."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import click

from controller.cli.context import client, complete_name
from controller.cli.output import clean, coloured, note, print_value

_WRONG = 1
_WIDTH = 8


@click.command(epilog="Examples: fleetswitch doctor; fleetswitch doctor kvm01 -o json")
@click.argument("host", required=False, shell_complete=complete_name("Host"))
@click.option("--check", metavar="NAME", help="Only this: connection, flows, mtu, drift, tunnel, vnic, version, ...")
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table",
              show_default=True, help="The form of the output.")  # fmt: skip
@click.pass_context
def doctor(ctx: click.Context, host: str | None, check: str | None, output: str) -> None:
    """What is wrong in the fleet, or with one host, and what to type.

    An error keeps somebody from talking or from being driven, a warning may; info is good to know. Ends with 1 where
    there is an error or a warning.
    """
    found = list(client(ctx).items("/doctor", host=host, check=check))
    if output == "table":
        _print(found)
    else:
        print_value(found, output)
    if any(finding["severity"] != "info" for finding in found):
        ctx.exit(_WRONG)


def print_findings(found: Sequence[Mapping[str, Any]], indent: str = "") -> None:
    """Each with what to type below it."""
    for finding in found:
        severity = coloured(clean(finding["severity"]).ljust(_WIDTH))
        click.echo(f"{indent}{severity} {clean(finding['place'])}: {clean(finding['what'])}")
        if finding["remedy"]:
            click.echo(f"{indent}{'':{_WIDTH}} -> {clean(finding['remedy'])}")


def _print(found: Sequence[Mapping[str, Any]]) -> None:
    print_findings(found)
    counts = Counter(finding["severity"] for finding in found)
    parts = [_count(counts[severity], severity) for severity in ("error", "warning") if counts[severity]]
    note(", ".join(parts) or "nothing is wrong")


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
