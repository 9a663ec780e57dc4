"""A host whose libvirt the controller has no connection to: what its hook reports, refuses and never holds up."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest
from e2e_fleet import Fleet, eventually, silent, wait_ping
from labkit import Guest, LabError, LightGuest, Nic, domain, wait_for
from labkit.host import Host

pytestmark = pytest.mark.lab

HOSTS, LAB = 1, "hk"
NETWORKS = """
kind: Network
name: web
mode: isolated
portgroups: {db: {}, guard: {isolation: isolated}}
"""
HOOK = "/etc/libvirt/hooks/network.d/fleetswitch"
REAL, PLUGGED, FORGED, STRANGE = (f"52:54:00:92:00:{number:02x}" for number in (1, 2, 3, 4))


def install(fleet: Fleet, host: Host) -> None:
    """As its first lines say. On a busy machine it takes its time, so that it is not given up."""
    text = fleet.controller.fleetswitch("host", "hook", host.name, "--refuse")
    assert "SECONDS_AT_MOST=0.15\n" in text
    for kind in ("qemu", "network"):
        hook = host.dir / f"libvirt-etc/hooks/{kind}.d/fleetswitch"
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(text.replace("SECONDS_AT_MOST=0.15\n", "SECONDS_AT_MOST=20\n"))
        hook.chmod(0o755)
    host.restart("libvirtd")
    host.run([HOOK, "-", "mark"])


@pytest.fixture(scope="module")
def host(fleet: Fleet) -> Host:
    found = fleet.hosts["h1"]
    fleet.change_hosts(libvirt=None)
    fleet.apply(NETWORKS)
    found.wait_bridge("br-int")
    install(fleet, found)
    found.define_network(domain.network("web", ["db", "guard"]))
    eventually("its hook is seen", lambda: fleet.get("Host", "h1")["status"]["hook"])
    fleet.settle()
    return found


@pytest.fixture(scope="module")
def peer(fleet: Fleet, host: Host) -> LightGuest:
    return fleet.lights({"peer": ("h1", [Nic("web", None, addresses=("10.9.0.1/24",))])})["peer"]


@pytest.fixture(scope="module")
def real(fleet: Fleet, host: Host, peer: LightGuest) -> Iterator[Guest]:
    guest = fleet.real("h1", "real", [Nic("web", "db", REAL, ("10.9.0.9/24",), mtu=1450)])
    yield guest
    guest.remove()


def status(fleet: Fleet, mac: str) -> dict[str, object]:
    return dict(fleet.port_of(mac).get("status", {}))


def words(host: Host, mac: str) -> bool:
    """Whether the hook's word on where a vNIC was plugged in is there."""
    return f"-{mac}" in host.vsctl("get", "Bridge", "br-int", "external_ids")


def test_the_host_says_that_it_has_a_hook(fleet: Fleet, host: Host) -> None:
    found = fleet.get("Host", "h1")["status"]
    assert "libvirt" not in found
    assert found["hook"] == {"version": 1, "refuses": True, "reason": ""}
    line = fleet.controller.fleetswitch("host", "list").splitlines()[1]
    assert line.split()[3:5] == ["-", "refuses"]


def test_a_started_guest_is_switched_with_what_its_xml_says(fleet: Fleet, real: Guest, peer: LightGuest) -> None:
    fleet.wait_active([REAL])
    found = status(fleet, REAL)
    assert (found["vm"], found["vm_uuid"], found["portgroup"], found.get("reason")) == ("real", real.vm_id, "db", None)
    eventually("its XML is known", lambda: status(fleet, REAL).get("mtu") == 1450)
    wait_ping(peer, "10.9.0.9")


def test_a_vnic_that_a_running_guest_gets_is_switched_and_its_word_goes_with_it(
    fleet: Fleet, host: Host, real: Guest, peer: LightGuest
) -> None:
    real.attach(Nic("web", None, PLUGGED, ("10.9.0.10/24",), mtu=1450))
    fleet.wait_active([PLUGGED])
    found = status(fleet, PLUGGED)
    assert (found["vm"], found["portgroup"]) == ("real", "default")
    assert words(host, PLUGGED)
    wait_ping(peer, "10.9.0.10")
    real.detach(PLUGGED)
    eventually("its row is gone", lambda: not fleet.port_of(PLUGGED))
    eventually("so is the hook's word", lambda: not words(host, PLUGGED))


def test_a_forged_profile_is_found_out_when_the_guest_starts(fleet: Fleet, host: Host, peer: LightGuest) -> None:
    nic = Nic(None, None, FORGED, ("10.9.0.66/24",), bridge="br-int", profile_id="web:db", mtu=1450)
    forger = fleet.real("h1", "forger", [nic])
    try:
        eventually("a verdict", lambda: status(fleet, FORGED).get("state") == "quarantined")
        assert status(fleet, FORGED)["reason"] == "claims profile web:db, but its domain XML names no network"
        assert status(fleet, FORGED)["vm"] == "forger"
        assert silent(forger, "10.9.0.1")
    finally:
        forger.remove()
    eventually("its row is gone", lambda: not fleet.port_of(FORGED))


def test_a_forged_profile_of_a_running_guest_waits_for_a_word_that_nobody_says(fleet: Fleet, real: Guest) -> None:
    real.attach(Nic(None, None, FORGED, bridge="br-int", profile_id="web:db", dhcp=False))
    eventually("a verdict", lambda: status(fleet, FORGED))
    assert status(fleet, FORGED)["state"] == "pending"
    assert "the host's hook has not reported it" in str(status(fleet, FORGED)["reason"])
    real.host.restart("libvirtd")
    eventually("its XML is reported", lambda: status(fleet, FORGED).get("state") == "quarantined")
    assert "its domain XML names no network" in str(status(fleet, FORGED)["reason"])
    fleet.apply(f"{{kind: Port, name: forged, vm: real, mac: '{FORGED}', network: web, portgroup: db}}")
    fleet.wait_active([FORGED])
    real.detach(FORGED)
    fleet.delete([("Port", "forged")])
    eventually("its row is gone", lambda: not fleet.port_of(FORGED))


def test_a_misspelt_portgroup_is_refused_with_what_there_is(fleet: Fleet, host: Host, real: Guest) -> None:
    told = "network web has no portgroup nosuch; it has: default db guard"
    with pytest.raises(LabError, match=told):
        real.attach(Nic("web", "nosuch", STRANGE))
    strange = fleet.lab.define_guest("h1", "strange", [Nic("web", "nosuch", STRANGE)])
    try:
        with pytest.raises(LabError, match=f"vNIC {STRANGE}: {told}"):
            strange.start(wait=False)
        assert strange.state() == "shut off"
    finally:
        strange.remove()


def test_a_controller_that_hangs_refuses_nobody_for_long(fleet: Fleet, host: Host, real: Guest) -> None:
    """Open vSwitch finds out by its probe (5 s of silence, 5 s without an answer), and writes it down every 5 s."""
    nic = Nic("web", "nosuch", STRANGE, dhcp=False)
    process = fleet.controller.process()
    assert process is not None

    refusals: list[str] = []

    def passes() -> bool:
        try:
            real.attach(nic)
        except LabError as error:
            refusals.append(str(error))
            return False
        return True

    process.signal(signal.SIGSTOP)
    begun = time.monotonic()
    try:
        wait_for("it passes", passes, 60.0, every=0.5)
        print(f"refused for {time.monotonic() - begun:.1f} s")
    finally:
        process.signal(signal.SIGCONT)
    assert all("network web has no portgroup nosuch" in each for each in refusals)
    eventually("a verdict", lambda: status(fleet, STRANGE).get("state") == "quarantined")
    real.detach(STRANGE)
    eventually("its row is gone", lambda: not fleet.port_of(STRANGE))


def test_libvirtd_comes_back_and_nobody_is_refused_who_runs(fleet: Fleet, real: Guest, peer: LightGuest) -> None:
    fleet.apply(NETWORKS.replace("db: {}, ", ""))
    eventually("it is cut off", lambda: status(fleet, REAL).get("state") == "quarantined")
    real.host.vsctl("remove", "Interface", str(status(fleet, REAL)["tap"]), "external_ids", "fleetswitch-xml")
    real.host.restart("libvirtd")
    eventually("its XML is told again", lambda: "fleetswitch-xml" in real.host.vsctl(
        "get", "Interface", real.ports()[0], "external_ids"))  # fmt: skip
    assert real.state() == "running"
    fleet.apply(NETWORKS)
    fleet.wait_active([REAL])
    wait_ping(peer, "10.9.0.9")


def test_without_a_controller_everybody_starts_and_is_judged_when_it_comes_back(fleet: Fleet, host: Host) -> None:
    fleet.controller.stop(signal.SIGKILL)
    eventually(
        "the switch has noticed",
        lambda: "true" not in host.vsctl("--columns=is_connected", "--bare", "list", "Controller"),
    )
    guest = fleet.lab.define_guest("h1", "alone", [Nic("web", None, PLUGGED, mtu=1450), Nic("web", "nosuch", STRANGE)])
    try:
        guest.start(wait=False)
        assert guest.state() == "running"
        fleet.controller.start()
        eventually("a verdict", lambda: status(fleet, STRANGE).get("state") == "quarantined")
        assert "has no portgroup nosuch" in str(status(fleet, STRANGE)["reason"])
        fleet.wait_active([PLUGGED])
        assert status(fleet, PLUGGED)["vm"] == "alone"
    finally:
        guest.remove()


def test_words_on_vnics_that_never_came_or_are_gone_are_taken_away(fleet: Fleet, host: Host) -> None:
    """Of the guests that were refused and forged above, and of one that left while nothing could be written."""
    key = f"fleetswitch-port-{'0' * 8}-0000-4000-8000-{'0' * 12}-{STRANGE}"
    host.vsctl("set", "Bridge", "br-int", f'external_ids:"{key}"=lost')
    eventually("they are gone", lambda: not words(host, STRANGE) and not words(host, FORGED), timeout=60)


def test_without_its_mark_ovsdb_alone_is_believed_again(fleet: Fleet, host: Host) -> None:
    host.vsctl("remove", "Bridge", "br-int", "external_ids", "fleetswitch-hook")
    eventually("it has none", lambda: fleet.get("Host", "h1")["status"]["hook"] is None)
    told = "fleetswitch-networks"
    eventually("it is told nothing", lambda: told not in host.vsctl("get", "Bridge", "br-int", "external_ids"))
    host.run([HOOK, "-", "mark"])
    eventually("it is told again", lambda: told in host.vsctl("get", "Bridge", "br-int", "external_ids"))
