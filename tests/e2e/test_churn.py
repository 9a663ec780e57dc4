"""Hosts, networks, guests and the controller come and go in any order; when all are gone, nothing is left anywhere."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Callable

import pytest
import yaml
from e2e_fleet import PATIENCE, Fleet, eventually, installed, our_rows, pings, silent, wait_ping
from labkit import Guest, LabError, LightGuest, Nic
from labkit.host import Host
from labkit.run import run

from controller.errors import ControllerUnreachable, InvalidInput

pytestmark = pytest.mark.lab
HOSTS = 3

KINDS: dict[str, dict[str, object]] = {
    "cloud1": {"mode": "isolated"},
    "cloud2": {"mode": "isolated", "portgroups": {"quiet": {"isolation": "isolated"}}},
    "cloud3": {"mode": "isolated", "span": "host"},
    "lan1": {"mode": "bridge", "physical_network": "physnet1", "vlan": 10},
    "lan2": {"mode": "bridge", "physical_network": "physnet1", "portgroups": {"trunk": {"trunk": [20, 30]}}},
}


class History:
    """A random sequence of changes that an operator, guests and accidents make."""

    def __init__(self, fleet: Fleet, seed: int) -> None:
        self.fleet = fleet
        self.random = random.Random(seed)
        self.running = True
        self.hosts = set(fleet.hosts)
        self.networks: set[str] = set()
        self.guests: dict[str, LightGuest] = {}
        self.told: list[str] = []
        self._count = 0
        self.add("cloud1")
        nic = Nic("cloud1", addresses=("10.9.0.250/24",), mtu=1450)
        self.real = fleet.real("h1", f"real{seed}", [nic], wait=False)

    def step(self) -> None:
        """One change that is possible now."""
        changes: list[Callable[[], None]] = [self.start_guest, self.start_guest, self.stop_guest, self.reboot_real]
        if self.running:
            changes += [self.add_network, self.add_network, self.remove_network, self.add_host, self.remove_host]
            changes += [self.stop_controller, self.force_network, self.force_host]
        else:
            changes += [self.start_controller] * 3
        change = self.random.choice(changes)
        self.told.append(change.__name__)
        change()

    def add_network(self) -> None:
        self.add(self.random.choice(sorted(KINDS)))

    def add(self, name: str) -> None:
        self.fleet.apply(yaml.safe_dump({"kind": "Network", "name": name, **KINDS[name]}), wait=PATIENCE)
        self.networks.add(name)

    def remove_network(self) -> None:
        if free := sorted(self.networks - {network_of(guest) for guest in self.everybody()}):
            name = self.random.choice(free)
            self.fleet.delete([("Network", name)])
            self.networks.discard(name)

    def force_network(self) -> None:
        """Away under its guests, which come back with it."""
        if used := sorted(self.networks & {network_of(guest) for guest in self.guests.values()} - {"cloud1"}):
            name = self.random.choice(used)
            self.fleet.delete([("Network", name)], force=True)
            self.networks.discard(name)

    def add_host(self) -> None:
        if absent := sorted(self.fleet.hosts.keys() - self.hosts):
            self.give_back(self.random.choice(absent))

    def give_back(self, name: str) -> None:
        self.fleet.apply(yaml.safe_dump(self.fleet.host_document(name)), wait=PATIENCE)
        self.hosts.add(name)

    def remove_host(self) -> None:
        if free := sorted(self.hosts - {guest.host.name for guest in self.everybody()}):
            name = self.random.choice(free)
            self.fleet.delete([("Host", name)])
            self.hosts.discard(name)

    def force_host(self) -> None:
        """The same of a host: its guests run on, and reach nobody until it is given back."""
        if used := sorted(self.hosts & {guest.host.name for guest in self.guests.values()} - {self.real.host.name}):
            name = self.random.choice(used)
            self.fleet.delete([("Host", name)], force=True)
            self.hosts.discard(name)

    def everybody(self) -> list[LightGuest | Guest]:
        return [*self.guests.values(), self.real]

    def switched(self, guest: LightGuest | Guest) -> bool:
        return network_of(guest) in self.networks and guest.host.name in self.hosts

    def reboot_real(self) -> None:
        self.real.destroy()
        self.real.start(wait=False)

    def start_guest(self) -> None:
        if not self.hosts or not self.networks:
            return
        host, network = self.random.choice(sorted(self.hosts)), self.random.choice(sorted(self.networks))
        self._count += 1
        number = self._count
        nic = Nic(network, addresses=(f"10.9.0.{number}/24",))
        guest = self.fleet.lab.start_light(host, f"g{number}", [nic])
        self.guests[guest.name] = guest
        if self.running:
            self.fleet.apply(guest.ports_yaml(), wait=PATIENCE)

    def stop_guest(self) -> None:
        if self.guests:
            guest = self.guests.pop(self.random.choice(sorted(self.guests)))
            guest.stop()
            if self.running:
                self._forget([guest])

    def _forget(self, guests: list[LightGuest]) -> None:
        known = {port["name"] for port in self.fleet.list("Port")}
        if gone := [("Port", f"{g.name}-0") for g in guests if f"{g.name}-0" in known]:
            self.fleet.delete(gone)

    def stop_controller(self) -> None:
        self.fleet.controller.stop(self.random.choice((signal.SIGKILL, signal.SIGTERM)))
        self.running = False

    def start_controller(self) -> None:
        self.fleet.controller.start()
        self.running = True
        left = [p["name"] for p in self.fleet.list("Port") if p["name"].removesuffix("-0") not in self.guests]
        registered = {p["name"] for p in self.fleet.list("Port") if p.get("vm")}
        if gone := [("Port", name) for name in left if name in registered]:
            self.fleet.delete(gone)
        if known := [guest for guest in self.guests.values() if network_of(guest) in self.networks]:
            self.fleet.apply("".join(guest.ports_yaml() for guest in known), wait=PATIENCE)

    def agree(self) -> None:
        """Who should reach whom does, and nobody else."""
        if not self.running:
            self.start_controller()
        self.real.wait_boot()
        self.fleet.wait_active(guest.nics[0].mac for guest in self.everybody() if self.switched(guest))
        for guest in self.guests.values():
            for other in self.everybody():
                if guest.name < other.name:
                    self._agree(guest, other)

    def _agree(self, guest: LightGuest, other: LightGuest | Guest) -> None:
        address = other.nics[0].addresses[0].split("/")[0]
        network = network_of(guest)
        together = network == network_of(other) and (network != "cloud3" or guest.host is other.host)
        if together and self.switched(guest) and self.switched(other):
            wait_ping(guest, address)
        else:
            assert silent(guest, address), f"{guest.name} reaches {other.name}"

    def end(self) -> None:
        """Take everything away, in any order that is allowed; what a host that was taken by force still has, too."""
        self.real.remove()
        for name in sorted(self.fleet.hosts.keys() - self.hosts):
            self.give_back(name)
        self.fleet.lab.stop_lights(list(self.guests.values()))
        self._forget(list(self.guests.values()))
        self.guests.clear()
        targets = [("Host", name) for name in self.hosts] + [("Network", name) for name in self.networks]
        self.random.shuffle(targets)
        for target in targets:
            self.fleet.delete([target])


def network_of(guest: LightGuest | Guest) -> str:
    return str(guest.nics[0].network)


def of_fleetswitch(host: Host) -> list[str]:
    """Everything on a host that the lab itself did not make."""
    found = [f"bridge {name}" for name in host.vsctl("list-br").split() if name != "br-phy"]
    found += [f"port {name}" for name in host.vsctl("list-ports", "br-phy").split() if name != "eth1"]
    found += [f"network {name}" for name in host.virsh("net-list", "--all", "--name").split()]
    for table in ("Controller", "QoS", "Queue", "Mirror"):
        found += [
            f"{table} row {uuid}" for uuid in host.vsctl("--columns=_uuid", "list", table).split() if uuid != "_uuid"
        ]
    return found + our_rows(host)


def stored(fleet: Fleet) -> list[str]:
    """Every row of the store but the fleet's own id."""
    [socket] = fleet.controller.dir.glob("state/**/db.sock")
    query = [{"op": "select", "table": t, "where": []} for t in ("Host", "Network", "Port", "Number")]
    text = run(["ovsdb-client", "transact", f"unix:{socket}", json.dumps(["Fleetswitch", *query])]).stdout
    rows = [row for answer in json.loads(text) for row in answer["rows"]]
    return [json.dumps(row) for row in rows if row.get("pool") != "fleet"]


@pytest.mark.parametrize("seed", [1, 2])
def test_after_any_history_nothing_is_left(fleet: Fleet, seed: int) -> None:
    if fleet.controller.process() is None:
        fleet.controller.start()
    fleet.apply(fleet.lab.fleet_yaml())
    history = History(fleet, seed)
    try:
        for _ in range(24):
            history.step()
        history.agree()
        history.end()
        for host in fleet.hosts.values():
            assert of_fleetswitch(host) == [], history.told
        eventually("an empty store", lambda: stored(fleet) == [])
    except (AssertionError, LabError) as error:
        raise AssertionError(f"after {' '.join(history.told)}: {error}") from error
    finally:
        fleet.lab.stop_lights(list(history.guests.values()))
        history.real.host.virsh("destroy", history.real.name, check=False)


def test_a_removed_network_leaves_no_flow_on_hosts_that_stay(fleet: Fleet) -> None:
    fleet.apply(fleet.lab.fleet_yaml())
    before = {name: set(installed(host)) for name, host in fleet.hosts.items()}
    fleet.apply(yaml.safe_dump_all({"kind": "Network", "name": n, **spec} for n, spec in KINDS.items()))
    guests = fleet.lights({
        f"f-{network}-{host}": (host, [Nic(network)]) for network in KINDS for host in ("h1", "h2")
    })  # fmt: skip
    assert all(set(installed(fleet.hosts[name])) - before[name] for name in ("h1", "h2"))
    fleet.stop(guests.values())
    fleet.delete([("Network", name) for name in KINDS])
    assert {name: set(installed(host)) for name, host in fleet.hosts.items()} == before
    assert all(host.virsh("net-list", "--all", "--name") == "" for host in fleet.hosts.values())


def test_a_host_with_running_guests_is_not_deleted_unless_forced(fleet: Fleet) -> None:
    fleet.apply(fleet.lab.fleet_yaml() + "---\nkind: Network\nname: cloud1\nmode: isolated\n")
    guests = fleet.lights({
        name: (host, [Nic("cloud1", addresses=(f"10.9.1.{n}/24",))])
        for n, (name, host) in enumerate((("one", "h1"), ("two", "h2")), start=1)
    })  # fmt: skip
    wait_ping(guests["one"], "10.9.1.2")
    with pytest.raises(InvalidInput, match="in use by running guests"):
        fleet.delete([("Host", "h2")])
    assert pings(guests["one"], "10.9.1.2")
    said = fleet.controller.fleetswitch("delete", "host", "h2", "--force", "--wait", "20")
    assert "Host h2 deleted" in said
    assert silent(guests["one"], "10.9.1.2")
    host = fleet.hosts["h2"]
    assert our_rows(host) == []
    assert host.vsctl("get-controller", "br-int") == ""
    assert host.virsh("net-list", "--all", "--name") == ""
    assert guests["two"].ports()[0] in host.vsctl("list-ports", "br-int")  # the guest's own cable is left in
    fleet.stop(guests.values())
    host.vsctl("del-br", "br-int")
    fleet.apply(fleet.lab.fleet_yaml())


def test_a_host_that_was_away_when_it_was_deleted_is_cleaned_when_it_comes_back(fleet: Fleet) -> None:
    fleet.apply(fleet.lab.fleet_yaml() + "---\nkind: Network\nname: cloud1\nmode: isolated\n")
    host = fleet.hosts["h3"]
    host.wait_network("cloud1")
    host.kill("ovsdb-server")
    host.kill("libvirtd")
    eventually("h3 is down", lambda: fleet.get("Host", "h3")["status"]["ovsdb"]["state"] == "down")
    with pytest.raises(LabError, match="not confirmed"):
        fleet.delete([("Host", "h3")], wait=0.5)
    assert fleet.get("Host", "h3")["status"]["deleting"]
    fleet.controller.stop(signal.SIGKILL)
    fleet.controller.start()
    host.start("ovsdb-server")
    host.start("libvirtd")
    eventually("the row is gone", lambda: "h3" not in {h["name"] for h in fleet.list("Host")}, 40.0)
    assert of_fleetswitch(host) == []
    fleet.apply(fleet.lab.fleet_yaml())


def test_the_controller_that_is_stopped_answers_nobody(fleet: Fleet) -> None:
    fleet.controller.stop(signal.SIGTERM)
    with pytest.raises(ControllerUnreachable):
        fleet.list("Host")
    fleet.controller.start()
    fleet.settle()
