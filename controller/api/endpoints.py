"""How a route is declared: once, for Flask and for the OpenAPI document alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from flask.typing import ResponseReturnValue

from controller.api.queries import DEFAULT_ITEMS, MOST_ITEMS, Parameter

PREFIX = "/api/v1"

STOPPING = "fleetswitch.stopping"  # in the WSGI environment: tells whether the server wants to end

DRY_RUN = Parameter("dry_run", "flag", "change nothing; say what would change")
WAIT = Parameter("wait", "seconds", "wait so long until every switch has confirmed the change")
FORCE = Parameter("force", "flag", "delete even what others still use")
GENERATION = Parameter("generation", "count", "only if the object still has this generation")
LIMIT = Parameter("limit", "count", "at most so many items", default=DEFAULT_ITEMS, most=MOST_ITEMS)
ANY_LIMIT = Parameter("limit", "count", "at most so many items; all when absent")
OFFSET = Parameter("offset", "count", "leave out so many items first", default=0)
AS_OF = Parameter("sequence", "count", "only if nothing was changed since the page that says this; 409 else")
SEQUENCE = Parameter("sequence", "count", "the change to wait for; the last one when absent")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method of one path.

    ``body`` and ``answer`` name schemas of the OpenAPI document; ``listed`` says that the answer is a page of them.
    ``statuses`` are those it answers beside what every endpoint may, ``media`` the forms of its answer.
    ``path`` has Flask's ``<name>``, or ``<path:name>`` where a name may hold slashes.
    """

    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: str
    name: str
    summary: str
    view: Callable[..., ResponseReturnValue]
    answer: str
    listed: bool = False
    body: str | None = None
    query: tuple[Parameter, ...] = ()
    if_match: bool = False
    statuses: tuple[int, ...] = (200,)
    media: tuple[str, ...] = ("application/json",)


def plural(kind: str) -> str:
    """The word of a kind in paths: ``hosts`` for ``Host``."""
    return f"{kind.lower()}s"
