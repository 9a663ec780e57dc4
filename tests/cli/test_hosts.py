"""host add and host remove: a Host from options, and what to type on it."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from click.testing import Result

from tests.api.fake_fleet import Served

Run = Callable[..., Result]
ADD = ("host", "add", "kvm01", "--ovsdb", "tcp:192.0.2.1:6640")


def test_a_host_from_options(run: Run, served: Served) -> None:
    result = run(*ADD, "--libvirt", "qemu+tls://kvm01/system", "--tunnel-ip", "192.0.2.1", "--underlay-mtu", "9000",
                 "--uplink", "phys1=ens224", "--uplink", "phys2=ens256")  # fmt: skip
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[:3] == [
        "Host kvm01 created", "on kvm01, as root:", "  ovs-vsctl set-manager ptcp:6640:192.0.2.1",
    ]  # fmt: skip
    assert "  systemctl enable --now libvirtd-tls.socket" in lines
    assert served.fleet.waits == []
    found = json.loads(run("get", "host", "kvm01", "-o", "json").stdout)
    assert found["uplinks"] == {"phys1": {"interface": "ens224"}, "phys2": {"interface": "ens256"}}
    assert (found["tunnel_ip"], found["underlay_mtu"]) == ("192.0.2.1", 9000)


@pytest.mark.parametrize(
    ("remote", "typed"),
    [
        ("ssl:[2001:db8::1]:6640", "ovs-vsctl set-manager pssl:6640:[2001:db8::1]"),
        ("unix:/run/db.sock", "ovs-vsctl set-manager punix:/run/db.sock"),
    ],
)
def test_what_to_type_goes_by_the_address(run: Run, remote: str, typed: str) -> None:
    result = run("host", "add", "kvm01", "--ovsdb", remote)
    assert f"  {typed}\n" in result.stdout
    assert ("set-ssl" in result.stdout) == remote.startswith("ssl:")


def test_dry_run_shows_it_and_changes_nothing(run: Run, served: Served) -> None:
    result = run(*ADD, "--dry-run")
    assert result.exit_code == 0
    assert "+ovsdb: tcp:192.0.2.1:6640" in result.stdout
    assert "set-manager" in result.stdout
    assert not served.fleet.rows


def test_waiting_comes_after_what_to_type(run: Run, served: Served) -> None:
    result = run(*ADD, "--wait", "5")
    assert result.exit_code == 0
    assert result.stderr == "confirmed by every switch\n"
    assert len(served.fleet.waits) == 1


def test_a_host_that_is_there_is_not_changed(run: Run, served: Served) -> None:
    assert run(*ADD).exit_code == 0
    result = run(*ADD, "--tunnel-ip", "192.0.2.9")
    assert result.exit_code == 1
    assert "Host kvm01: is in the fleet already (to change it: fleetswitch get host kvm01 -o yaml" in result.stderr
    assert served.fleet.rows["Host", "kvm01"][1] == 1


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("kvm01", "--ovsdb", "192.0.2.1"), 1, "error: Host kvm01: --ovsdb: '192.0.2.1' is no OVSDB remote"),
        (("kvm01", "--ovsdb", "unix:/x", "--tunnel-ip", "no"), 1, "error: Host kvm01: --tunnel-ip: "),
        (("kvm01", "--ovsdb", "unix:/x", "--uplink", "p1=a b"), 1, "error: Host kvm01: --uplink"),
        (("kvm 1", "--ovsdb", "unix:/x"), 1, "kvm 1"),
        (("kvm01", "--ovsdb", "unix:/x", "--uplink", "ens224"), 2, "write PHYSICAL_NETWORK=INTERFACE"),
        (("kvm01", "--ovsdb", "unix:/x", "--uplink", "p=a", "--uplink", "p=b"), 2, "is given twice"),
        (("kvm01",), 2, "--ovsdb"),
    ],
)
def test_what_is_wrong_is_named_by_its_option(run: Run, served: Served, words: str, code: int, said: str) -> None:
    result = run("host", "add", *words)
    assert result.exit_code == code
    assert said in result.stderr
    assert not served.fleet.rows


def test_what_is_wrong_with_the_fleet_is_named(run: Run) -> None:
    assert run(*ADD).exit_code == 0
    result = run("host", "add", "kvm02", "--ovsdb", "tcp:192.0.2.1:6640")
    assert result.exit_code == 1
    assert "Host kvm02: ovsdb: tcp:192.0.2.1:6640 is Host kvm01's already" in result.stderr


def test_a_host_is_removed(run: Run, served: Served) -> None:
    run(*ADD)
    assert "would be deleted" in run("host", "remove", "kvm01", "--dry-run").stdout
    result = run("host", "remove", "kvm01")
    assert result.stdout == "Host kvm01 deleted\n"
    assert "ovs-vsctl del-manager" in result.stderr
    assert not served.fleet.rows
    assert run("host", "remove", "kvm01").exit_code == 1
