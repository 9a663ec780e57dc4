"""vNICs that cannot both be switched: who was there first stays, and the other is told why it is kept out.

A MAC that is registered is its owner's, whoever was there first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping

from controller.model.network import NetworkSpec
from controller.model.port import PortStatus

Key = tuple[str, str | None, str]


class Contenders:
    """All vNICs that could exclude each other, as they would be without that, and where they meet: who has nothing in
    common with a change, not even through others, is as it was."""

    def __init__(self, networks: Mapping[str, NetworkSpec]) -> None:
        self.statuses: dict[str, PortStatus] = {}
        self._at: dict[Key, set[str]] = defaultdict(set)
        self._touched: set[Key] = set()
        self._uplinks = {
            name: spec.physical_network for name, spec in networks.items()
            if spec.physical_network is not None
        } if _any_alone(networks) else {}  # fmt: skip

    def put(self, name: str, status: PortStatus | None) -> None:
        """The vNIC is thus now, or (None) is none that counts."""
        if (old := self.statuses.pop(name, None)) is not None:
            for key in self._keys(old):
                self._touched.add(key)
                self._at[key].discard(name)
                if not self._at[key]:
                    del self._at[key]
        if status is not None:
            self.statuses[name] = status
            for key in self._keys(status):
                self._touched.add(key)
                self._at[key].add(name)

    def concerned(self, names: Iterable[str]) -> dict[str, PortStatus]:
        """These, and all that what was put since the last call could concern, as they would be by themselves."""
        found = {name for name in names if name in self.statuses}
        if len(found) == len(self.statuses):
            self._touched = set()
            return dict(self.statuses)
        keys = self._touched | {key for name in found for key in self._keys(self.statuses[name])}
        self._touched, seen = set(), set(keys)
        while keys:
            more = {name for key in keys for name in self._at.get(key, ())} - found
            found |= more
            keys = {key for name in more for key in self._keys(self.statuses[name])} - seen
            seen |= keys
        return {name: self.statuses[name] for name in found}

    def _keys(self, status: PortStatus) -> Iterator[Key]:
        """Where it meets others: its MAC in its network, and uplinks of hosts where somebody may be alone."""
        if status.state != "active":
            return
        yield "mac", status.network, status.mac
        physical = self._uplinks.get(status.network or "")
        if physical is not None:
            yield "uplink", status.host, physical
            if status.incoming is not None:
                yield "uplink", status.incoming.host, physical


def _any_alone(networks: Mapping[str, NetworkSpec]) -> bool:
    return any(group.isolation == "passthrough" for spec in networks.values() for group in spec.portgroups.values())


def keep_apart(
    statuses: dict[str, PortStatus],
    known: Mapping[str, PortStatus],
    networks: Mapping[str, NetworkSpec],
    registered: Collection[str],
) -> None:
    """Quarantine, in place, all but the first of those that exclude each other.

    ``known`` is how they stood before: whoever was active then comes first. ``registered`` are the names of those that
    the operator registered.
    """

    def seniority(name: str) -> tuple[bool, str]:
        before = known.get(name)
        return before is None or before.state != "active", name

    active = sorted((name for name, status in statuses.items() if status.state == "active"), key=seniority)
    _one_mac_a_network(statuses, sorted(active, key=lambda name: name not in registered), registered)
    if _any_alone(networks):
        _passthrough_alone(statuses, [n for n in active if statuses[n].state == "active"], networks)


def _one_mac_a_network(statuses: dict[str, PortStatus], active: list[str], registered: Collection[str]) -> None:
    first: dict[tuple[str | None, str], str] = {}
    for name in active:
        status = statuses[name]
        owner = first.setdefault((status.network, status.mac), name)
        if owner != name:
            why = "is registered with it" if owner in registered and name not in registered else "came first"
            _exclude(statuses, name, f"its MAC is that of {_called(statuses[owner])}, which {why}")


def _passthrough_alone(statuses: dict[str, PortStatus], active: list[str], networks: Mapping[str, NetworkSpec]) -> None:
    """A passthrough vNIC has the uplink of its host to itself, so nobody else there uses that physical network."""
    first: dict[tuple[str | None, str], tuple[str, bool]] = {}

    def rival(name: str, host: str | None) -> str | None:
        """Who keeps the vNIC from the host, in words."""
        status = statuses[name]
        network = networks.get(status.network or "")
        if network is None or network.physical_network is None:
            return None
        group = network.portgroup(status.portgroup or "")
        alone = group is not None and group.isolation == "passthrough"
        owner, owned_alone = first.setdefault((host, network.physical_network), (name, alone))
        if owner == name or not (alone or owned_alone):
            return None
        uses = "has it to itself" if owned_alone else "uses it"
        return f"{_called(statuses[owner])} {uses}: the uplink to {network.physical_network}"

    for name in active:
        if (reason := rival(name, statuses[name].host)) is not None:
            _exclude(statuses, name, reason)
    for name in active:
        status = statuses[name]
        if status.incoming is not None and (reason := rival(name, status.incoming.host)) is not None:
            reason = f"would be kept out on {status.incoming.host}: {reason}"
            statuses[name] = status.model_copy(update={"incoming": None, "reason": reason})


def _exclude(statuses: dict[str, PortStatus], name: str, reason: str) -> None:
    update = {"state": "quarantined", "reason": reason, "incoming": None}
    statuses[name] = statuses[name].model_copy(update=update)


def _called(status: PortStatus) -> str:
    return f"{status.vm or status.vm_uuid} on host {status.host}"
