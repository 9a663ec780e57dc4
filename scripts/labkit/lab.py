"""The lab as one object: `with Lab(name="t1", hosts=2) as lab: lab.hosts["h1"].vsctl("show")`."""

from __future__ import annotations

import contextlib
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

from . import light, netns, segment, teardown
from .controller import Controller, fleet_yaml
from .guest import Guest
from .host import Host
from .light import LightGuest
from .nic import Nic
from .ovs import Ovs
from .pki import Pki
from .run import LabError, run, say
from .state import ROOT, HostState, LabState, StateFile, boot_id, locked_root


class Lab:
    """A fleet of hosts on this machine. `up` makes it, `Lab.attach` finds one that is up, `down` takes it away.

    hosts: how many. vlans: the outside machine's access VLANs. physnets: physical segments, 1 or 2.
    underlay_mtu: MTU of the network that carries tunnels. libvirt: False leaves libvirtd out (faster).
    tls: libvirtd listens for TLS too, with a certificate of the lab's own authority (`pki`).
    """

    def __init__(
        self,
        name: str = "fl",
        hosts: int = 2,
        *,
        vlans: Sequence[int] = (10, 20),
        physnets: int = 1,
        underlay_mtu: int = 1500,
        libvirt: bool = True,
        tls: bool = False,
        verbose: bool = False,
    ) -> None:
        self.state = StateFile(name)
        self.name = name
        self.hosts: dict[str, Host] = {}
        self._claimed = False
        self._wanted = (hosts, tuple(vlans), physnets, underlay_mtu, libvirt, tls)
        self._say: Callable[[str], None] = say if verbose else (lambda _text: None)

    @classmethod
    def attach(cls, name: str = "fl") -> Lab:
        """The lab of this name that is up. Raises LabError when there is none."""
        lab = cls(name)
        lab.state.load()
        lab._make_hosts()
        return lab

    def __enter__(self) -> Lab:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    # -- up and down

    def up(self) -> None:
        """Make everything; on any failure, an interrupt included, take everything away again and raise."""
        if os.geteuid() != 0:
            raise LabError("the lab makes network namespaces: run it as root")
        begun = time.monotonic()
        self._claimed = False
        with self.whole():
            self._claim()
            self._build()
            self._say(f"lab {self.name!r} is up in {time.monotonic() - begun:.1f} s")

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """What is made in the block stands as a whole or not at all: on any failure, an interrupt included, the lab is
        taken away, when it was this object that made it."""
        try:
            yield
        except BaseException:
            if self._claimed:
                self._say("failed; taking everything away")
                self.down()
            raise

    def _claim(self) -> None:
        """Take the name and two free /24s, and write the plan down before anything is made."""
        count, vlans, physnets, mtu, libvirt, tls = self._wanted
        if not 1 <= count <= 200:
            raise LabError(f"{count} hosts: 1 to 200")
        if physnets not in (1, 2):
            raise LabError(f"{physnets} physnets: 1 or 2")
        with locked_root():
            if self.state.dir.exists():
                raise LabError(f"lab {self.name!r} is up already: scripts/lab down --name {self.name}")
            mgmt, underlay = _free_networks()
            lab = LabState(self.name, boot_id(), mgmt, underlay, mtu, physnets, tls, list(vlans))
            for number in range(1, count + 1):
                name = f"h{number}"
                lab.hosts[name] = HostState(
                    name=name,
                    number=number,
                    netns=f"{self.name}-{name}",
                    rundir=str(self.state.dir / name),
                    mgmt=f"{mgmt}.{number}",
                    tunnel_ip=f"{underlay}.{number}",
                    uuid=str(uuid.uuid4()),
                    libvirt=libvirt,
                )
            lab.namespaces = segment.all_namespaces(lab)
            if taken := [name for name in lab.namespaces if netns.exists(name)]:
                raise LabError(f"namespaces of another program are in the way: {' '.join(taken)}")
            self.state.now = lab
            self._claimed = True
            self.state.dir.mkdir()
            self.state.save()

    def _build(self) -> None:
        lab = self.state.now
        self._say(f"cables: {len(lab.namespaces)} namespaces, management {lab.mgmt_net}.0/24")
        segment.lay(lab)
        if lab.tls:
            Pki(self.state.pki)  # before the hosts ask for certificates, side by side
        self._make_hosts()
        self._say(f"hosts: {', '.join(self.hosts)}")
        # leaving the pool waits for the threads: nothing is started behind the back of a teardown
        with ThreadPoolExecutor(4, thread_name_prefix="lab") as pool:
            jobs = [pool.submit(segment.start_switch, self.state), *(pool.submit(h.up) for h in self.hosts.values())]
            try:
                for job in jobs:
                    job.result()
            except BaseException:
                for job in jobs:
                    job.cancel()
                raise

    def _make_hosts(self) -> None:
        self.hosts = {name: Host(facts, self.state) for name, facts in self.state.now.hosts.items()}

    def down(self) -> bool:
        """Take the lab away in whatever state it is. Returns False when there was none."""
        self.hosts = {}
        self._claimed = False
        return teardown.take_down(self.state)

    # -- parts

    @property
    def segment(self) -> Ovs:
        """The Open vSwitch that plays the physical network: bridges seg (physnet1) and seg2."""
        return segment.switch(self.state)

    @property
    def outside(self) -> str:
        """Namespace of the outside machine; its eth0 is a trunk of physnet1 (eth1 of physnet2) and shows raw tags."""
        return f"{self.name}-out"

    def outside_vlan(self, vlan: int) -> str:
        """Namespace of the outside machine's access port in a VLAN, with 10.0.10.254/24."""
        if vlan not in self.state.now.vlans:
            raise LabError(f"no outside port in VLAN {vlan}; there are {self.state.now.vlans}")
        return f"{self.name}-out{vlan}"

    @property
    def pki(self) -> Pki:
        """The authority of a lab with `tls`."""
        return Pki(self.state.pki)

    @property
    def controller(self) -> Controller:
        """The fleetswitch controller of this lab; `start()` starts it."""
        return Controller(self.state)

    def fleet_yaml(self, *, tcp: bool = False) -> str:
        """The lab's hosts as documents for `fleetswitch apply`."""
        return fleet_yaml(self.state.now, self.hosts, tcp=tcp)

    def host(self, name: str) -> Host:
        """One host by name. Raises LabError naming those that are there."""
        try:
            return self.hosts[name]
        except KeyError:
            raise LabError(f"no host {name!r}; there are {' '.join(self.hosts)}") from None

    # -- guests

    def start_light(self, host: str, name: str, nics: Sequence[Nic], bridge: str = "br-int") -> LightGuest:
        """Start one light guest."""
        return self.start_lights(host, [(name, nics)], bridge)[0]

    def start_lights(
        self, host: str, wanted: Sequence[tuple[str, Sequence[Nic]]], bridge: str = "br-int"
    ) -> list[LightGuest]:
        """Start many light guests on one host at once: (name, vNICs) each."""
        return light.start(self.host(host), wanted, self.state, bridge)

    def stop_lights(self, guests: Sequence[LightGuest]) -> None:
        """Stop many light guests: one transaction a host."""
        light.stop(guests, self.state)

    def define_guest(self, host: str, name: str, nics: Sequence[Nic] = ()) -> Guest:
        """Define a real guest on a host; `start()` boots it."""
        return Guest.define(name, self.host(host), nics, self.hosts, self.state)

    def start_guest(self, host: str, name: str, nics: Sequence[Nic] = (), *, wait: bool = True) -> Guest:
        """Define and boot a real guest; with `wait`, return when its console answers."""
        guest = self.define_guest(host, name, nics)
        guest.start(wait)
        return guest

    def guest(self, name: str) -> Guest | LightGuest:
        """A guest that was started before, by this process or another."""
        facts = self.state.load().guests.get(name)
        if facts is None:
            names = list(self.state.now.guests)
            more = f" and {len(names) - 20} more" if len(names) > 20 else ""
            raise LabError(f"no guest {name!r}; there are {' '.join(names[:20]) or 'none'}{more}")
        if facts.kind == "light":
            return LightGuest(facts, self.host(facts.host), self.state)
        return Guest(facts, self.hosts, self.state)


def _free_networks() -> tuple[str, str]:
    """Two neighbouring /24s of 172.31.0.0/16 that no route of this machine and no other lab uses."""
    used = set(re.findall(r"\b172\.31\.\d+", run(["ip", "-4", "route", "show", "table", "all"]).stdout))
    for other in ROOT.iterdir():
        with contextlib.suppress(LabError):
            state = StateFile(other.name).load()
            used |= {state.mgmt_net, state.underlay_net}
    for third in range(0, 256, 2):
        mgmt, underlay = f"172.31.{third}", f"172.31.{third + 1}"
        if not used & {mgmt, underlay}:
            return mgmt, underlay
    raise LabError("every /24 of 172.31.0.0/16 is in use")
