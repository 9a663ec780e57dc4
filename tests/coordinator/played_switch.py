"""A switch at the other end of a connection: it keeps flows by table and cookie, and refuses what it is told to."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Sequence
from typing import cast

from controller.errors import OpenFlowError
from controller.openflow.connection import BundleRefused, Connection, Handlers
from controller.openflow.decode import FlowUpdate
from controller.openflow.messages import Multipart, Type, unbundled
from controller.switch import Switch

Identity = tuple[int, int]

_ADD, _DELETE = 0, 3  # OpenFlow 1.5, 7.3.4.2
_DROP = 100, bytes((0, 1, 0, 4, 0, 0, 0, 0)), b""  # everything, and nothing is done with it


async def at_once() -> None:
    """The numbers of the host's ports are known."""


class PlayedSwitch:
    """``refuses`` says which (table, cookie) it does not take; ``reads`` are the cookies and masks that were asked for.
    While ``answering`` is clear, nothing is answered."""

    peer = "192.0.2.1"
    peer_names: tuple[str, ...] | None = None

    def __init__(self) -> None:
        self.flows: set[Identity] = set()
        self.taken: set[Identity] = set()  # every flow that it ever took
        self.changed: dict[Identity, tuple[int, bytes, bytes]] = {}  # what somebody made of flows: as ``described``
        self._does: dict[Identity, tuple[int, bytes, bytes]] = {}
        self.handlers = Handlers()
        self.sent: list[bytes] = []  # what nobody waits for an answer to
        self.is_active = True
        self.refuses: Callable[[Identity], bool] = lambda flow: False
        self.reads: list[tuple[int, int]] = []
        self.told: list[int] = []  # how many flows each read was answered with
        self.answering = asyncio.Event()
        self.answering.set()
        self._xid = 0

    def connect(self, switch: Switch) -> None:
        self.is_active = True
        assert switch.accept(self.connection, lambda reason: None)

    @property
    def connection(self) -> Connection:
        return cast(Connection, self)

    def disconnect(self) -> None:
        self.close("it went away")

    def changed_by_somebody(self, *updates: FlowUpdate) -> None:
        self.handlers.flow_updates(self.connection, list(updates))

    # What a connection offers.

    def next_xid(self) -> int:
        self._xid += 1
        return self._xid

    def send(self, data: bytes) -> None:
        self.sent.append(data)

    async def request(self, data: bytes, within: float) -> bytes:
        await self._answer()
        return bytes((0, 3, 0xFF, 0xFF)) if data[1] == Type.GET_CONFIG_REQUEST else b""

    async def multipart(self, data: bytes, within: float) -> bytes:
        await self._answer()
        if int.from_bytes(data[8:10], "big") in {Multipart.PORT_DESC, Multipart.METER_CONFIG}:
            return b""
        cookie, mask = struct.unpack_from("!QQ", data, 32)  # after two headers, table, port and group
        self.reads.append((cookie, mask))
        found = [(table, c) for table, c in sorted(self.flows) if c & mask == cookie & mask]
        self.told.append(len(found))
        return b"".join(described(flow, *self._what(flow)) for flow in found)

    async def bundle(self, messages: Sequence[bytes], within: float) -> None:
        await self._answer()
        mods = [unbundled(data) for data in messages]
        wanted = [(data[25], (data[24], int.from_bytes(data[8:16], "big"))) for data in mods]
        failures = [
            (n, "bad match") for n, (command, flow) in enumerate(wanted) if command == _ADD and self.refuses(flow)
        ]
        if failures:
            raise BundleRefused(failures, "switch")
        self.taken |= {flow for command, flow in wanted if command == _ADD}
        for (command, flow), data in zip(wanted, mods, strict=True):
            self.changed.pop(flow, None)
            self._does[flow] = _does(data)
            assert command in {_ADD, _DELETE}
            (self.flows.add if command == _ADD else self.flows.discard)(flow)

    def abort(self, reason: str) -> None:
        self.close(reason)

    def close(self, reason: str) -> None:
        if self.is_active:
            self.is_active = False
            self.handlers.closed(self.connection, reason)

    def _what(self, flow: Identity) -> tuple[int, bytes, bytes]:
        return self.changed.get(flow) or self._does.get(flow, _DROP)

    async def _answer(self) -> None:
        await self.answering.wait()
        if not self.is_active:
            raise OpenFlowError("the connection is closed", where="switch")


def _does(flow_mod: bytes) -> tuple[int, bytes, bytes]:
    stop = 48 + (int.from_bytes(flow_mod[50:52], "big") + 7) // 8 * 8
    return int.from_bytes(flow_mod[30:32], "big"), flow_mod[48:stop], flow_mod[stop:]


def described(flow: Identity, priority: int, match: bytes, instructions: bytes) -> bytes:
    """A flow in a flow-description reply."""
    size = 24 + len(match) + 8 + len(instructions)
    return struct.pack("!H2xBxH8xQ", size, flow[0], priority, flow[1]) + match + b"\0\0\0\4" + bytes(4) + instructions
