"""Who is meant as the sender or the receiver of a packet."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from controller.errors import InvalidInput, NotFound, Problem, no_such
from controller.model.network import DEFAULT_PORTGROUP
from controller.model.port import PortSpec, PortStatus

OUTSIDE = "outside"
_STRANGERS = {"source": "02:00:00:00:00:fe", "target": "02:00:00:00:00:ff"}  # locally administered (IEEE 802-2014, 8.4)


@dataclass(frozen=True, slots=True)
class Place:
    """A vNIC, or a machine outside that nobody knows (``port`` is empty then).

    ``hosts`` are where it is, and where it is being copied to, each with its OpenFlow port.
    """

    port: str
    called: str
    mac: str
    addresses: tuple[str, ...]
    network: str | None = None
    portgroup: str = DEFAULT_PORTGROUP
    state: str = "active"
    reason: str = ""
    hosts: tuple[tuple[str, int], ...] = ()

    @property
    def is_outside(self) -> bool:
        return not self.port

    @property
    def trouble(self) -> str:
        """Why it is not switched; empty when it is."""
        if self.is_outside or self.state == "active":
            return ""
        if not self.hosts:
            return f"{self.called} does not run" + (f": {self.reason}" if self.reason else "")
        return f"{self.called} is {self.state}: {self.reason or 'nobody says why'}"


class Places:
    """Every vNIC that is known, by what people call it."""

    def __init__(self, registered: Mapping[str, PortSpec], statuses: Mapping[str, PortStatus]) -> None:
        self._registered = registered
        self._statuses = statuses
        self._vnics = Counter(status.vm_uuid for status in statuses.values())  # how many each guest has

    def pair(self, source: str, target: str) -> tuple[Place, Place]:
        """The two that are meant; of a guest with several vNICs the one that shares a network with the other end.

        Raises NotFound, InvalidInput.
        """
        senders, receivers = self._called(source, "source"), self._called(target, "target")
        if senders[0].is_outside and receivers[0].is_outside:
            raise InvalidInput([Problem("trace", "both ends are outside", "name a guest's vNIC as one of them")])
        for sender in senders:
            for receiver in receivers:
                if sender.network == receiver.network and sender.port != receiver.port:
                    return sender, receiver
        if [place.port for place in senders] == [place.port for place in receivers]:
            raise InvalidInput([Problem("trace", f"{source} and {target} are the same vNIC", "name another one")])
        return senders[0], receivers[0]

    def at(self, host: str, ofport: int) -> Place | None:
        """The vNIC that is plugged in there."""
        for name, status in self._statuses.items():
            if (host, ofport) in _plugged(status):
                return self._vnic(name)
        return None

    def _called(self, text: str, role: str) -> Sequence[Place]:
        if text == OUTSIDE:
            return [Place("", OUTSIDE, _STRANGERS[role], ())]
        canonical = _canonical(text)
        every = [self._vnic(name) for name in sorted({*self._registered, *self._statuses})]
        found = [place for place in every if canonical in self._words(place)]
        if found:
            return sorted(found, key=lambda place: (place.state != "active", place.port))
        if canonical[:1].isdigit() or ":" in canonical:
            try:
                address = str(ipaddress.ip_address(canonical))
            except ValueError:
                raise NotFound(f"no vNIC has the MAC or the name {text}", where="trace",
                               remedy="see the vNICs: fleetswitch port list") from None  # fmt: skip
            return [Place("", f"{OUTSIDE} ({address})", _STRANGERS[role], (address,))]
        raise no_such("guest, Port, MAC or address", text, {word for place in every for word in self._words(place)})

    def _words(self, place: Place) -> Iterator[str]:
        status, spec = self._statuses.get(place.port), self._registered.get(place.port)
        yield from (place.port, place.mac, *place.addresses)
        if spec is not None:
            yield spec.vm
        if status is not None:
            yield from filter(None, (status.vm, status.vm_uuid))
            if status.host is not None and status.tap is not None:
                yield f"{status.host}/{status.tap}"

    def _vnic(self, name: str) -> Place:
        status, spec = self._statuses.get(name), self._registered.get(name)
        addresses = dict.fromkeys((*(spec.addresses if spec else ()), *(status.addresses if status else ())))
        called = name if spec is not None else name.partition(".")[0]
        if status is None:
            if spec is None:
                raise no_such("Port", name, self._registered)
            return Place(name, name, spec.mac, tuple(addresses), spec.network, spec.portgroup, "absent")
        if status.vm is not None and spec is None:
            called = f"{status.vm} ({status.mac})" if self._vnics[status.vm_uuid] > 1 else status.vm
        network = status.network or (spec.network if spec else None)
        group = status.portgroup or (spec.portgroup if spec else DEFAULT_PORTGROUP)
        return Place(name, called, status.mac, tuple(addresses), network, group, status.state, status.reason,
                     _plugged(status))  # fmt: skip


def _plugged(status: PortStatus) -> tuple[tuple[str, int], ...]:
    """The hosts and OpenFlow ports where the vNIC is, and where it is being copied to."""
    found = []
    if status.host is not None and status.ofport is not None:
        found.append((status.host, status.ofport))
    if status.incoming is not None:
        found.append((status.incoming.host, status.incoming.ofport))
    return tuple(found)


def _canonical(text: str) -> str:
    """MACs and addresses in the form that rows have."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        lower = text.lower().replace("-", ":")
        return lower if lower.count(":") == 5 and len(lower) == 17 else text
