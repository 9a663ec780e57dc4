"""One switch's meters: what each vNIC may ask of the controller, and how many connections it may begin; added before
the flows that need them.

A meter is named by the OpenFlow port of its vNIC, or by a number of pipeline/ports.py that no port has. Meters are no
part of a bundle: Open vSwitch would commit the rest of one without the meter that it refused.
"""

from __future__ import annotations

import struct
from collections.abc import Collection

from controller.openflow.connection import Connection
from controller.openflow.decode_groups import decode_meters
from controller.openflow.messages import (
    ALL_METERS,
    MeterCommand,
    Multipart,
    barrier_request,
    meter_mod,
    multipart_request,
)
from controller.pipeline.ports import FORWARDED

RATE, BURST = 20, 40  # packets a second, and at once, that a vNIC may ask
# Connections a second, and at once, that a vNIC may begin; and all machines outside together by port forwards. With
# Open vSwitch's own timeouts one that nobody answers is forgotten after 60 s (ovs-vswitchd.conf.db(5),
# CT_Timeout_Policy): so many of a vNIC are 32,000, of those that the tracker has room for 1,048,576.
CONNECTIONS, CONNECTIONS_BURST = 500, 2000
FORWARDED_RATE, FORWARDED_BURST = 2000, 4000
_SECONDS = 10.0


def size(number: int) -> tuple[int, int]:
    """Packets a second, and at once, that the meter of this number lets through."""
    if number == FORWARDED:
        return FORWARDED_RATE, FORWARDED_BURST
    return (CONNECTIONS, CONNECTIONS_BURST) if number > FORWARDED else (RATE, BURST)


class Meters:
    """Which meters the switch of one connection has. Everything on the loop."""

    def __init__(self) -> None:
        self._has: set[int] | None = None

    def distrust(self) -> None:
        """Somebody else may have changed them."""
        self._has = None

    async def ensure(self, connection: Connection, wanted: Collection[int]) -> None:
        """Return when the switch has these. Raises OpenFlowError."""
        if not wanted:
            return
        if self._has is None:
            every = multipart_request(Multipart.METER_CONFIG, struct.pack("!I4x", ALL_METERS))
            self._has = {meter.meter_id for meter in decode_meters(await connection.multipart(every, _SECONDS))}
        missing = set(wanted) - self._has
        for number in sorted(missing):
            rate, burst = size(number)
            connection.send(meter_mod(MeterCommand.ADD, number, rate=rate, burst=burst, pktps=True))
        if missing:
            await connection.request(barrier_request(), _SECONDS)
            self._has |= missing

    def drop(self, connection: Connection, wanted: Collection[int]) -> None:
        """Those that no flow needs any more go."""
        for number in (self._has or set()) - set(wanted):
            connection.send(meter_mod(MeterCommand.DELETE, number))
        if self._has is not None:
            self._has &= set(wanted)
