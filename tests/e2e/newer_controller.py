"""`fleetswitch` as a later version might be: with a table that shifts every other, and flows that say the same anew."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import apps
from controller.cli.root import main
from controller.pipeline.actions import goto, match
from controller.pipeline.app import App
from controller.pipeline.tables import NEXT, Flow, Priority, Stage, Table
from controller.reader import Reader
from controller.views import NetworkView

NEWER = Table("newer", Stage.SPOOF_GUARD, NEXT, "what this version has and the one before had not")


class Newer(App):
    tables = (NEWER,)

    def fleet(self, fabric: Reader) -> Iterator[Flow]:
        yield NEWER.flow(Priority.EXCEPTION, match(eth_type=0x88B6), why="of no use, and dropped")

    def network(self, network: NetworkView, fabric: Reader) -> Iterator[Flow]:
        yield NEWER.flow(Priority.ANYWHERE, match(eth_type=0x88B5), goto(Stage.EGRESS_POLICY), why="goes another way")


if __name__ == "__main__":
    sys.path.pop(0)  # the tests' folder
    apps.APPS = (Newer(), *apps.APPS)
    main(prog_name="fleetswitch")
