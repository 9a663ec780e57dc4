"""What the verbs share: the client, kinds by any spelling, the options that every read and every change has."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any, TypeVar

import click

from controller.cli.client import DEFAULT_API, Address, Client, parse_address
from controller.errors import FleetError
from controller.model.kinds import KINDS

View = TypeVar("View", bound=Callable[..., Any])

DEFAULT_WAIT = 10.0


def to_address(_: click.Context, __: click.Parameter, value: str) -> Address:
    """Callback of --api."""
    try:
        return parse_address(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def to_kind(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """Callback of KIND: a kind in any case, singular or plural."""
    words = {word: kind for kind in KINDS for word in (kind.lower(), f"{kind.lower()}s")}
    if value is None or value.lower() in words:
        return value and words[value.lower()]
    guess = difflib.get_close_matches(value.lower(), words, 1)
    remedy = f"did you mean {guess[0]}?" if guess else f"one of: {', '.join(sorted(words))}"
    raise click.BadParameter(f"kind {value!r} is not known; {remedy}")


def complete_kind(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Completes KIND, in the plural."""
    return [f"{kind.lower()}s" for kind in KINDS if kind.lower().startswith(incomplete.lower())]


def client(ctx: click.Context) -> Client:
    """The client for the address that the command line was given."""
    address: Address = ctx.find_root().params["api"]
    return Client(address)


def complete_name(kind: str | None) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Completes names of objects: of this kind, or of the one that stands before. Silent when nobody answers."""

    def complete(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
        wanted = kind or ctx.params.get("kind")
        if wanted is None:
            return []
        address = ctx.find_root().params.get("api") or parse_address(DEFAULT_API)
        try:
            found = list(Client(address, connect_seconds=1).items(f"/{wanted.lower()}s"))
        except FleetError:
            return []
        return [item["name"] for item in found if item["name"].startswith(incomplete)]

    return complete


def reading(view: View) -> View:
    """Adds -o to a verb that reads."""
    return click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table",
                        show_default=True, help="The form of the output.")(view)  # fmt: skip


def changing(wait: float = DEFAULT_WAIT) -> Callable[[View], View]:
    """Adds --wait and --dry-run to a verb that changes something."""

    def add(view: View) -> View:
        view = click.option("--dry-run", is_flag=True, help="Change nothing; show what would change, as a diff.")(view)
        about = "Wait so long until every switch has confirmed; 0: do not wait."
        return click.option("--wait", type=click.FloatRange(0, 600), default=wait, show_default=True,
                            metavar="SECONDS", help=about)(view)  # fmt: skip

    return add
