"""A fleet for each module of tests: one lab at a time, taken away also when a test fails."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_fleet import Fleet, lab_name
from labkit import Lab

sys.path += [str(Path(__file__).parent.parent / room) for room in ("store", "services")]


@pytest.fixture(scope="module")
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    """Hosts with a controller; the module says how many (HOSTS, PHYSNETS), whether with libvirt (LIBVIRT), and how the
    lab's name begins (LAB)."""

    def wish(name: str, default: int) -> int:
        return int(getattr(request.module, name, default))

    name = lab_name(getattr(request.module, "LAB", "e"))
    with Lab(name, wish("HOSTS", 2), physnets=wish("PHYSNETS", 1), libvirt=bool(wish("LIBVIRT", 1))) as lab:
        found = Fleet(lab)
        found.controller.start()
        found.apply(lab.fleet_yaml())
        yield found
