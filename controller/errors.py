"""Every error that fleetswitch raises on purpose.

    FleetError                 where, what, remedy
    ├── InvalidInput           a document, body or argument is wrong; carries every problem found
    ├── NotFound               no object of that name
    ├── Conflict               somebody changed the object since it was read
    ├── NotConfirmed           the switches have not confirmed a change in time
    ├── StoreError             the store cannot be reached, or refused a transaction
    ├── HostError              one host cannot be reached, or refused; never concerns another host
    │   ├── OvsdbError         its OVSDB
    │   ├── LibvirtError       its libvirtd
    │   └── OpenFlowError      its OpenFlow switch, or whoever claims to be it
    ├── BgpError               a router breaks BGP, or ends the connection
    ├── LldpError              what somebody on a wire says of itself by LLDP makes no sense
    ├── PacketError            a guest's packet makes no sense
    ├── PipelineError          an app's flows break the pipeline's rules: a bug in the app, found when it is compiled
    └── ControllerUnreachable  the command line finds no controller

An error says where it is (a file and line, an object and field, a host), what is wrong there, with the value,
and what to do about it.
"""

from __future__ import annotations

import difflib
from bisect import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import nsmallest

_LOOKED_AT = 20
_LONGEST_GUESS = 200  # letters; no name is as long


class FleetError(Exception):
    """Base of the tree. ``where: what (remedy)`` is its text."""

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text} ({self.remedy})" if self.remedy else text


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a set of documents: where it stands, what is wrong, what would be right."""

    where: str
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f" ({self.remedy})" if self.remedy else "")


class InvalidInput(FleetError):
    """A set of documents that is refused as a whole; nothing of it was applied."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        first = problems[0]
        super().__init__(first.what, where=first.where, remedy=first.remedy)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


class NotFound(FleetError):
    """No object of that kind and name."""


class Conflict(FleetError):
    """The object has another generation than the writer had read: read again, then write."""


class NotConfirmed(FleetError):
    """The change is stored, but not every switch confirmed it in time; the text names which and why."""


class StoreError(FleetError):
    """The store cannot be reached, or refused a transaction."""


class HostError(FleetError):
    """One host cannot be reached, or refused what it was asked. Concerns that host alone."""


class OvsdbError(HostError):
    """A host's OVSDB is unreachable, stalls, or refused a transaction."""


class LibvirtError(HostError):
    """A host's libvirtd is unreachable, stalls, or refused a call."""


class OpenFlowError(HostError):
    """A peer on the OpenFlow port broke the protocol, or a switch refused a message."""


class BgpError(FleetError):
    """A router outside breaks BGP, or ends the connection; ``answer`` is the message that tells it why, if one does."""

    def __init__(self, what: str, answer: bytes = b"", *, remedy: str = "") -> None:
        super().__init__(what, remedy=remedy)
        self.answer = answer


class LldpError(FleetError):
    """A frame of LLDP that breaks its standard, or says more than fits into one."""


class PacketError(FleetError):
    """A packet that a guest sent makes no sense."""


class PipelineError(FleetError):
    """An app's flow breaks a rule of the pipeline (jump backwards, unknown field, double match)."""


class ControllerUnreachable(FleetError):
    """No controller answers at the address that the command line was given."""


def no_such(kind: str, name: str, known: Iterable[str]) -> NotFound:
    """The error for a name that nobody has: it names one that is written much alike, or some that there are."""
    names = list(known)
    guess = alike(name, names)
    remedy = f"did you mean {guess}?" if guess else f"there are: {', '.join(nsmallest(8, names)) or 'none'}"
    return NotFound(f"there is no {kind} {name}", remedy=remedy)


def alike(text: str, known: Iterable[str]) -> str | None:
    """The one of these that is written much like the text, if any is.

    Of many only those are looked at that begin or end like it: difflib takes a millisecond for two long names, and
    4,000 of those would hold up everything for seconds.
    """
    if len(text) > _LONGEST_GUESS:
        return None
    names = list(known)
    if len(names) > 2 * _LOOKED_AT:
        backwards = _around(text[::-1], sorted(name[::-1] for name in names))
        names = [*_around(text, sorted(names)), *(name[::-1] for name in backwards)]
    return next(iter(difflib.get_close_matches(text, names, 1)), None)


def _around(text: str, names: Sequence[str]) -> Sequence[str]:
    """Those in whose midst it would stand."""
    at = bisect(names, text)
    return names[max(0, at - _LOOKED_AT // 2) : at + _LOOKED_AT // 2]
