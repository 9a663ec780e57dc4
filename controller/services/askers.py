"""Where a question came from, and the way back there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from controller.desired import Desired
from controller.errors import PacketError
from controller.openflow.actions import Action, Resubmit, encode_actions
from controller.openflow.decode import PacketIn
from controller.openflow.messages import packet_out
from controller.pipeline.actions import load
from controller.pipeline.fields import OUT, SEGMENT, SOURCE, Source


class Vnic(NamedTuple):
    """A vNIC where it is now; its Port."""

    host: str
    ofport: int
    port: str


@dataclass(frozen=True, slots=True)
class Asker:
    """A vNIC, by its host and OpenFlow port, and the segment that it asked in; its Port, and that one's network."""

    host: str
    ofport: int
    segment: int
    port: str
    network: str

    @property
    def vnic(self) -> Vnic:
        """The vNIC, whichever segment it asks in."""
        return Vnic(self.host, self.ofport, self.port)


def asker_of(desired: Desired, host: str, packet: PacketIn) -> Asker:
    """Who sent a packet that the host's switch gave us. Raises OpenFlowError, PacketError."""
    fields = packet.fields()
    ofport, segment = fields.get("in_port", 0), (fields.get("reg0", 0) & SEGMENT.mask) >> SEGMENT.start
    found = desired.vnic_at(host, ofport)
    if found is None or found[1].network is None:
        raise PacketError(f"no vNIC is known at OpenFlow port {ofport}")
    return Asker(host, ofport, segment, found[0], found[1].network)


def is_there(desired: Desired, asker: Asker) -> bool:
    """Whether its place is still nobody else's: what was asked a while ago is answered to nobody else."""
    found = desired.vnic_at(asker.host, asker.ofport)
    return found is not None and found[0] == asker.port


def answer_to(asker: Asker, frame: bytes, deliver: int) -> bytes:
    """The message that hands a frame to the vNIC and to nobody else, whatever its destination; ``deliver`` is the
    number of the table that does."""
    way: list[Action] = [load(SEGMENT, asker.segment), load(SOURCE, Source.SWITCH), load(OUT, asker.ofport)]
    return packet_out(frame, encode_actions([*way, Resubmit(deliver)]))
