"""Which switch may come in: one whose datapath id is a Host's and, under TLS, whose certificate carries its name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from controller.agent import HostAgent
from controller.certificates import anothers, carry
from controller.desired import HOSTS, Desired
from controller.openflow.connection import Connection
from controller.openflow.decode import Features
from controller.openflow.sparse import Sparse
from controller.openflow.transport import address_of
from controller.ovsdb.wanted import OWN_DATAPATHS, datapath_id
from controller.strangers import Stranger, Strangers

log = logging.getLogger(__name__)

Told = Callable[[str, int | None, str | None, str], None]
"""Who is told of a peer that was turned away: address, datapath id, the Host whose id that is, reason."""


class Admission:
    """``agents`` are the coordinator's, by host. ``controllers`` is what hosts are told to connect to: where all of
    that is ``ssl:``, nobody is let in without TLS."""

    def __init__(
        self, desired: Desired, agents: Mapping[str, HostAgent], controllers: Sequence[str], told: Told | None = None
    ) -> None:
        self._desired = desired
        self._agents = agents
        self._only_tls = bool(controllers) and all(target.startswith("ssl:") for target in controllers)
        self._strangers = Strangers()
        self._say = Sparse(log)
        self._told = told

    def accept(self, connection: Connection, features: Features) -> bool:
        """A switch is through the handshake: whose is it? False refuses it."""
        numbers = self._desired.numbers(HOSTS)
        name = next((n for n, number in numbers.items() if datapath_id(number) == features.dpid), None)
        agent = self._agents.get(name) if name is not None else None
        if name is None or agent is None:
            self._turn_away(connection, features.dpid, *_unknown(connection, features.dpid))
            return False
        names = connection.peer_names
        if names is None and self._only_tls:
            reason = f"claims to be Host {name} without TLS, and hosts are told to use it"
            self._turn_away(connection, features.dpid, reason, f"find out what runs there: it is not {name}", name)
            return False
        if names is not None and (why := anothers(names, name)) is not None:
            self._turn_away(connection, features.dpid, why, carry(name), name)
            agent.switch.note_absence(why)
            return False

        def turned_away(reason: str) -> None:
            remedy = f"end the one that is not {name}; fleetswitch host list says which address has it now"
            self._turn_away(connection, features.dpid, reason, remedy, name)

        return agent.switch.accept(connection, turned_away)

    def lost(self, address: str, reason: str) -> None:
        """A peer did not get through the handshake; the listener has logged it."""
        remedy = ""
        if reason.startswith("TLS: "):
            remedy = "on it: ovs-vsctl set-ssl KEY CERTIFICATE CA, signed by what --tls-ca names"
        elif "OpenFlow 1.5" in reason:
            remedy = "on it: ovs-vsctl set bridge BRIDGE protocols=OpenFlow15"
        if self._strangers.note(address, None, reason, remedy) and self._told is not None:
            self._told(address, None, None, reason)

    def strangers(self) -> list[Stranger]:
        """Who was turned away, the latest first. What an address did before a host of ours came in from it is over."""
        since: dict[str, float] = {}
        for agent in self._agents.values():
            if agent.switch.peer is not None:
                address = address_of(agent.switch.peer)
                since[address] = max(since.get(address, 0.0), agent.switch.state.since)
        return [one for one in self._strangers.all() if one.last >= since.get(one.address, 0.0)]

    def _turn_away(self, connection: Connection, dpid: int, reason: str, remedy: str, host: str | None = None) -> None:
        if self._strangers.note(address_of(connection.peer), dpid, reason, remedy, host):
            what = f"Host {host}" if host is not None else "no Host"
            if self._told is not None:
                self._told(address_of(connection.peer), dpid, host, reason)
            self._say.warning("switch %016x from %s turned away (%s): %s", dpid, connection.peer, what, reason)


def _unknown(connection: Connection, dpid: int) -> tuple[str, str]:
    """Why a datapath id that is no Host's is refused, and what to type."""
    address = address_of(connection.peer)
    remote = "unix:/PATH" if address == "unix" else f"tcp:{address}:6640"
    add = f"""echo '{{kind: Host, name: NAME, ovsdb: "{remote}"}}' | fleetswitch apply -f -"""
    if dpid & OWN_DATAPATHS == OWN_DATAPATHS:
        reason = "its datapath id is one that fleetswitch gives, and belongs to no Host here"
        return reason, f"another fleet's, or its Host was deleted; to add it: {add}"
    return "its datapath id belongs to no Host", f"to add it: {add}; else, on it: ovs-vsctl del-controller BRIDGE"
