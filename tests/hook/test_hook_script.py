"""The hook under several shells, on a real ovsdb-server: what it reports and refuses, and that it holds nobody up."""

from __future__ import annotations

import random
import signal
import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hook_host import CREATED, DELETED, MAC, SHELLS, START, VM, HookHost, domain, eventually, hook_data, hook_host
from hook_host import interface as nic

from topology.hook import hook_script
from topology.hook_reports import HookReader, Report, port_key


@pytest.fixture
def host(tmp_path: Path) -> Iterator[HookHost]:
    with hook_host(tmp_path) as found:
        yield found


def passed(done: subprocess.CompletedProcess[str]) -> bool:
    """Whether libvirt goes on, and has nothing to take for XML."""
    return (done.returncode, done.stdout, done.stderr) == (0, "", "")


def told(host: HookHost) -> Report | None:
    """What the controller makes of vnet0."""
    return HookReader().read("kvm1", {"vnet0": host.row()}, host.hook()).get("vnet0")


@pytest.mark.parametrize("shell", SHELLS)
def test_a_vnic_is_reported_when_it_is_plugged_in_and_forgotten_when_it_goes(host: HookHost, shell: str) -> None:
    assert passed(host.call(CREATED, hook_data("db"), shell=shell))
    assert host.mark() == "1 no"
    assert list(host.hook().ports) == [port_key(VM, MAC)]
    report = told(host)
    assert report is not None
    assert report.xml is None
    assert report.socket is not None
    assert (report.vm, report.socket.network, report.socket.portgroup) == ("web1", "web", "db")
    assert passed(host.call(DELETED, hook_data("db"), shell=shell))
    assert host.hook().ports == {}
    assert told(host) is None


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("operation", ["start", "reconnect"])
def test_a_guests_xml_stands_with_its_interfaces(host: HookHost, shell: str, operation: str) -> None:
    host.vsctl("add-port", "br-int", "vnet1", "--", "add-br", "other", "--", "add-port", "other", "vnet2")
    host.vsctl("add-port", "br-int", "vda")
    xml = domain(nic(), nic("vnet1", mac="52:54:00:00:00:02"), nic("vnet2", "other"), nic("gone"))
    assert passed(host.call(("web1", operation, "begin", "-"), xml, shell=shell))
    report = told(host)
    assert report is not None
    assert report.xml is not None
    assert (report.vm, report.xml.network, report.xml.tap) == ("web1", "web", "vnet0")
    assert host.vsctl("get", "Interface", "vnet1", "external_ids") != "{}"
    for name in ("vnet2", "vda"):
        assert host.vsctl("get", "Interface", name, "external_ids") == "{}", "of another bridge, or of a disk's name"
    assert host.vsctl("get", "Bridge", "other", "external_ids") == "{}"


def test_it_says_that_it_is_there_and_whether_it_refuses(host: HookHost) -> None:
    assert host.call(("-", "mark"), "").returncode == 0
    assert host.mark() == "1 no"
    assert host.call(("-", "mark"), "", refuse=True).returncode == 0
    assert host.mark() == "1 refuse"
    host.vsctl("del-br", "br-int")
    done = host.call(("-", "mark"), "")
    assert done.returncode != 0, "whoever installs it is told"
    assert "br-int" in done.stderr


@pytest.mark.parametrize(
    ("argv", "xml"),
    [
        *((("web1", operation, "begin", "-"), domain()) for operation in ("prepare", "started", "stopped", "release")),
        *((("web", operation, "begin", "-"), hook_data()) for operation in ("start", "started", "updated", "stopped")),
        (CREATED, hook_data(bridge="virbr0")),
        (CREATED, hook_data(bridge="br-int2")),
        (CREATED, ""),
        (START, "no XML\x01"),
        (CREATED, "<hookData>\n  <networkport>\n"),
        ((), ""),
    ],
)
def test_what_does_not_concern_it_passes_without_a_report(host: HookHost, argv: tuple[str, ...], xml: str) -> None:
    host.connect("web:default")
    assert passed(host.call(argv, xml, refuse=True))
    assert host.hook().ports == {}
    assert host.row().report is None


def test_what_is_too_long_to_report_passes(host: HookHost) -> None:
    noise = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=200_000))
    assert passed(host.call(START, domain(more=f"  <title>{noise}</title>\n")))
    assert host.mark() == "1 no"
    assert host.row().report is None
    assert passed(host.call(CREATED, hook_data("x" * 5 + noise)))
    assert host.hook().ports == {}


@pytest.mark.parametrize("refuse", [False, True])
def test_without_a_bridge_a_server_or_the_tools_everybody_passes(host: HookHost, refuse: bool) -> None:
    host.vsctl("del-br", "br-int")
    assert passed(host.call(CREATED, hook_data("nosuch"), refuse=refuse))
    assert passed(host.call(START, domain(), refuse=refuse))
    host.server.kill()
    assert passed(host.call(CREATED, hook_data("nosuch"), refuse=refuse))
    assert passed(host.call(START, domain(), refuse=refuse))
    for tool in ("ovs-vsctl", "gzip", "base64", "timeout", "sed"):
        lost = host.folder / f"without-{tool}"
        lost.mkdir(exist_ok=True)
        (lost / tool).write_text("#!/bin/sh\necho broken\nexit 1\n")
        (lost / tool).chmod(0o755)
        assert passed(host.call(CREATED, hook_data("nosuch"), refuse=refuse, path=f"{lost}:/usr/bin:/bin"))
        assert passed(host.call(START, domain(), refuse=refuse, path=f"{lost}:/usr/bin:/bin"))


PROMISE = 0.2  # seconds that a guest waits at most, on a host that is not overloaded


def median_call(host: HookHost, argv: tuple[str, ...], refuse: bool = False, path: str | None = None) -> float:
    """Seconds that the hook takes, beyond what a shell that does nothing takes here and now. Each call passes."""
    xml = domain() if argv == START else hook_data("nosuch")
    took = []
    for _ in range(7):
        begun = time.monotonic()
        assert passed(host.call(("-", "none"), ""))
        idle = time.monotonic() - begun
        assert passed(host.call(argv, xml, refuse=refuse, patient=False, path=path))
        took.append(time.monotonic() - begun - 2 * idle)
    return statistics.median(took)


@pytest.mark.parametrize(("argv", "refuse"), [(CREATED, False), (CREATED, True), (DELETED, True), (START, False)])
def test_a_server_that_hangs_holds_nobody_up(host: HookHost, argv: tuple[str, ...], refuse: bool) -> None:
    host.connect("web:default")
    host.server.signal(signal.SIGSTOP)
    try:
        assert median_call(host, argv, refuse) < PROMISE
    finally:
        host.server.signal(signal.SIGCONT)


@pytest.mark.parametrize("tool", ["sed", "gzip", "base64", "ovs-vsctl"])
def test_a_tool_that_hangs_holds_nobody_up(host: HookHost, tool: str) -> None:
    (host.folder / tool).write_text("#!/bin/sh\nsleep 8\n")
    (host.folder / tool).chmod(0o755)
    for argv in (START, CREATED):
        assert median_call(host, argv, path=f"{host.folder}:/usr/bin:/bin") < PROMISE


@pytest.mark.parametrize("shell", SHELLS)
def test_what_was_not_reported_in_time_is_reported_later(host: HookHost, shell: str) -> None:
    host.server.signal(signal.SIGSTOP)
    assert passed(host.call(CREATED, hook_data("db"), shell=shell, patient=False))
    assert passed(host.call(START, domain(), shell=shell, patient=False))
    host.server.signal(signal.SIGCONT)
    eventually(lambda: host.hook().ports and host.row().report)


@pytest.mark.parametrize("shell", SHELLS)
def test_an_unknown_portgroup_is_refused_with_what_there_is(host: HookHost, shell: str) -> None:
    host.vsctl("del-port", "vnet0")
    host.connect("lan:nosuch", "web:default", "web:db", "webb:nosuch")
    done = host.call(CREATED, hook_data("nosuch"), refuse=True, shell=shell)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"fleetswitch: vNIC {MAC}: network web has no portgroup nosuch; it has: default db\n"


@pytest.mark.parametrize("shell", SHELLS)
def test_an_unknown_network_on_the_bridge_is_refused(host: HookHost, shell: str) -> None:
    host.vsctl("del-port", "vnet0")
    host.connect("web:default", "web:db")
    done = host.call(("we", *CREATED[1:]), hook_data(network="we"), refuse=True, shell=shell)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"fleetswitch: vNIC {MAC}: there is no network we; see: fleetswitch get networks\n"


def test_it_refuses_nothing_that_is_known_and_nothing_unless_it_was_told_to(host: HookHost) -> None:
    host.vsctl("del-port", "vnet0")
    host.connect("web:default", "web:db")
    assert passed(host.call(CREATED, hook_data("db"), refuse=True))
    assert passed(host.call(CREATED, hook_data(), refuse=True)), "libvirt takes the network's own default"
    assert passed(host.call(CREATED, hook_data("nosuch")))
    assert passed(host.call(DELETED, hook_data("nosuch"), refuse=True))
    assert host.call(CREATED, hook_data("nosuch"), refuse=True).returncode == 1


def test_it_refuses_nothing_while_the_controller_is_away_or_has_not_spoken(host: HookHost) -> None:
    host.vsctl("del-port", "vnet0")
    assert passed(host.call(CREATED, hook_data("nosuch"), refuse=True)), "no controller"
    host.connect()
    assert passed(host.call(CREATED, hook_data("nosuch"), refuse=True)), "it has not said what there is"
    host.connect("web:default", connected=False)
    assert passed(host.call(CREATED, hook_data("nosuch"), refuse=True)), "it is away"
    host.vsctl(
        "add-br", "other", "--", "set-controller", "other", "tcp:192.0.2.8:6653", "--",
        "set", "Controller", "other", "is_connected=true",
    )  # fmt: skip
    assert passed(host.call(CREATED, hook_data("nosuch"), refuse=True)), "another bridge's is there"
    host.connect("web:default")
    assert host.call(CREATED, hook_data("nosuch"), refuse=True).returncode == 1


def test_a_vnic_that_is_plugged_in_already_is_not_refused(host: HookHost) -> None:
    """libvirtd says so of every vNIC when it starts again, and the guest runs."""
    host.connect("web:default")
    data = hook_data("nosuch")
    assert passed(host.call(CREATED, data, refuse=True))
    host.vsctl("del-port", "vnet0")
    assert host.call(CREATED, data, refuse=True).returncode == 1


@pytest.mark.parametrize("shell", SHELLS)
def test_names_that_a_shell_would_obey(host: HookHost, shell: str) -> None:
    host.connect("web:default")
    trap = host.folder / "trap"
    for word in (f"$(touch {trap})", f"`touch {trap}`", f";touch {trap};", f'" && touch {trap} "', "*", "-x", "\\n%s"):
        argv = (word, *CREATED[1:])
        assert host.call(argv, hook_data(word, network="web"), refuse=True, shell=shell).returncode in {0, 1}
        assert passed(host.call(CREATED, hook_data(bridge=word), refuse=True, shell=shell))
        assert passed(host.call((word, *START[1:]), domain(nic(word), nic(bridge=word)), shell=shell))
        assert passed(host.call(CREATED, hook_data(mac=word), refuse=True, shell=shell))
    assert not trap.exists()
    assert host.vsctl("list-ports", "br-int") == "vnet0"


def test_the_script_is_for_one_bridge() -> None:
    text = hook_script("br0", True)
    assert "\nBRIDGE=br0\n" in text
    assert "\nREFUSE=refuse\n" in text
    assert "ovs-vsctl remove Bridge br0 external_ids fleetswitch-hook" in text
    assert "\nREFUSE=no\n" in hook_script("br-int", False)
