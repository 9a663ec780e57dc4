"""Who asks: the vNIC that a packet came from, and the way back to it."""

from __future__ import annotations

from dataclasses import dataclass

from controller.desired import Desired
from controller.errors import PacketError
from controller.openflow.actions import Action, Resubmit, encode_actions
from controller.openflow.decode import PacketIn
from controller.openflow.messages import packet_out
from controller.pipeline.actions import load
from controller.pipeline.fields import OUT, SEGMENT, SOURCE, Source


@dataclass(frozen=True, slots=True)
class Asker:
    """Where a question came from: a vNIC, by its host and OpenFlow port, and the segment that it asked in."""

    host: str
    ofport: int
    segment: int
    port: str
    network: str

    @property
    def vnic(self) -> tuple[str, int]:
        """The vNIC, whatever it asks in."""
        return self.host, self.ofport

    def told(self, frame: bytes, deliver: int) -> bytes:
        """The message by which the host's switch hands the frame to this vNIC and to nobody else, whatever its
        destination. ``deliver`` is the number of the table that does."""
        way: list[Action] = [load(SEGMENT, self.segment), load(SOURCE, Source.SWITCH), load(OUT, self.ofport)]
        return packet_out(frame, encode_actions([*way, Resubmit(deliver)]))


def who_asks(desired: Desired, host: str, packet: PacketIn) -> Asker:
    """The vNIC that a packet of a host's switch is from. Raises OpenFlowError, PacketError."""
    fields = packet.fields()
    ofport, segment = fields.get("in_port", 0), (fields.get("reg0", 0) & SEGMENT.mask) >> SEGMENT.start
    places = ((n, s) for n, s in desired.statuses.items() if s.state == "active" and s.ofport == ofport)
    name, network = next(((n, s.network) for n, s in places if s.host == host), ("", None))
    if network is None:
        raise PacketError(f"no vNIC is known at OpenFlow port {ofport}")
    return Asker(host, ofport, segment, name, network)
