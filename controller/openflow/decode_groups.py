"""Groups and meters of a switch as values (OpenFlow 1.5.1 §7.3.5.6 to §7.3.5.14). Strict and bounded."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from controller.openflow.actions import Action, join_text
from controller.openflow.decode_flow import decode_actions
from controller.openflow.names import PLAIN, Names
from controller.openflow.wire import need, strict, tlvs

_KINDS = ("all", "select", "indirect", "ff")  # in ovs-ofctl's words
_DESC = struct.Struct("!HBxIH6x")
_STATS = struct.Struct("!H2xII4xQQII")
_METER = struct.Struct("!HHI")
_BAND = struct.Struct("!HHII4x")
_METER_STATS = struct.Struct("!IH6xIQQII")
_KBPS, _PKTPS, _BURST = 1, 2, 4
_DROP = 1


@dataclass(frozen=True, slots=True)
class BucketDesc:
    """One bucket; ``weight`` matters for ``select``, ``watch_port`` for ``ff``."""

    bucket_id: int
    actions: tuple[Action, ...]
    weight: int | None = None
    watch_port: int | None = None

    def text(self, names: Names = PLAIN) -> str:
        """As ovs-ofctl takes it."""
        parts = [f"bucket=bucket_id:{self.bucket_id}"]
        if self.weight is not None:
            parts.append(f"weight:{self.weight}")
        if self.watch_port is not None:
            parts.append(f"watch_port:{names.port(self.watch_port)}")
        return ",".join([*parts, f"actions={join_text(self.actions, names) or 'drop'}"])


@dataclass(frozen=True, slots=True)
class GroupDesc:
    """One group of a switch."""

    group_id: int
    kind: str
    buckets: tuple[BucketDesc, ...]

    def text(self, names: Names = PLAIN) -> str:
        """As ovs-ofctl takes it."""
        return ",".join([f"group_id={self.group_id},type={self.kind}", *(b.text(names) for b in self.buckets)])


@dataclass(frozen=True, slots=True)
class Band:
    """One band of a meter: ``rate`` in kbit/s or packets/s, ``burst`` in kbit or packets, 0 where none is set."""

    kind: str
    rate: int
    burst: int


@dataclass(frozen=True, slots=True)
class MeterDesc:
    """One meter of a switch; ``unit`` is ``kbps`` or ``pktps``."""

    meter_id: int
    unit: str
    burst: bool
    bands: tuple[Band, ...]

    def text(self) -> str:
        """As ovs-ofctl takes it."""
        head = f"meter={self.meter_id},{self.unit}" + (",burst" if self.burst else "")
        bands = [
            f"type={band.kind},rate={band.rate}" + (f",burst_size={band.burst}" if band.burst else "")
            for band in self.bands
        ]
        return ",".join([f"{head},stats,bands={bands[0]}" if bands else head, *bands[1:]])


@dataclass(frozen=True, slots=True)
class Counted:
    """What went through a group or a meter; ``users`` are the flows and groups that name it, ``dropped`` packets that
    a meter's bands took out."""

    packets: int
    bytes: int
    users: int
    duration_s: float
    dropped: int = 0


@strict
def decode_groups(body: bytes) -> list[GroupDesc]:
    """Every group of a group-description reply, by number."""
    found = []
    for entry in _entries(body, 0, "group"):
        size, kind, group_id, buckets = _DESC.unpack_from(entry, 0)
        need(kind < len(_KINDS) and 16 + buckets <= size, f"group {group_id} of type {kind}")
        found.append(GroupDesc(group_id, _KINDS[kind], tuple(_buckets(entry[16 : 16 + buckets]))))
    return sorted(found, key=lambda group: group.group_id)


@strict
def decode_group_stats(body: bytes) -> Mapping[int, Counted]:
    """The counters of every group, by its number."""
    found = {}
    for entry in _entries(body, 0, "group stats"):
        _, group_id, users, packets, octets, seconds, nanoseconds = _STATS.unpack_from(entry, 0)
        found[group_id] = Counted(packets, octets, users, seconds + nanoseconds / 1e9)
    return found


@strict
def decode_meters(body: bytes) -> list[MeterDesc]:
    """Every meter of a meter-description reply, by number."""
    found = []
    for entry in _entries(body, 0, "meter"):
        size, flags, meter_id = _METER.unpack_from(entry, 0)
        bands = []
        for kind, begin, stop in tlvs(entry, 8, size, padded=False, what="meter bands"):
            need(stop - begin >= 16, f"meter band of {stop - begin} bytes")
            _, _, rate, burst = _BAND.unpack_from(entry, begin)
            bands.append(Band("drop" if kind == _DROP else f"type {kind}", rate, burst if flags & _BURST else 0))
        unit = "pktps" if flags & _PKTPS else "kbps"
        found.append(MeterDesc(meter_id, unit, bool(flags & _BURST), tuple(bands)))
    return sorted(found, key=lambda meter: meter.meter_id)


@strict
def decode_meter_stats(body: bytes) -> Mapping[int, Counted]:
    """The counters of every meter, by its number."""
    found = {}
    for entry in _entries(body, 4, "meter stats"):
        meter_id, size, users, packets, octets, seconds, nanoseconds = _METER_STATS.unpack_from(entry, 0)
        need((size - 40) % 16 == 0, f"meter stats of length {size}")
        dropped = sum(struct.unpack_from("!Q", entry, offset)[0] for offset in range(40, size, 16))
        found[meter_id] = Counted(packets, octets, users, seconds + nanoseconds / 1e9, dropped)
    return found


def _entries(body: bytes, at: int, what: str) -> Iterator[bytes]:
    """Elements of a reply, whose length stands ``at`` bytes into each."""
    offset = 0
    while offset < len(body):
        need(len(body) - offset >= at + 2, f"{what} is cut short")
        (size,) = struct.unpack_from("!H", body, offset + at)
        need(8 <= size <= len(body) - offset, f"{what} of length {size}")
        yield body[offset : offset + size]
        offset += size


def _buckets(data: bytes) -> Iterator[BucketDesc]:
    for entry in _entries(data, 0, "bucket"):
        size, actions, bucket_id = struct.unpack_from("!HHI", entry, 0)
        need(8 + actions <= size, f"bucket of length {size}")
        weight = watch_port = None
        for kind, begin, stop in tlvs(entry, 8 + actions, size, padded=False, what="bucket properties"):
            if kind == 0 and stop - begin >= 6:
                (weight,) = struct.unpack_from("!H", entry, begin + 4)
            if kind == 1 and stop - begin >= 8:
                (watch_port,) = struct.unpack_from("!I", entry, begin + 4)
        yield BucketDesc(bucket_id, decode_actions(entry, 8, 8 + actions), weight, watch_port)
