"""Which vNIC has claimed which address, where the network says that vNICs learn theirs: the first to claim it has it.

Packets of guests come here: they are bounded for each vNIC, and read by ``topology.claims``, which trusts no byte.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping

from controller.desired import Desired
from controller.errors import OpenFlowError
from controller.fabric import Fabric
from controller.leases import Leases
from controller.model.guard import kind_of
from controller.model.network import nobodys_addresses
from controller.openflow.decode import PacketIn
from controller.openflow.sparse import Sparse
from controller.services.pool import lasts
from controller.views import PortView
from topology.claims import read_claim
from topology.guests import Guests

log = logging.getLogger(__name__)

MOST_FRAMES = 10  # of a vNIC in a second; the rest is not looked at, and is said again


class Claims:
    """Everything on the loop. ``judge`` is told of a host to judge anew; ``clock`` counts seconds."""

    def __init__(
        self, desired: Desired, fabric: Fabric, guests: Guests, judge: Callable[[str], None], clock: Callable[[], float]
    ) -> None:
        self._desired, self._fabric, self._guests = desired, fabric, guests
        self._judge, self._clock = judge, clock
        self._began = time.time()
        self._second, self._frames = 0, Counter[str]()  # how many each vNIC has sent in this second
        self._say = Sparse(log)

    def take(self, host: str, packet: PacketIn) -> None:
        """A frame that may be a claim: whatever else of it came here is left out."""
        try:
            ofport = packet.in_port
        except OpenFlowError as error:
            log.debug("%s: %s", host, error)
            return
        port = self._fabric.port_at(host, ofport)
        if port is None or not port.may_learn or port.arriving or self._floods(port.name):
            return
        claim = read_claim(packet.data)
        if claim is None or claim.mac != port.mac:
            return
        status = self._desired.statuses.get(port.name)
        if status is None:
            return
        identity = status.vm_uuid, status.mac
        have = tuple(dict.fromkeys((*port.learned, *self._guests.claimed.get(identity, ()))))
        kind = kind_of(claim.address)
        if kind in port.leased_kinds or claim.address in have or sum(kind_of(a) == kind for a in have) >= port.learns:
            return
        if (owner := self._owner(port, claim.address)) is not None:
            self._say.warning("%s: %s claims %s, which is %s", host, port.name, claim.address, owner)
            return
        log.info("%s: %s has claimed %s, and has it from now on", host, port.name, claim.address)
        self._guests.claimed[identity] = (*self._guests.claimed.get(identity, ()), claim.address)
        self._judge(host)

    def _floods(self, name: str) -> bool:
        if (second := int(self._clock())) != self._second:
            self._second = second
            self._frames.clear()
        self._frames[name] += 1
        return self._frames[name] > MOST_FRAMES

    def _owner(self, port: PortView, address: str) -> str | None:
        """Whose the address is already, in words."""
        network = self._desired.networks.get(port.network)
        desired = self._desired
        floating = [spec.address for spec in desired.floating.values()]
        if network is None or address in nobodys_addresses(port.network, network, desired.hosts, floating):
            return "reserved, floating, a host's, or a gateway's"
        lease = self._desired.leases.get(port.network, Leases()).get(address)
        if lease is not None and lease.mac != port.mac and lasts(lease, self._began, time.time()):
            return f"leased to {lease.mac}"  # which may be behind a vNIC, and in no Port
        for registration in self._fabric.registrations_of(port.network):
            if address in registration.addresses:
                return f"registered to {registration.name}"
        near: Mapping[str, PortView] = {
            other.name: other
            for other in self._fabric.ports_of(port.network)
            if other.name != port.name and not (network.span == "host" and other.host != port.host)
            and {part.segment for part in other.memberships} & {part.segment for part in port.memberships}
        }  # fmt: skip
        for name, other in near.items():
            status = self._desired.statuses.get(name)
            claimed = self._guests.claimed.get((status.vm_uuid, status.mac), ()) if status is not None else ()
            if address in other.addresses or address in claimed:
                return f"that of {name}"
        return None
