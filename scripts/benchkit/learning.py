"""A plain learning switch on our transport: ``python -m benchkit.learning PORT``, in a process of its own.

It does what os-ken's does (``learning_osken``): remembers behind which port each MAC is, and sends each packet back to
its switch, to that port or to all.
"""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict

from controller.openflow.actions import Output, encode_actions
from controller.openflow.connection import Connection, Handlers
from controller.openflow.decode import Features, PacketIn
from controller.openflow.listener import Listener
from controller.openflow.messages import packet_out

_FLOOD = 0xFFFFFFFB


class Learning:
    def __init__(self) -> None:
        self._ports: defaultdict[int, dict[bytes, int]] = defaultdict(dict)  # by datapath id and MAC
        self._ways: dict[int, bytes] = {}

    def accept(self, connection: Connection, features: Features) -> bool:
        connection.handlers = Handlers(packet_in=self._packet)
        return True

    def _packet(self, connection: Connection, packet: PacketIn) -> None:
        ports, frame, in_port = self._ports[connection.dpid], packet.data, packet.in_port
        ports[frame[6:12]] = in_port
        connection.send(packet_out(frame, self._way(ports.get(frame[:6], _FLOOD)), in_port))

    def _way(self, port: int) -> bytes:
        if port not in self._ways:
            self._ways[port] = encode_actions([Output(port)])
        return self._ways[port]


async def _serve(port: int) -> None:
    await Listener(f"tcp:127.0.0.1:{port}", Learning().accept).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
