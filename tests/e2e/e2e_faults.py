"""Random faults over a fleet: kills, pauses, cut links, hands that slip, and guests that come and go meanwhile.

Every choice comes from one seeded generator, so a history can be had again. A fault says which hosts' guests may lose
frames by it: those of nobody when only a control plane is hit.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from e2e_fleet import PATIENCE, Fleet, wait_ping
from e2e_judge import Judge, Party
from labkit import Guest, LabError, LightGuest, Nic, netns, wait_for
from labkit.capture import open_raw
from labkit.host import Host
from labkit.procs import Process, end

from controller.errors import FleetError

NETWORKS = """
kind: Network
name: cloud
mode: isolated
portgroups: {quiet: {isolation: isolated}}
---
kind: Network
name: near
mode: isolated
span: host
---
kind: Network
name: lan
mode: bridge
physical_network: physnet1
portgroups: {ten: {vlan: 10}, twenty: {vlan: 20}}
"""
KINDS = (("cloud", None), ("cloud", "quiet"), ("near", None), ("lan", "ten"), ("lan", "twenty"))
DAEMONS = ("ovsdb-server", "ovs-vswitchd", "libvirtd")  # in the order of a boot
FEWEST = 8  # guests: fewer are not stopped
_BRIDGES = {"m": "mgmt", "u": "underlay"}  # what a host's cable is plugged into; the physical one goes to a switch
_LINKS = {"management": "m", "underlay": "u", "physical": "p1"}


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens, to its end; ``disturbs`` are the hosts whose guests may lose frames until all is right again.

    ``where`` it happens: two at one place would be in each other's way.
    """

    name: str
    where: str
    happen: Callable[[], object]
    disturbs: tuple[str, ...] = ()


class World:
    """The fleet's guests as the model knows them, and the outside machine."""

    def __init__(self, fleet: Fleet, seed: int) -> None:
        self.fleet = fleet
        self.random = random.Random(seed)
        self.guests: dict[str, LightGuest] = {}
        self.judge = Judge(self.hears)
        self.real: dict[str, Guest] = {}
        self._places: dict[str, tuple[str, str | None, str | None]] = {}  # party → network, portgroup, host
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()  # of guests: a host may lose its power while one is being stopped

    # -- the model

    def hears(self, sender: Party, listener: Party) -> bool:
        """Whether frames of the one reach the other."""
        network, group, host = self._places[sender.name]
        other_network, other_group, other_host = self._places[listener.name]
        if network != other_network:
            return False
        if network == "lan":
            return group == other_group
        if network == "near":
            return host == other_host
        return not group == other_group == "quiet"

    # -- guests

    def populate(self) -> None:
        """One guest of each kind on each host, and the outside machine in its two VLANs."""
        self._start([(host, kind) for host in self.fleet.hosts for kind in KINDS])
        outside = []
        for vlan, group in ((10, "ten"), (20, "twenty")):
            space, name = self.fleet.lab.outside_vlan(vlan), f"outside{vlan}"
            self._places[name] = ("lan", group, None)
            with open_raw(space, f"vlan{vlan}") as raw:
                mac = raw.getsockname()[4].hex(":")
            outside.append(Party(name, space, f"vlan{vlan}", mac, None, wire=True))
        self.judge.join(outside)
        for number, host in enumerate(sorted(self.fleet.hosts)[:2], start=1):
            nic = Nic("cloud", None, addresses=(f"10.8.0.{number}/24",), mtu=1400)
            guest = self.fleet.real(host, f"real{number}", [nic])
            self.real[guest.name] = guest
            self._places[guest.name] = ("cloud", None, host)
            self._listen_to(guest)

    def _listen_to(self, guest: Guest) -> None:
        [tap] = guest.ports()
        [nic] = guest.nics
        self.judge.join([Party(guest.name, guest.host.netns, tap, nic.mac, guest.host.name, tap=True)])

    @contextlib.contextmanager
    def _not_listening(self, guest: Guest) -> Iterator[None]:
        """Its tap goes, and another one comes."""
        self.judge.leave(guest.name)
        yield
        guest.wait_boot()
        self._listen_to(guest)

    def start_guest(self) -> None:
        self._start([(self.random.choice(sorted(self.fleet.hosts)), self.random.choice(KINDS))])

    def stop_guest(self) -> None:
        with self._lock:
            if len(self.guests) < FEWEST:
                return
            guest = self.guests.pop(self.random.choice(sorted(self.guests)))
            self.judge.leave(guest.name)
        guest.stop()
        self._when_possible(lambda: self._forget([guest]))

    def _forget(self, guests: Sequence[LightGuest]) -> None:
        """Take their registrations back; whether that is confirmed is the judge's to say."""
        if not guests:
            return
        self.fleet.client.post("/delete", [{"kind": "Port", "name": f"{g.name}-0"} for g in guests], wait=0.0)

    def _start(self, wanted: Sequence[tuple[str, tuple[str, str | None]]]) -> None:
        """Start them and register them; whether they are switched is the judge's to say."""
        started = []
        for host, (network, group) in wanted:
            name = f"g{next(self._numbers)}{host}"
            self._places[name] = (network, group, host)
            started.append(self.fleet.lab.start_light(host, name, [Nic(network, group)]))
        self._when_possible(lambda: self.fleet.client.post("/apply", _documents(started), wait=0.0))
        with self._lock:
            self.guests |= {guest.name: guest for guest in started}
        self.judge.join(Party(g.name, g.netns, "eth0", g.nics[0].mac, g.host.name) for g in started)

    # -- faults

    def choose(self) -> list[Fault]:
        """One fault, or two at different places."""
        chosen: list[Fault] = []
        for _ in range(self.random.choice((1, 1, 2))):
            host = self.fleet.hosts[self.random.choice(sorted(self.fleet.hosts))]
            seconds = self.random.uniform(0.3, 6.0)
            faults = [*self._of_controller(seconds), *self._of_host(host, seconds), *self._of_real()]
            fault = self.random.choice(faults)
            if fault.where == "libvirt":
                return [fault]  # asks daemons of several hosts
            if fault.where not in {other.where for other in chosen}:
                chosen.append(fault)
        return chosen

    def _of_controller(self, seconds: float) -> Iterator[Fault]:
        """Faults of the control plane, and changes that are none."""
        fleet, where = self.fleet, "controller"
        for number in (signal.SIGKILL, signal.SIGTERM):
            yield Fault(f"{number.name} to the controller for {seconds:.1f} s", where,
                        partial(self._restart, number, seconds))  # fmt: skip
        yield Fault(
            f"controller paused for {seconds:.1f} s", where, lambda: _pause(fleet.controller.process(), seconds)
        )
        yield Fault("store killed", where, lambda: end([self._store()], grace=0.0))
        yield Fault(f"store paused for {seconds:.1f} s", where, lambda: _pause(self._store(), seconds))
        # When an interface comes or goes the userspace tunnels of its host lose frames: they read the routes anew.
        yield Fault("a guest starts", "guests", self.start_guest, tuple(fleet.hosts))
        yield Fault("a guest stops", "guests", self.stop_guest, tuple(fleet.hosts))
        yield Fault("a network comes and goes", "networks", lambda: self._when_possible(self._another_network))

    def _of_host(self, host: Host, seconds: float) -> Iterator[Fault]:
        """Faults of one host; of its control plane alone those that disturb nobody."""
        name, hit = host.name, (host.name,)
        for daemon in DAEMONS:
            # without its database ovs-vswitchd does not run the userspace datapath (bridge.c, bridge_run)
            yield Fault(f"{daemon} of {name} killed", name, partial(_kill, host, daemon, seconds),
                        () if daemon == "libvirtd" else hit)  # fmt: skip
            yield Fault(f"{daemon} of {name} paused for {seconds:.1f} s", name,
                        partial(_pause_daemon, host, daemon, seconds),
                        hit if daemon == "ovs-vswitchd" else ())  # fmt: skip
        for link, suffix in _LINKS.items():
            yield Fault(f"{link} link of {name} cut for {seconds:.1f} s", name,
                        partial(self._cut, host, suffix, seconds), () if link == "management" else hit)  # fmt: skip
        yield Fault(f"all flows of {name} deleted", name, partial(_quietly, host.ofctl, "del-flows", "br-int"), hit)
        yield Fault(f"tunnels of {name} deleted", name, partial(self._delete_tunnels, host), hit)
        # a bridge without any controller has its flows flushed (connmgr.c, connmgr_set_controllers)
        yield Fault(
            f"controller row of {name} deleted", name, partial(_quietly, host.vsctl, "del-controller", "br-int"), hit
        )
        yield Fault(f"power of {name} lost for {seconds:.1f} s", name, partial(self._power, host, seconds), hit)

    def _of_real(self) -> Iterator[Fault]:
        """What happens to a real guest."""
        guest = self.real[self.random.choice(sorted(self.real))]
        to = self.random.choice(sorted(self.fleet.hosts.keys() - {guest.host.name}))
        hit, name = (guest.host.name,), guest.name
        yield Fault(f"{name} moves to {to}", "libvirt", partial(self._migrate, guest, to), (*hit, to))
        yield Fault(f"{name} is destroyed and started", "libvirt", partial(self._start_again, guest), hit)
        yield Fault(f"{name} is reset", "libvirt", partial(guest.host.virsh, "reset", name), hit)
        yield Fault(f"{name} crashes", "libvirt", partial(self._crash, guest), hit)

    def _migrate(self, guest: Guest, to: str) -> None:
        with self._not_listening(guest):
            guest.migrate(to)

    def _start_again(self, guest: Guest) -> None:
        with self._not_listening(guest):
            guest.destroy()
            guest.start()

    def _crash(self, guest: Guest) -> None:
        with self._not_listening(guest):
            _kill_qemu(guest.host, guest)
            _wait_off(guest)
            guest.start()

    def _restart(self, number: signal.Signals, seconds: float) -> None:
        self.fleet.controller.stop(number)
        time.sleep(seconds)
        self.fleet.controller.start()

    def _store(self) -> Process:
        [pidfile] = self.fleet.controller.dir.glob("state/**/ovsdb-server.pid")
        return Process.of("store", int(pidfile.read_text()))

    def _cut(self, host: Host, suffix: str, seconds: float) -> None:
        """At the far end: the host's own interface stays up, as when a switch between dies."""
        space, link, bridge = f"{self.fleet.lab.name}-net", f"{host.name}{suffix}", _BRIDGES.get(suffix)
        off, on = ("nomaster", f"master {bridge}") if bridge is not None else ("down", "up")
        netns.ip_batch([f"link set {link} {off}"], space)
        time.sleep(seconds)
        netns.ip_batch([f"link set {link} {on}"], space)

    def _delete_tunnels(self, host: Host) -> None:
        for port in _quietly(host.vsctl, "list-ports", "br-int").split():
            if _quietly(host.vsctl, "get", "Interface", port, "type").strip() in ("geneve", "vxlan", "gre"):
                _quietly(host.vsctl, "del-port", "br-int", port)

    def _power(self, host: Host, seconds: float) -> None:
        """Everything of the host ends at once; its guests are gone, and their rows still there when it boots."""
        with self._lock:
            lost = [guest for guest in self.guests.values() if guest.host is host]
            for guest in lost:
                del self.guests[guest.name]
                self.judge.leave(guest.name)
        ended = [guest for guest in self.real.values() if guest.host is host]
        with contextlib.ExitStack() as stack:
            for guest in ended:
                stack.enter_context(self._not_listening(guest))
            self._power_cycle(host, lost, seconds)
            for guest in ended:
                _wait_off(guest)
                guest.start()
        self.fleet.lab.stop_lights(lost)
        self._when_possible(lambda: self._forget(lost))
        self._start([(host.name, kind) for kind in KINDS])

    def _power_cycle(self, host: Host, lost: Sequence[LightGuest], seconds: float) -> None:
        for guest in self.real.values():
            if guest.host is host:
                _kill_qemu(host, guest)
        end([host.process(daemon) for daemon in DAEMONS], grace=0.0)
        netns.ip_batch([f"link del {port}" for guest in lost for port in guest.ports()], host.netns)
        time.sleep(seconds)
        for daemon in DAEMONS:
            _start_daemon(host, daemon)

    def _another_network(self) -> None:
        self.fleet.client.post("/apply", [{"kind": "Network", "name": "other", "mode": "isolated"}], wait=0.0)
        self.fleet.client.post("/delete", [{"kind": "Network", "name": "other"}], wait=0.0)

    def _when_possible(self, change: Callable[[], object]) -> None:
        """What needs the controller waits for it, as its user would. Raises what was the reason at last."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                change()
                return
            except (FleetError, LabError):
                if time.monotonic() > until:
                    raise
                time.sleep(0.3)

    # -- how a history goes

    def strike(self, faults: Sequence[Fault], within: float) -> float:
        """All of them at once; returns after how many seconds all was right again. Raises LabError when it is not."""
        hit = [name for fault in faults for name in fault.disturbs]
        with self.judge.disturbing(hit):
            with ThreadPoolExecutor(len(faults)) as pool:
                for done in [pool.submit(fault.happen) for fault in faults]:
                    done.result()
            took = self.judge.agree(within)
            for guest in self.real.values():
                for other in self.real.values():
                    if other is not guest:
                        wait_ping(guest, other.nics[0].addresses[0].partition("/")[0], timeout=within)
            return took


def _documents(guests: Sequence[LightGuest]) -> list[dict[str, object]]:
    return [
        {"kind": "Port", "name": f"{g.name}-0", "vm": g.vm_id, "mac": nic.mac, "network": nic.network,
         "portgroup": nic.portgroup or "default", "libvirt": False}
        for g in guests for nic in g.nics
    ]  # fmt: skip


def _quietly(tool: Callable[..., str], *words: str) -> str:
    """A tool on a host whose daemons may be away by another fault."""
    try:
        return tool(*words)
    except LabError:
        return ""


def _kill_qemu(host: Host, guest: Guest) -> None:
    """By the pid that libvirt wrote down."""
    pid = int((host.dir / "libvirt" / "qemu" / f"{guest.name}.pid").read_text())
    end([Process.of(guest.name, pid)], grace=0.0)


def _wait_off(guest: Guest) -> None:
    wait_for(f"{guest.name} is off", lambda: _quietly(guest.state) == "shut off", PATIENCE, every=0.1)


def _pause(process: Process | None, seconds: float) -> None:
    if process is None:
        return
    process.signal(signal.SIGSTOP)
    time.sleep(seconds)
    process.signal(signal.SIGCONT)


def _pause_daemon(host: Host, daemon: str, seconds: float) -> None:
    _pause(host.process(daemon), seconds)


def _kill(host: Host, daemon: str, seconds: float) -> None:
    host.kill(daemon)
    time.sleep(seconds / 3)
    _start_daemon(host, daemon)


def _start_daemon(host: Host, daemon: str) -> None:
    host.start(daemon)
    if daemon == "ovs-vswitchd":  # br-phy was its device, and the address that tunnels come from went with it
        netns.ip_batch([f"addr replace {host.tunnel_ip}/24 dev br-phy", "link set br-phy up"], host.netns)
