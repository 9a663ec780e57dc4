"""fleetswitch over hosts that run, with the same tenants as its peer has."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from labkit.run import LabError, run, wait_for

from ..controller import running
from ..processes import family
from . import tenants
from .hosts import BRIDGE, DummyHost
from .tenants import Guest

_PATIENCE = 50.0  # seconds that one request may wait for switches


class Fleetswitch:
    """A controller and its store."""

    def __init__(self, folder: Path, hosts: Sequence[DummyHost], stack: ExitStack) -> None:
        self._folder = folder
        self._hosts = hosts
        self._stack = stack

    def start(self) -> None:
        """Run it, and hand the bridges, which guests are plugged into already, over to it."""
        self._folder.mkdir()
        self._controller = self._stack.enter_context(running(self._folder))
        mine = f"external_ids:fleetswitch={self._fleet()}"
        for host in self._hosts:
            host.vsctl("--no-wait", "set", "Bridge", BRIDGE, mine)
        documents = [
            {"kind": "Host", "name": host.name, "ovsdb": host.db, "tunnel_ip": f"198.18.0.{number}",
             "datapath_type": "netdev"}
            for number, host in enumerate(self._hosts, start=1)
        ]  # fmt: skip
        self._controller.api.ask("POST", "/apply", documents)

    @property
    def pids(self) -> list[int]:
        """The controller, and the server of its store."""
        return family(self._controller.process.pid)

    def configure(self, guests: Sequence[Guest]) -> None:
        """The guests' tenants, and a registration for each guest."""
        documents = [_tenant(number) for number in sorted({guest.tenant for guest in guests})]
        self._controller.api.ask("POST", "/apply", [*documents, *map(_port, guests)])

    def confirmed(self, count: int) -> None:
        """Return when so many ports are active, and every switch has confirmed all flows of that moment."""

        def active() -> bool:
            total: int = json.loads(self._controller.api.ask("GET", "/ports?state=active&limit=1"))["total"]
            return total >= count

        wait_for(f"{count} active ports", active, _PATIENCE, every=0.05)
        said = json.loads(self._controller.api.ask("GET", f"/wait?wait={_PATIENCE:.0f}"))
        if not said["confirmed"]:
            raise LabError(f"not every switch has its flows: {said['unconfirmed'][:3]}")

    def _fleet(self) -> str:
        """What marks things on hosts as this fleet's."""
        where = [["pool", "==", "fleet"]]
        wanted = json.dumps(["Fleetswitch", {"op": "select", "table": "Number", "where": where, "columns": ["name"]}])

        def read() -> str | None:
            said = run(["ovsdb-client", "transact", f"unix:{self._controller.store}", wanted]).stdout
            rows = json.loads(said)[0]["rows"]
            return rows[0]["name"] if rows else None

        return wait_for("the fleet's mark", read, _PATIENCE)


def _tenant(number: int) -> dict[str, Any]:
    return {"kind": "Network", "name": tenants.network(number), "mode": "isolated",
            "subnets": [f"{tenants.gateway(number)}/24"], "dhcp": {}, "dns": {"enable": False}}  # fmt: skip


def _port(guest: Guest) -> dict[str, Any]:
    return {"kind": "Port", "name": guest.name, "vm": guest.uuid, "mac": guest.mac, "network": guest.network,
            "addresses": [guest.address], "libvirt": False}  # fmt: skip


@contextmanager
def fleetswitch(folder: Path, hosts: Sequence[DummyHost]) -> Iterator[Fleetswitch]:
    """A controller, which runs from its ``start`` on; ended on leaving."""
    with ExitStack() as stack:
        yield Fleetswitch(folder, hosts, stack)
