"""Streams of which nothing may be lost; what a busy machine loses is told apart by a plain switch beside ours."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from e2e_fleet import Fleet
from labkit import LightGuest, Nic, Streaming
from labkit.stream import RATE, Report, Way

Ways = dict[str, tuple[LightGuest, LightGuest]]

LEAST = 0.9  # of the frames that were to be sent; the sender leaves out what would be late
_BRIDGE, _KEY = "br-plain", 0xFFFFFE


def nothing_is_lost(fleet: Fleet, ways: Mapping[str, Way], happens: Callable[[], None], rate: int = RATE) -> None:
    """Every frame that was sent while it happens, and a second longer, comes, once, in its order.

    Where one does not, it happens again, with streams beside ours over bridges with no flow but NORMAL on the same
    ``ovs-vswitchd`` of the same hosts: what those lose too in the same time is the machine's doing.
    """
    least = LEAST * rate
    reports = _streamed(fleet, ways, happens, rate)
    if all(report.whole and report.sent > least * report.seconds for report in reports.values()):
        return
    plain = {f"plain {name}": way for name, way in _plain(fleet).items()}
    try:
        reports = _streamed(fleet, {**ways, **plain}, happens, rate)
    finally:
        _remove(fleet, plain)
    for name in ways:
        ours, controls = reports[name], [f"plain {name}"] if f"plain {name}" in plain else plain
        beside = [reports[each] for each in controls]
        assert ours.sent > least * ours.seconds, f"this machine cannot send as much: {ours}"
        assert ours.whole or not all(report.whole for report in beside), (
            f"{name}: {ours}; beside it, without us: {beside}"
        )


def _streamed(fleet: Fleet, ways: Mapping[str, Way], happens: Callable[[], None], rate: int) -> Mapping[str, Report]:
    with Streaming(ways, rate, [*fleet.hosts.values(), fleet.lab.segment]) as streaming:
        happens()
        time.sleep(1.0)  # frames go on: what is lost by an aftermath counts too
    print(streaming)
    return streaming.reports


def _plain(fleet: Fleet) -> Ways:
    """Two guests of h1 and one of h2 on bridges that switch as Open vSwitch does by itself, with a tunnel of theirs."""
    h1, h2 = fleet.hosts["h1"], fleet.hosts["h2"]
    for host, other in ((h1, h2), (h2, h1)):
        host.add_bridge(_BRIDGE, fail_mode="standalone")
        host.vsctl("add-port", _BRIDGE, "plain-tun", "--", "set", "Interface", "plain-tun", "type=geneve",
                   f"options:remote_ip={other.tunnel_ip}", f"options:key={_KEY}")  # fmt: skip
    nic = {name: [Nic(None, bridge=_BRIDGE)] for name in ("plain1", "plain1b", "plain2")}
    one, two = fleet.lab.start_lights("h1", [(name, nic[name]) for name in ("plain1", "plain1b")], bridge=_BRIDGE)
    far = fleet.lab.start_light("h2", "plain2", nic["plain2"], bridge=_BRIDGE)
    return {"local": (one, two), "out": (two, far), "in": (far, one)}


def _remove(fleet: Fleet, ways: Ways) -> None:
    guests = {guest.name: guest for way in ways.values() for guest in way}
    fleet.lab.stop_lights(list(guests.values()))
    for name in ("h1", "h2"):
        fleet.hosts[name].vsctl("del-br", _BRIDGE)
