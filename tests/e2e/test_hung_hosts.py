"""Twenty hosts, and on three of them something hangs: the other seventeen are driven as fast as before."""

from __future__ import annotations

import signal
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml
from e2e_fleet import Document, Fleet, eventually
from labkit import LightGuest, Nic, wait_for

pytestmark = pytest.mark.lab
HOSTS, LAB = 20, "w"

HANGS = {"h18": "libvirtd", "h19": "ovsdb-server", "h20": "ovs-vswitchd"}
ROUNDS = 5
CROWD = 20  # who asks a hung switch at once
PATIENCE = 60.0  # seconds for what takes one on an idle machine
NOISE = 1.0  # seconds by which a shared machine may spoil a time


@pytest.fixture(scope="module", autouse=True)
def guests(fleet: Fleet) -> list[LightGuest]:
    """A guest on each host, so that a change of their network concerns every switch."""
    fleet.apply(yaml.safe_dump_all(changed(0)))
    return list(fleet.lights({
        f"g-{host}": (host, [Nic("cloud", None, addresses=(f"10.9.0.{n}/24",))])
        for n, host in enumerate(fleet.hosts, start=1)
    }).values())  # fmt: skip


def changed(round_: int) -> list[Document]:
    """Two networks; each round differs from the one before in the flows and the libvirt networks of every host."""
    isolation = "isolated" if round_ % 2 else "none"
    groups = {"default": {"isolation": isolation}, f"group{round_ % 2}": {}}
    return [
        {"kind": "Network", "name": "cloud", "mode": "isolated", "portgroups": groups},
        {"kind": "Network", "name": "other", "mode": "isolated", "portgroups": {f"group{round_ % 2}": {}}},
    ]


def unconfirmed(fleet: Fleet) -> set[str]:
    """Who has not confirmed all that is wanted."""
    return {item["host"] for item in fleet.client.get("/wait", wait=0.0)["unconfirmed"]}


def converge(fleet: Fleet, round_: int, but: frozenset[str]) -> float:
    """Change flows and libvirt networks of every host; the seconds until all hosts but these have confirmed it."""
    begun = time.monotonic()
    fleet.client.post("/apply", changed(round_), wait=0.0)
    wait_for("the others", lambda: unconfirmed(fleet) <= but, PATIENCE, every=0.02)
    return time.monotonic() - begun


@pytest.fixture(scope="module")
def usual(fleet: Fleet, guests: list[LightGuest]) -> list[float]:
    """Seconds that changes take while all is well."""
    return [converge(fleet, round_, frozenset()) for round_ in range(1, ROUNDS + 1)]


@pytest.fixture
def hung(fleet: Fleet, usual: list[float]) -> Iterator[frozenset[str]]:
    """Three hosts with a daemon that is there and says nothing."""
    for name, daemon in HANGS.items():
        fleet.hosts[name].kill(daemon, signal.SIGSTOP)
    yield frozenset(HANGS)
    for name, daemon in HANGS.items():
        fleet.hosts[name].kill(daemon, signal.SIGCONT)
    eventually("all have confirmed", lambda: not unconfirmed(fleet), PATIENCE)


def test_the_others_converge_as_fast_as_before(fleet: Fleet, usual: list[float], hung: frozenset[str]) -> None:
    """Before it is noticed that they hang, and after."""
    unnoticed = [converge(fleet, round_, hung) for round_ in range(ROUNDS + 1, 2 * ROUNDS + 1)]
    assert unconfirmed(fleet) >= {"h18", "h20"}, "what concerns these two waits for them"
    eventually("they are seen to hang", lambda: all(
        any(part["state"] != "up" for part in parts(fleet, name).values()) for name in hung
    ), PATIENCE)  # fmt: skip
    noticed = [converge(fleet, round_, hung) for round_ in range(2 * ROUNDS + 1, 3 * ROUNDS + 1)]
    figures = {"usual": usual, "not noticed": unnoticed, "noticed": noticed}
    print({what: [round(seconds, 3) for seconds in times] for what, times in figures.items()})
    for times in (unnoticed, noticed):
        assert statistics.median(times) < 2 * statistics.median(usual) + NOISE


def parts(fleet: Fleet, name: str) -> dict[str, Document]:
    status = fleet.get("Host", name)["status"]
    return {part: status[part] for part in ("ovsdb", "openflow", "libvirt")}


def test_apply_names_who_has_not_confirmed_and_says_so_in_time(fleet: Fleet, hung: frozenset[str]) -> None:
    begun = time.monotonic()
    answer = fleet.client.post("/apply", changed(3 * ROUNDS + 1), wait=3.0)
    elapsed = time.monotonic() - begun
    missing = {(item["host"], item["what"]) for item in answer["unconfirmed"]}
    assert {("h18", "libvirt"), ("h20", "openflow")} <= missing
    assert {host for host, _ in missing} <= hung
    assert elapsed < 3.0 + 2 * NOISE


def test_reads_are_answered_while_others_wait_for_a_hung_switch(fleet: Fleet, hung: frozenset[str]) -> None:
    """However many ask for its flows."""
    asked = threading.Barrier(CROWD + 1)

    def ask(_: int) -> str:
        asked.wait()
        try:
            fleet.flows("h20")
        except Exception as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(CROWD) as pool:
        answers = pool.map(ask, range(CROWD))
        asked.wait()
        times = []
        for path in ("/hosts", "/ports", "/networks", "/hosts/h20", "/hosts/h1/flows") * 3:
            begun = time.monotonic()
            fleet.client.get(path)
            times.append(time.monotonic() - begun)
        said = list(answers)
    print(f"reads took {max(times):.3f} s at most")
    assert max(times) < 2 * NOISE
    assert all(said), "a switch that hangs was read"
