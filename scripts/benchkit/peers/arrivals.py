"""How long after a guest is plugged in the last flow for it is in, anywhere: told by the switches' flow monitors.

Every flow that anybody adds, changes or deletes in a bridge is told by the switch itself, so two controllers are
measured by the same clock, whatever they say of themselves.
"""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from labkit.run import LabError

from .hosts import DummyHost
from .tenants import Guest

_QUIET = 0.5  # seconds without a change after which it is over
_PATIENCE = 20.0


class Monitors:
    """A flow monitor of every host's integration bridge."""

    def __init__(self, hosts: Sequence[DummyHost]) -> None:
        self._hosts = hosts
        self._watched = [subprocess.Popen(["ovs-ofctl", "monitor", host.management, "watch:!initial,!actions"],
                                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
                         for host in hosts]  # fmt: skip
        self._selector = selectors.DefaultSelector()
        for process in self._watched:
            assert process.stdout is not None
            self._selector.register(process.stdout, selectors.EVENT_READ)

    def boot(self, guest: Guest) -> float:
        """Plug the guest in; seconds from the transaction in its host's OVSDB to the last change of a flow anywhere.

        Raises LabError when no flow changes.
        """
        self._until_quiet(_QUIET)
        begun = time.monotonic()
        self._hosts[guest.host].boot(guest)
        last = self._until_quiet(_PATIENCE)
        if last is None:
            raise LabError(f"no flow changed in {_PATIENCE:.0f} s after {guest.name} was plugged in")
        return last - begun

    def _until_quiet(self, patience: float) -> float | None:
        """When the last change was told; None when none was in so many seconds."""
        last = None
        while ready := self._selector.select(patience if last is None else _QUIET):
            last = time.monotonic()
            for key, _ in ready:
                if not os.read(key.fd, 1 << 20):
                    raise LabError("a flow monitor ended")
        return last

    def end(self) -> None:
        for process in self._watched:
            process.terminate()
        for process in self._watched:
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
        self._selector.close()


@contextmanager
def monitors(hosts: Sequence[DummyHost]) -> Iterator[Monitors]:
    watching = Monitors(hosts)
    try:
        yield watching
    finally:
        watching.end()
