"""Kinds of faults: kills, pauses, cut links, hands that slip, and guests that come and go meanwhile.

A fault says which hosts' guests may lose frames by it: those of nobody when only a control plane is hit.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from e2e_fleet import PATIENCE
from labkit import Guest, LabError, LightGuest, netns, wait_for
from labkit.host import Host
from labkit.procs import Process, end

if TYPE_CHECKING:
    from e2e_faults import World

PLACES = (("cloud", None), ("cloud", "quiet"), ("near", None), ("lan", "ten"), ("lan", "twenty"))  # of guests
DAEMONS = ("ovsdb-server", "ovs-vswitchd", "libvirtd")  # in the order of a boot
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


def kinds(world: World) -> dict[str, Callable[[], Fault]]:
    """Every kind by name; each draws its victims when it is called."""
    dice = world.random
    found: dict[str, Callable[[], Fault]] = {}

    def seconds() -> float:
        return float(0.3 * 20.0 ** dice.random())  # up to six, most of them short

    def some_host() -> Host:
        return world.fleet.hosts[dice.choice(sorted(world.fleet.hosts))]

    def of_controller(name: str, happen: Callable[[float], object]) -> None:
        def draw() -> Fault:
            lasts = seconds()
            return Fault(f"{name} ({lasts:.1f} s)", "controller", partial(happen, lasts))

        found[name] = draw

    def of_host(name: str, happen: Callable[[Host, float], object], disturbs: bool = True) -> None:
        def draw() -> Fault:
            host, lasts = some_host(), seconds()
            hit = (host.name,) if disturbs else ()
            return Fault(f"{host.name}: {name} ({lasts:.1f} s)", host.name, partial(happen, host, lasts), hit)

        found[name] = draw

    def by_hand(name: str, happen: Callable[[Host], object]) -> None:
        def draw() -> Fault:
            host = some_host()
            return Fault(f"{host.name}: {name}", host.name, partial(happen, host), (host.name,))

        found[name] = draw

    def of_guest(name: str, happen: Callable[[Guest], object]) -> None:
        def draw() -> Fault:
            guest = world.real[dice.choice(sorted(world.real))]
            return Fault(f"{guest.name} {name}", "libvirt", partial(happen, guest), (guest.host.name,))

        found[f"a guest {name}"] = draw

    for number in (signal.SIGKILL, signal.SIGTERM):
        of_controller(f"{number.name} to the controller", partial(_restart, world, number))
    of_controller("controller paused", lambda lasts: _pause(world.fleet.controller.process(), lasts))
    found["store killed"] = lambda: Fault("store killed", "controller", lambda: end([_store(world)], grace=0.0))
    of_controller("store paused", lambda lasts: _pause(_store(world), lasts))
    for daemon in DAEMONS:
        # without its database ovs-vswitchd does not run the userspace datapath (bridge.c, bridge_run)
        of_host(f"{daemon} killed", partial(_kill, daemon), daemon != "libvirtd")
        of_host(f"{daemon} paused", partial(_pause_daemon, daemon), daemon == "ovs-vswitchd")
    for link, suffix in _LINKS.items():
        of_host(f"{link} link cut", partial(_cut, world, suffix), link != "management")
    by_hand("all flows deleted", lambda host: _quietly(host.ofctl, "del-flows", "br-int"))
    by_hand("tunnels deleted", _delete_tunnels)
    # a bridge without any controller has its flows flushed (connmgr.c, connmgr_set_controllers)
    by_hand("controller row deleted", lambda host: _quietly(host.vsctl, "del-controller", "br-int"))
    of_guest("is destroyed and started", partial(_start_again, world))
    of_guest("is reset", partial(_reset, world))
    of_guest("crashes", partial(_crash, world))
    found |= {
        "power lost": lambda: _power_fault(world, some_host(), seconds()), "a guest moves": lambda: _move(world),
        "a guest starts": lambda: _start(world, some_host()), "a guest stops": lambda: _stop(world),
        "a network comes and goes": lambda: Fault("a network comes and goes", "networks", partial(_network, world)),
    }  # fmt: skip
    return found


# -- guests


def _start(world: World, host: Host) -> Fault:
    """When an interface comes or goes the userspace tunnels of its host lose frames: they read the routes anew."""
    new = world.new(host)
    return Fault(f"{new[0]} starts", host.name, lambda: world.start([new]), (host.name,))


def _stop(world: World) -> Fault:
    guest = world.guests[world.random.choice(sorted(world.guests))]
    return Fault(f"{guest.name} stops", guest.host.name, lambda: world.stop(guest.name), (guest.host.name,))


def _move(world: World) -> Fault:
    guest = world.real[world.random.choice(sorted(world.real))]
    to = world.random.choice(sorted(world.fleet.hosts.keys() - {guest.host.name}))

    def happen() -> None:
        with world.not_listening(guest, boots=False):
            guest.migrate(to)

    return Fault(f"{guest.name} moves to {to}", "libvirt", happen, (guest.host.name, to))


def _start_again(world: World, guest: Guest) -> None:
    with world.not_listening(guest):
        # Not when it does not run: a libvirtd that was killed just before may have ended it when it came back.
        guest.host.virsh("destroy", guest.name, check=False)
        _wait_off(guest)
        guest.start(wait=False)


def _reset(world: World, guest: Guest) -> None:
    guest.host.virsh("reset", guest.name)
    world.boots(guest)


def _crash(world: World, guest: Guest) -> None:
    with world.not_listening(guest):
        _kill_qemu(guest.host, guest)
        _wait_off(guest)
        guest.start(wait=False)


def _network(world: World) -> None:
    document = {"kind": "Network", "name": "other", "mode": "isolated"}
    world.tell(lambda: world.fleet.client.post("/apply", [document], wait=0.0))
    world.tell(lambda: world.fleet.client.post("/delete", [{"kind": "Network", "name": "other"}], wait=0.0))


# -- the control plane


def _restart(world: World, number: signal.Signals, seconds: float) -> None:
    world.fleet.controller.stop(number)
    time.sleep(seconds)
    world.fleet.controller.start()


def _store(world: World) -> Process:
    [pidfile] = world.fleet.controller.dir.glob("state/**/ovsdb-server.pid")
    return Process.of("store", int(pidfile.read_text()))


# -- a host


def _cut(world: World, suffix: str, host: Host, seconds: float) -> None:
    """At the far end: the host's own interface stays up, as when a switch between dies."""
    space, link, bridge = f"{world.fleet.lab.name}-net", f"{host.name}{suffix}", _BRIDGES.get(suffix)
    off, on = ("nomaster", f"master {bridge}") if bridge is not None else ("down", "up")
    netns.ip_batch([f"link set {link} {off}"], space)
    time.sleep(seconds)
    netns.ip_batch([f"link set {link} {on}"], space)


def _delete_tunnels(host: Host) -> None:
    for port in _quietly(host.vsctl, "list-ports", "br-int").split():
        if _quietly(host.vsctl, "get", "Interface", port, "type").strip() in ("geneve", "vxlan", "gre"):
            _quietly(host.vsctl, "del-port", "br-int", port)


def _power_fault(world: World, host: Host, seconds: float) -> Fault:
    new = [world.new(host, place) for place in PLACES]

    def happen() -> None:
        """Everything of the host ends at once; its guests are gone, and their rows still there when it boots."""
        lost = world.lose(host)
        ended = [guest for guest in world.real.values() if guest.host is host]
        with contextlib.ExitStack() as stack:
            for guest in ended:
                stack.enter_context(world.not_listening(guest))
            _power_cycle(host, lost, ended, seconds)
            for guest in ended:
                _wait_off(guest)
                guest.start(wait=False)
        world.fleet.lab.stop_lights(lost)
        world.forget(lost)
        world.start(new)

    return Fault(f"{host.name}: power lost ({seconds:.1f} s)", host.name, happen, (host.name,))


def _power_cycle(host: Host, lost: Sequence[LightGuest], ended: Sequence[Guest], seconds: float) -> None:
    for guest in ended:
        _kill_qemu(host, guest)
    end([host.process(daemon) for daemon in DAEMONS], grace=0.0)
    netns.ip_batch([f"link del {port}" for guest in lost for port in guest.ports()], host.netns)
    time.sleep(seconds)
    for daemon in DAEMONS:
        _start_daemon(host, daemon)


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


def _pause_daemon(daemon: str, host: Host, seconds: float) -> None:
    _pause(host.process(daemon), seconds)


def _kill(daemon: str, host: Host, seconds: float) -> None:
    host.kill(daemon)
    time.sleep(seconds / 3)
    _start_daemon(host, daemon)


def _start_daemon(host: Host, daemon: str) -> None:
    host.start(daemon)
    if daemon == "ovs-vswitchd":  # br-phy was its device, and the address that tunnels come from went with it
        netns.ip_batch([f"addr replace {host.tunnel_ip}/24 dev br-phy", "link set br-phy up"], host.netns)
