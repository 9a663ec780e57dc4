"""What is a claim of an address, and that no bytes of a guest's do harm."""

from __future__ import annotations

import random
from ipaddress import IPv4Address, IPv6Address

import pytest

from topology.claims import Claim, read_claim

MAC, OTHER = bytes.fromhex("525400000001"), bytes.fromhex("525400000002")
ALL = b"\xff" * 6
GLOBAL, TARGET, NONE = "fd00::1", "fd00::2", "::"


def arp(operation: int, sender: str, target: str = "10.0.0.9", sha: bytes = MAC) -> bytes:
    fixed = bytes.fromhex("08060001080006040000")
    body = sha + IPv4Address(sender).packed + bytes(6) + IPv4Address(target).packed
    return ALL + MAC + fixed[:-1] + bytes([operation]) + body


def nd(kind: int, source: str, target: str, hops: int = 255, header: int = 58) -> bytes:
    packet = b"\x60\0\0\0\0\x18" + bytes([header, hops]) + IPv6Address(source).packed + IPv6Address("ff02::1").packed
    return ALL + MAC + b"\x86\xdd" + packet + bytes([kind, 0, 0, 0, 0, 0, 0, 0]) + IPv6Address(target).packed


CLAIMS = [
    (arp(1, "10.0.0.1"), "10.0.0.1"), (arp(2, "10.0.0.1"), "10.0.0.1"), (arp(1, "10.0.0.1", "10.0.0.1"), "10.0.0.1"),
    (nd(135, GLOBAL, TARGET), GLOBAL), (nd(135, NONE, TARGET), TARGET), (nd(136, GLOBAL, TARGET), TARGET),
    (nd(135, "fe80::1", TARGET), "fe80::1"),
]  # fmt: skip


@pytest.mark.parametrize(("frame", "address"), CLAIMS)
def test_who_speaks_of_itself_claims(frame: bytes, address: str) -> None:
    assert read_claim(frame) == Claim("52:54:00:00:00:01", address)
    assert read_claim(frame + bytes(500)) == read_claim(frame)


@pytest.mark.parametrize("frame", [
    arp(1, "0.0.0.0", "10.0.0.1"), arp(1, "224.0.0.1"), arp(1, "255.255.255.255"), arp(1, "127.0.0.1"),
    arp(3, "10.0.0.1"), arp(1, "10.0.0.1", sha=OTHER), nd(136, GLOBAL, "ff02::1"), nd(136, GLOBAL, "::1"),
    nd(135, NONE, NONE), nd(136, GLOBAL, NONE), nd(133, GLOBAL, TARGET), nd(136, GLOBAL, TARGET, hops=254),
    nd(136, GLOBAL, TARGET, header=44), ALL + MAC + b"\x08\x00" + bytes(60), b"",
])  # fmt: skip
def test_what_claims_nothing(frame: bytes) -> None:
    assert read_claim(frame) is None


def test_what_was_cut_off_or_is_noise_claims_nothing_and_harms_nobody() -> None:
    for frame, _ in CLAIMS:
        for size in range(len(frame)):
            assert read_claim(frame[:size]) is None
    choose = random.Random(5)
    for _ in range(3000):
        noise = bytearray(choose.choice(CLAIMS)[0])
        for _ in range(choose.randrange(1, 9)):
            noise[choose.randrange(len(noise))] = choose.randrange(256)
        read_claim(bytes(noise[: choose.randrange(len(noise) + 1)]))
