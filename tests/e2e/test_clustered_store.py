"""The store on a RAFT cluster: its leader may die."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path

import pytest
from e2e_fleet import Fleet, lab_name, wait_ping
from labkit import Lab, Nic
from ovsdb_servers import cluster, leader

pytestmark = pytest.mark.lab


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def test_a_guest_that_comes_after_the_leader_was_killed_is_switched(tmp_path: Path) -> None:
    ports = free_ports(3)
    with cluster(tmp_path, 3, ports) as servers, Lab(lab_name("k"), 1, libvirt=False) as lab:
        fleet = Fleet(lab)
        fleet.controller.start("--store", ",".join(f"tcp:127.0.0.1:{port}" for port in ports))
        fleet.apply(lab.fleet_yaml())
        fleet.apply("{kind: Network, name: web, mode: isolated}")
        first = fleet.lights({"first": ("h1", [Nic("web", addresses=("10.9.0.1/24",))])})["first"]
        controller = fleet.controller.process()

        leader(servers).kill()
        fleet.lights({"late": ("h1", [Nic("web", addresses=("10.9.0.2/24",))])})
        wait_ping(first, "10.9.0.2")
        now = fleet.controller.process()
        assert controller is not None
        assert now is not None
        assert now.pid == controller.pid, "it went on, without a start"
