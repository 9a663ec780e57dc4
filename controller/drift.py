"""What others changed on one host's switch, and when to look at what it has because of that."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from controller.contents import Identity
from controller.openflow.decode import FlowUpdate
from controller.openflow.sparse import Sparse
from controller.pace import Pace
from controller.pipeline.cookies import is_own

log = logging.getLogger(__name__)

_LEAST_SECONDS = 0.05  # changes come in bursts: look once for all of them
_MOST_SECONDS = 5.0  # to look costs up to 64 MiB, and whoever changes flows in a loop does not end by it
_MOST_DISTRUSTED = 10_000  # flows that somebody changed: past that all are looked at


class Drift:
    """``count`` is how many flows others changed since the controller knows the host; ``suspect`` whether some of that
    was not looked at yet. ``log`` is for whatever a host can bring about without end."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._pace = Pace(_LEAST_SECONDS, _MOST_SECONDS)
        self._distrusted: set[Identity] | None = None
        self.log = Sparse(log)
        self.count = 0
        self.suspect = False

    def connected(self) -> None:
        """Nobody knows what was done while nobody listened."""
        self._distrusted, self.suspect = None, False

    def told(self, updates: Iterable[FlowUpdate]) -> bool:
        """The flow monitor told of changes. Whether they are the first since the last look."""
        changed = [update for update in updates if update.event not in {"abbrev", "initial", "paused"}]
        if not changed:
            return False
        self._distrust(changed)
        self.count += len(changed)
        first = changed[0]
        self.log.warning(
            "%s: somebody else changed %d flows, the first in table %d: %s, cookie %#x", self._host, len(changed),
            first.table, first.event, first.cookie,
        )  # fmt: skip
        was, self.suspect = self.suspect, True
        if not was:
            self._pace.plan()
        return not was

    def _distrust(self, changed: Iterable[FlowUpdate]) -> None:
        if self._distrusted is None:
            return
        for update in changed:
            if update.event in {"added", "modified"} and is_own(update.cookie):
                self._distrusted.add((update.table, update.cookie))
        # A monitor that could not keep up tells what there is afterwards, and not what went back and forth.
        if len(self._distrusted) > _MOST_DISTRUSTED or any(update.event == "resumed" for update in changed):
            self._distrusted = None

    def left(self) -> float | None:
        """Seconds until it is time to look; None while there is no reason to."""
        return self._pace.left() if self.suspect else None

    def begin(self) -> set[Identity] | None:
        """Somebody begins to look. Gives the flows of which the cookie is ours and perhaps nothing else; None means all
        of them."""
        distrusted, self._distrusted, self.suspect = self._distrusted, set(), False
        return distrusted

    def looked(self) -> None:
        """It was looked at."""
        self._pace.done()

    def found(self, wrong: set[Identity]) -> None:
        """These flows are not what they were: nobody told of it."""
        if wrong:
            self.count += len(wrong)
            table, cookie = min(wrong)
            self.log.warning(
                "%s: somebody else changed %d flows while nobody listened, one of them in table %d, cookie %#x",
                self._host, len(wrong), table, cookie,
            )  # fmt: skip
