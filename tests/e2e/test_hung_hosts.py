"""Twenty hosts, and on three of them something hangs: the other seventeen are driven as fast as before."""

from __future__ import annotations

import contextlib
import itertools
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

pytestmark = [pytest.mark.lab, pytest.mark.alone]
HOSTS, LAB = 20, "w"

HANGS = {"h18": "libvirtd", "h19": "ovsdb-server", "h20": "ovs-vswitchd"}
ROUNDS = 5
CROWD = 20  # who asks a hung switch at once
PATIENCE = 60.0  # seconds for what takes one on an idle machine
NOISE = 0.7  # seconds by which a shared machine may spoil a time; what waits for somebody who hangs waits longer


@pytest.fixture(scope="module", autouse=True)
def guests(fleet: Fleet) -> list[LightGuest]:
    """A guest on each host, so that a change of their network concerns every switch."""
    fleet.apply(yaml.safe_dump_all(changed(fleet, 0)))
    return list(fleet.lights({
        f"g-{host}": (host, [Nic("cloud", None, addresses=(f"10.9.0.{n}/24",))])
        for n, host in enumerate(fleet.hosts, start=1)
    }).values())  # fmt: skip


def changed(fleet: Fleet, round_: int) -> list[Document]:
    """Two networks and all hosts; each round differs from the one before in the flows, the libvirt networks and the
    OVSDB rows (an uplink's bridge) of every host."""
    isolation = "isolated" if round_ % 2 else "none"
    groups = {"default": {"isolation": isolation}, f"group{round_ % 2}": {}}
    hosts = [fleet.host_document(name) for name in fleet.hosts]
    return [
        {"kind": "Network", "name": "cloud", "mode": "isolated", "portgroups": groups},
        {"kind": "Network", "name": "other", "mode": "isolated", "portgroups": {f"group{round_ % 2}": {}}},
        *(host | ({} if round_ % 2 else {"uplinks": {}}) for host in hosts),
    ]


def unconfirmed(fleet: Fleet) -> set[str]:
    """Who has not confirmed all that is wanted."""
    return {item["host"] for item in fleet.client.get("/wait", wait=0.0)["unconfirmed"]}


ROUND = itertools.count(1)


def converge(fleet: Fleet, but: frozenset[str] = frozenset()) -> float:
    """Change flows, libvirt networks and OVSDB of every host; the seconds until all hosts but these have confirmed it,
    and these have not."""
    documents = changed(fleet, next(ROUND))
    begun = time.monotonic()
    fleet.client.post("/apply", documents, wait=0.0)
    wait_for("the others", lambda: unconfirmed(fleet) <= but, PATIENCE, every=0.02)
    took = time.monotonic() - begun
    assert unconfirmed(fleet) == but, "what hangs has confirmed something"
    return took


def there_and_back(fleet: Fleet, but: frozenset[str] = frozenset()) -> float:
    """Two changes, for an uplink comes slower than it goes."""
    return converge(fleet, but) + converge(fleet, but)


@contextlib.contextmanager
def hanging(fleet: Fleet) -> Iterator[frozenset[str]]:
    """Three hosts with a daemon that is there and says nothing while the block runs; then all is well again."""
    for name, daemon in HANGS.items():
        fleet.hosts[name].kill(daemon, signal.SIGSTOP)
    try:
        yield frozenset(HANGS)
    finally:
        for name, daemon in HANGS.items():
            fleet.hosts[name].kill(daemon, signal.SIGCONT)
    eventually("all have confirmed", lambda: not unconfirmed(fleet), PATIENCE)


@pytest.fixture
def hung(fleet: Fleet) -> Iterator[frozenset[str]]:
    with hanging(fleet) as found:
        yield found


def test_the_others_converge_as_fast_as_before(fleet: Fleet) -> None:
    """Before it is noticed that they hang, each time beside a change while all is well, and after."""
    usual, unnoticed = [], []
    for _ in range(ROUNDS):
        usual.append(there_and_back(fleet))
        with hanging(fleet) as hung:
            unnoticed.append(there_and_back(fleet, hung))
    with hanging(fleet) as hung:
        eventually("they are seen to hang", lambda: all(
            any(part["state"] != "up" for part in parts(fleet, name).values()) for name in hung
        ), PATIENCE)  # fmt: skip
        noticed = [there_and_back(fleet, hung) for _ in range(ROUNDS)]
    figures = {"usual": usual, "not noticed": unnoticed, "noticed": noticed}
    print({what: [round(seconds, 3) for seconds in times] for what, times in figures.items()})
    late = statistics.median(hanging - well for well, hanging in zip(usual, unnoticed, strict=True))
    assert late < NOISE
    assert statistics.median(noticed) - statistics.median(usual) < NOISE


def parts(fleet: Fleet, name: str) -> dict[str, Document]:
    status = fleet.get("Host", name)["status"]
    return {part: status[part] for part in ("ovsdb", "openflow", "libvirt")}


def test_apply_names_who_has_not_confirmed_and_says_so_in_time(fleet: Fleet, hung: frozenset[str]) -> None:
    documents = changed(fleet, next(ROUND))
    begun = time.monotonic()
    answer = fleet.client.post("/apply", documents, wait=3.0)
    elapsed = time.monotonic() - begun
    missing = {(item["host"], item["what"]) for item in answer["unconfirmed"]}
    assert {("h18", "libvirt"), ("h19", "ovsdb"), ("h20", "openflow")} <= missing
    assert {host for host, _ in missing} <= hung
    assert elapsed < 3.0 + 3 * NOISE


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
    assert max(times) < 3 * NOISE
    assert all(said), "a switch that hangs was read"
