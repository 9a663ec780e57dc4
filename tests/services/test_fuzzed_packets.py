"""Whatever a guest puts into the fields of its packets: they are decoded, or refused with the declared error, soon."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress

import pytest
from fuzzed import Guest, frames

from controller.errors import PacketError
from controller.services import (
    arp,
    datagrams,
    datagrams6,
    dhcp6_message,
    dhcp_message,
    dns_message,
    floating_errors,
    icmp_message,
    nd,
    router_advert,
    tcp,
)
from controller.services.icmp_message import Why

COUNT, SECONDS = 700, 60.0  # of the processor's time for all of them: far more than it takes
GUEST = Guest()


def told(frame: bytes) -> bytes:
    """As a router answers."""
    about = icmp_message.decode(frame)
    gateway = GUEST.gateway6 if about.source.version == 6 else GUEST.gateway
    return icmp_message.encode(about, GUEST.gateway_mac, gateway, Why.TIME_IS_OVER)


def of4(decode: Callable[[bytes], object]) -> Callable[[bytes], object]:
    return lambda frame: decode(datagrams.decode(frame).payload)


def of6(decode: Callable[[bytes], object]) -> Callable[[bytes], object]:
    return lambda frame: decode(datagrams6.decode(frame).payload)


DECODERS: dict[str, Callable[[bytes], object]] = {
    "arp": arp.decode,
    "nd": nd.decode,
    "advertisement?": nd.is_advertisement,
    "solicitation?": router_advert.is_solicitation,
    "port": datagrams.destination_port,
    "dhcp": of4(dhcp_message.decode),
    "dns": of4(dns_message.decode),
    "dhcp6": of6(dhcp6_message.decode),
    "dns6": of6(dns_message.decode),
    "icmp errors": told,
    "errors for floating addresses": lambda frame: floating_errors.translated(
        frame, GUEST.ip, "203.0.113.9", inward=False
    ),
    "tcp": tcp.refusal,
}


@pytest.mark.parametrize("seed", [1, 2])
def test_fuzzed_packets_are_decoded_or_refused(seed: int) -> None:
    def hangs(*_: object) -> None:
        raise AssertionError(f"a decoder does not come to an end: {name} of {frame.hex()}")

    decoded = dict.fromkeys(DECODERS, 0)
    name, frame = "", b""
    before = signal.signal(signal.SIGVTALRM, hangs)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        for frame in frames(GUEST, COUNT, seed):
            for name, decode in DECODERS.items():
                with suppress(PacketError):
                    decode(frame)
                    decoded[name] += 1
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    assert min(decoded.values()) > 0, f"hardly anything came as far as that: {decoded}"


def test_the_same_seed_makes_the_same_packets() -> None:
    assert frames(GUEST, 40, 5) == frames(GUEST, 40, 5)
    assert frames(GUEST, 40, 5) != frames(GUEST, 40, 6)
