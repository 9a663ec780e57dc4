"""ofproto/trace through the connection tracker."""

from __future__ import annotations

import re

from e2e_fleet import Fleet


def tracked(fleet: Fleet, host: str, interface: str, flow: str, *states: str) -> tuple[str, set[str]]:
    """What ofproto/trace says, and by which ports it leaves at last; ``states`` are what the tracker says each time."""
    switch = fleet.hosts[host]
    number = switch.vsctl("get", "Interface", interface, "ofport")
    words = [word for state in states for word in ("--ct-next", state)]
    said = switch.appctl("ofproto/trace", "br-int", f"in_port={number},{flow}", *words)
    actions = said.rpartition("Datapath actions: ")[2].splitlines()[0]
    assert said.count("resume conntrack") == len(states), said
    outputs = set(re.findall(r"(?:^|[,(])(\d+)(?=[,)]|$)", actions))
    ports = re.findall(r"^\s+(\S+) \d+/(\d+):", switch.appctl("dpif/show"), re.MULTILINE)
    return said, {name for name, number in ports if number in outputs}


def last_flow(said: str) -> set[str]:
    """The packet as it leaves, in a trace."""
    found = re.findall(r"^(?:Flow|Final flow): (?!unchanged)(.*)$", said, re.MULTILINE)
    return set(found[-1].split(","))
