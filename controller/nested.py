"""Who is behind a learning vNIC goes with it when its guest migrates, and need not speak to be found in the new place.

A switch knows them by what it has learned, and forgets that with the vNIC. While a guest is being copied, its switch is
asked who they are. Once it has moved, a RARP of each goes into its new switch as if the vNIC had sent it there, as QEMU
announces the guest itself (net/announce.c): switches, ours and physical ones, learn by themselves where they are now.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Iterable, Iterator, Mapping

from controller.agent import HostAgent
from controller.errors import FleetError
from controller.fabric import Fabric
from controller.model.port import Incoming, PortStatus
from controller.openflow.actions import Output, encode_actions
from controller.openflow.decode import scan_flows
from controller.openflow.decode_flow import decode_flow_desc
from controller.openflow.messages import flow_desc_request, packet_out
from controller.pipeline.cookies import behind_port, learned_of
from controller.views import PortView

log = logging.getLogger(__name__)

MOST = 256  # behind a vNIC: each is heard by every host and machine of its segment
_ASK_SECONDS = 0.25  # a small question, asked for the seconds of a copy
_ROUNDS = (0.0, 0.3, 1.0)  # seconds of pause before each: what is first sent into a tunnel may be lost
_AT_ONCE, _BREATH_SECONDS = 32, 0.02
_TABLE = 0xFFFFFFF9  # OFPP_TABLE: as any frame that comes in (OpenFlow 1.5.1, 7.2.1)
_RARP = 0x8035
_BROADCAST = b"\xff" * 6

_Copy = tuple[str, Incoming]
"""A vNIC, and where it is being copied to."""


class Nested:
    """Everything on the loop. ``table`` is where switches learn MACs, ``fabric`` how the vNICs are switched."""

    def __init__(self, table: int, fabric: Fabric, agents: Mapping[str, HostAgent]) -> None:
        self._table = table
        self._fabric = fabric
        self._agents = agents
        self._statuses: Mapping[str, PortStatus] = {}
        self._tasks: dict[_Copy, asyncio.Task[None]] = {}

    def changed(self, names: Iterable[str], statuses: Mapping[str, PortStatus]) -> None:
        """The rows of these vNICs are what ``statuses`` says now, and the fabric knows it."""
        self._statuses = statuses
        for name in names:
            status = statuses.get(name)
            if status is None or status.incoming is None or status.host is None or status.ofport is None:
                continue
            copy = name, status.incoming
            old = self._fabric.port_at(status.host, status.ofport)
            if old is not None and old.name == name and old.mac_limit and copy not in self._tasks:
                task = self._follow(copy, status.host, status.ofport)
                self._tasks[copy] = asyncio.get_running_loop().create_task(task, name=f"behind {name}")

    async def stop(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _follow(self, copy: _Copy, host: str, ofport: int) -> None:
        name, place = copy
        learned = b""
        try:
            while self._is_copied(copy):
                found = await self._learned(host, ofport)
                if found is not None and self._is_copied(copy):  # otherwise the old switch may have forgotten them
                    learned = found
                await asyncio.sleep(_ASK_SECONDS)
            status = self._statuses.get(name)
            if learned and status is not None and (status.host, status.ofport) == (place.host, place.ofport):
                await self._announce(name, place, learned)
        except Exception:
            log.exception("%s: who is behind it is found on %s when they send", name, place.host)
        finally:
            del self._tasks[copy]

    def _is_copied(self, copy: _Copy) -> bool:
        status = self._statuses.get(copy[0])
        return status is not None and status.incoming == copy[1]

    async def _learned(self, host: str, ofport: int) -> bytes | None:
        """Flows that the switch has learned from the vNIC, as it describes them; None when it does not say."""
        agent = self._agents.get(host)
        if agent is None:
            return None
        try:
            return await agent.switch.read(flow_desc_request(self._table, *behind_port(ofport)))
        except FleetError as error:
            log.debug("%s", error)
            return None

    async def _announce(self, name: str, place: Incoming, learned: bytes) -> None:
        known = _macs(learned)
        count = len(scan_flows(learned))
        if count > len(known):
            log.warning("%s: %d of the %d behind it are announced on %s; the others are found when they send",
                        name, len(known), count, place.host)  # fmt: skip
        for pause in _ROUNDS:
            await asyncio.sleep(pause)
            for number, (segment, mac) in enumerate(known, start=1):
                port, agent = self._fabric.port_at(place.host, place.ofport), self._agents.get(place.host)
                if port is None or port.name != name or agent is None:
                    return
                for frame in _frames(port, segment, mac):
                    agent.switch.send(packet_out(frame, encode_actions([Output(_TABLE)]), place.ofport))
                if number % _AT_ONCE == 0:
                    await asyncio.sleep(_BREATH_SECONDS)
        log.info("%s: the %d behind it were announced on %s", name, len(known), place.host)


def _macs(learned: bytes) -> list[tuple[int, bytes]]:
    """Segment and MAC of those that these flows lead to; of the first that are announced."""
    size = 0
    for _ in range(min(MOST, len(scan_flows(learned)))):
        size += int.from_bytes(learned[size : size + 2], "big")
    return [
        (learned_of(flow.cookie)[0], value.to_bytes(6, "big"))
        for flow in decode_flow_desc(learned[:size])
        for field, value, _ in flow.match.terms
        if field.name == "eth_dst"
    ]


def _frames(port: PortView, segment: int, mac: bytes) -> Iterator[bytes]:
    """The RARP (RFC 903) by which somebody behind the vNIC says in the segment where he is."""
    rarp = struct.pack("!HHHBBH6s4x6s4x", _RARP, 1, 0x0800, 6, 4, 3, mac, mac)
    for part in port.memberships:
        if part.segment == segment:
            tag = b"" if part.untagged_in else struct.pack("!HH", 0x8100, part.tag_in or 0)
            yield (_BROADCAST + mac + tag + rarp).ljust(60, b"\0")
