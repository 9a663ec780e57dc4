"""A name that nobody has is answered with one that is meant, however many there are, and at once."""

from __future__ import annotations

import difflib
import time

import pytest

from controller.errors import alike, no_such

FEW = ["backend", "lan", "storage"]
HOSTS = [f"kvm{number:03}" for number in range(400)]
PORTS = [f"00000000-0000-4000-8000-{guest:012}.52540000{guest:04x}" for guest in range(4000)]


@pytest.mark.parametrize(
    ("typed", "known", "meant"),
    [
        ("lann", FEW, "lan"),
        ("kvm0123", HOSTS, "kvm123"),
        ("vkm123", HOSTS, "kvm123"),
        ("kvm-123", HOSTS, "kvm123"),
        (PORTS[1234][:-1], PORTS, PORTS[1234]),
        (PORTS[1234][1:], PORTS, PORTS[1234]),
        ("x", HOSTS, None),
        ("x" * 100_000, ["x" * 90_000], None),
    ],
)
def test_a_guess_is_what_is_written_alike(typed: str, known: list[str], meant: str | None) -> None:
    assert alike(typed, known) == meant


def test_without_a_guess_some_are_named() -> None:
    assert no_such("Network", "x", iter(FEW)).remedy == "there are: backend, lan, storage"
    assert no_such("Host", "x", HOSTS).remedy == f"there are: {', '.join(HOSTS[:8])}"
    assert no_such("Host", "x", []).remedy == "there are: none"


def test_a_guess_among_thousands_takes_no_longer_than_one_among_a_few() -> None:
    typed = PORTS[1234][:-1] + "x"
    begun = time.process_time()
    assert difflib.get_close_matches(typed, PORTS[1000:1400], 1)
    among_few = time.process_time() - begun
    begun = time.process_time()
    assert alike(typed, PORTS)
    assert time.process_time() - begun < among_few
