"""vNICs that cannot both be switched: who was there first stays, and the other is told why it is kept out.

A MAC that is registered is its owner's, whoever was there first.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from controller.model.network import NetworkSpec
from controller.model.port import PortStatus


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
    if any(group.isolation == "passthrough" for spec in networks.values() for group in spec.portgroups.values()):
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
