"""Many guests: each of them talks, also after their switch lost everything; and scripts/bench measures how soon."""

from __future__ import annotations

import random
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from benchkit.__main__ import main as bench
from e2e_fleet import PATIENCE, Fleet, eventually, installed, lab_name
from e2e_frames import arp_request, ears, inside, is_arp
from labkit import LightGuest, Nic, netns, send
from labkit.dhcp_client import Answer, Client, clients_at, serve

pytestmark = [pytest.mark.lab, pytest.mark.alone]
HOSTS, LIBVIRT = 3, False
CROWD, OTHERS = 200, 25
NETWORK = "kind: Network\nname: cloud\nmode: isolated\n"


@pytest.fixture(scope="module")
def crowd(fleet: Fleet) -> dict[str, LightGuest]:
    """200 guests on h1, some on each other host."""
    fleet.apply(NETWORK)
    return fleet.lights({
        f"{host}-{n}": (host, [Nic("cloud", None, addresses=(f"10.15.{host[1]}.{n}/16",))])
        for host in fleet.hosts
        for n in range(1, (CROWD if host == "h1" else OTHERS) + 1)
    })  # fmt: skip


def everybody_talks(crowd: dict[str, LightGuest]) -> None:
    """Each guest of h1 asks for another one, on this host or another, until it is answered."""
    asked = {
        f"h1-{n}": f"h{n % 3 + 1}-{n % OTHERS + 1}" if n % 3 else f"h1-{n % CROWD + 1}" for n in range(1, CROWD + 1)
    }
    address = {name: guest.nics[0].addresses[0].split("/")[0] for name, guest in crowd.items()}
    with ears({name: inside(crowd[name]) for name in asked}, lambda frame: is_arp(frame, 2)) as at:

        def ask(name: str) -> None:
            other = asked[name]  # by its own MAC: broadcasts of so many to so many would flood the machine
            mac, to = crowd[name].nics[0].mac, crowd[other].nics[0].mac
            question = arp_request(mac, address[name], address[other], to)
            send(crowd[name].netns, "eth0", question)

        def silent() -> list[str]:
            return [
                name for name, other in asked.items()
                if not any(is_arp(f, 2, sender=address[other]) for f in list(at[name].frames))
            ]  # fmt: skip

        with ThreadPoolExecutor(20) as pool:
            eventually("everybody was answered", lambda: not [*pool.map(ask, silent())] or not silent())


def test_each_of_two_hundred_guests_talks(crowd: dict[str, LightGuest]) -> None:
    everybody_talks(crowd)


def test_they_talk_again_after_their_switch_was_killed(fleet: Fleet, crowd: dict[str, LightGuest]) -> None:
    host = fleet.hosts["h1"]
    before = set(installed(host))
    host.kill("ovs-vswitchd", signal.SIGKILL)
    host.start("ovs-vswitchd")
    netns.ip_batch([f"addr replace {host.tunnel_ip}/24 dev br-phy", "link set br-phy up"], host.netns)
    eventually("flows are back", lambda: set(installed(host)) == before)
    everybody_talks(crowd)


def test_no_address_is_given_twice_when_the_controller_is_killed_amid_two_hundred_exchanges(
    fleet: Fleet, crowd: dict[str, LightGuest]
) -> None:
    fleet.apply(f"{NETWORK}subnets: [10.16.0.1/16]\ndhcp: {{range: [10.16.1.1, 10.16.1.{CROWD}]}}\n")
    fleet.settle()
    given: dict[str, str] = {}  # address → MAC, of all that was ever promised
    killed: list[str] = []
    with clients_at([crowd[f"h1-{n}"] for n in range(1, CROWD + 1)]) as clients:

        def took(client: Client, answer: Answer) -> bool:
            if not client.take(answer):
                return False
            assert given.setdefault(answer.address, client.mac) == client.mac
            if len(given) == CROWD // 4 and not killed:
                fleet.controller.stop(signal.SIGKILL)
                killed.append(client.mac)
            return True

        for client in clients:
            client.discover()
        serve(clients, took, PATIENCE, lambda: bool(killed))
        assert killed
        fleet.controller.start()
        assert serve([client for client in clients if client.address is None], took, PATIENCE) == []
        assert len(given) == CROWD
        leases = {each["address"]: each["mac"] for each in fleet.client.items("/networks/cloud/leases")}
        assert leases == given
        for client in clients[::10]:  # who has one is given that one again
            had = client.address
            client.discover()
            assert serve([client], took, PATIENCE) == []
            assert client.address == had


def test_nothing_of_them_stays(fleet: Fleet, crowd: dict[str, LightGuest]) -> None:
    gone = random.Random(5).sample(sorted(crowd), 60)
    fleet.stop(crowd[name] for name in gone)
    macs = {crowd[name].nics[0].mac for name in gone}
    for host in fleet.hosts.values():
        flows = host.ofctl("dump-flows", "br-int")
        assert not any(mac in flows for mac in macs)
        assert sum(guest.nics[0].mac in flows for name, guest in crowd.items() if name not in gone) == len(crowd) - 60


def test_bench_measures_keeps_its_limits_and_takes_its_lab_away(capsys: pytest.CaptureFixture[str]) -> None:
    """About ten times of what an idle machine takes, which is what 100 ms and 1 s for 200 guests are."""
    words = ["guests", "--name", lab_name("b"), "--guests", "9", "--crowd", "40", "--limits", "60x,200x", "--judge"]
    code = bench(words)
    out, err = capsys.readouterr()
    assert code == 0, out + err
    rows = [line.split("  ")[0] for line in out.splitlines()[3:]]
    assert rows == [
        "new guest: port added to first answer",
        "new guest: port added to first answer: p99",
        "one host: switch connected to all answered",
        "one host: switch connected to all answered: p99",
    ]
    assert out.count(" ok") == 2, "both are judged"
    assert "every goal is reached" in err
    assert not netns.exists(f"{lab_name('b')}-h1")
