"""Quarantine: who is kept out has a flow of its own, so that what it sends is dropped where it can be counted.

That is a vNIC of which it is not certain what it is, an interface that says it is a vNIC that another is, and one of
which nothing says whose it is. Without this flow its frames would be dropped as well: nothing in ``classify`` wants
them. It stands below the flows of vNICs that are switched, so it can never take a frame from one of them.
"""

from __future__ import annotations

from collections.abc import Iterator

from controller.pipeline.actions import match
from controller.pipeline.app import App
from controller.pipeline.tables import CLASSIFY, Flow, Priority
from controller.reader import Reader
from controller.views import HostView

_LAST = Priority.MISS + 1


class Quarantine(App):
    tables = (CLASSIFY,)

    def host(self, host: HostView, fabric: Reader) -> Iterator[Flow]:
        for port in fabric.barred(host.name):
            yield CLASSIFY.flow(
                Priority.FALLBACK, match(in_port=port.ofport), why=f"{port.who} is kept out: {port.reason}"
            )
        # The operator may have plugged one in for flows of his own: they come first.
        for port in fabric.strays(host.name):
            yield CLASSIFY.flow(_LAST, match(in_port=port.ofport), why=f"{port.who} is kept out: {port.reason}")
