"""Whatever happens, vNICs are judged as if all had been looked at: beside the Guests that look only at what an event
can concern, others start from nothing at each event."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from guest_views import MAC1, MAC2, NETWORKS, WEB1, WEB2, domain, host, row, vnic
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from controller.model.network import NetworkSpec, PortGroup
from controller.model.port import PortSpec, PortStatus, port_name
from controller.ovsdb.host import HookRow
from topology.guests import Changes, Guests, HostView
from topology.hook_reports import Report, Socket
from topology.index import Wanted
from topology.judgement import Witness
from topology.places import Places

HOSTS = "kvm1", "kvm2", "kvm3"
UUIDS = WEB1, WEB2, "00000000-0000-4000-8000-000000000003"
NAMES = "web1", "web2"
MACS = MAC1, MAC2
TAPS = "vnet0", "vnet1", "vnet2"
PLACES = [("web", "default")] * 3 + [("lan", "private"), ("lan", "passthrough"), ("web", "db"), ("lab", "default")]
ADDRESSES = "10.0.0.1", "10.0.0.2", "fd00::1"
IDENTITIES = [(uuid, mac) for uuid in UUIDS for mac in MACS]
ROWS = "front", "back", port_name(WEB1, MAC1)
LEARNING = NetworkSpec(
    mode="isolated",
    portgroups={"default": PortGroup(learn_addresses=1), "db": PortGroup(vlan=20)},
    reserved_addresses=("10.0.0.2",),
)
NETWORK_SETS: list[dict[str, NetworkSpec]] = [
    NETWORKS,
    {**NETWORKS, "web": LEARNING},
    {"web": NETWORKS["web"]},
    {"web": LEARNING, "lan": NetworkSpec(mode="bridge", physical_network="phys1", portgroups={"private": PortGroup()})},
]

hosts, uuids, macs = st.sampled_from(HOSTS), st.sampled_from(UUIDS), st.sampled_from(MACS)
places = st.sampled_from(PLACES)


class Whole(Guests):
    """Knows nothing of the last time but what hosts showed."""

    def evaluate(self, wanted: Wanted, known: Mapping[str, PortStatus], stale: Iterable[str] | None) -> Changes:
        self._index = None
        return super().evaluate(wanted, known, stale)


@st.composite
def shown(draw: st.DrawFn) -> dict[str, Any]:
    """All that one host shows: few names and numbers, so that guests meet all the time."""
    rows, vnics, reports = {}, [], {}
    for tap in draw(st.lists(st.sampled_from(TAPS), unique=True, min_size=1, max_size=3)):
        uuid, mac, (network, group) = draw(uuids), draw(macs), draw(places)
        ofport = draw(st.sampled_from([5, 6, 7, 8, 5, 6, 7, None]))
        profile = draw(st.sampled_from([f"{network}:{group}"] * 9 + [None]))
        if draw(st.integers(0, 9)) != 9:
            device = draw(st.sampled_from([True] * 9 + [False]))
            its = draw(st.sampled_from([uuid] * 12 + [uuid.upper(), None]))
            rows[tap] = row(its, mac, tap, ofport=ofport, profile=profile, device=device)
        view = vnic(mac, tap, network, portgroup=group)
        if draw(st.integers(0, 9)) != 9:
            vnics.append((uuid, view))
        if draw(st.integers(0, 4)) != 4:
            reports[tap] = Report(
                draw(st.sampled_from(NAMES)), view if draw(st.booleans()) else None,
                Socket(uuid, NAMES[0], mac, "i1", network, group),
            )  # fmt: skip
    names = {uuid: draw(st.sampled_from(NAMES)) for uuid in sorted({uuid for uuid, _ in vnics})}
    domains = {uuid: domain(*(v for u, v in vnics if u == uuid), uuid=uuid, name=name) for uuid, name in names.items()}
    witness = draw(st.sampled_from([Witness.PRESENT] * 4 + [Witness.AWAY, Witness.HOOK, Witness.NONE]))
    return {
        "vnics": rows,
        "witness": witness,
        "domains": domains if witness is Witness.PRESENT else {},
        "reports": reports if witness is Witness.HOOK else {},
        "hook": HookRow("1 no") if witness is Witness.HOOK else HookRow(),
        "asking": set(draw(st.lists(uuids, max_size=1))),
    }  # fmt: skip


class Events(RuleBasedStateMachine):
    """What may happen to a fleet; ``stale`` is as the observer says it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.hosts = {name: host(number) for number, name in enumerate(HOSTS, 1)}
        self.networks: dict[str, NetworkSpec] = dict(NETWORKS)
        self.registered: dict[str, PortSpec] = {}
        self.leased: dict[tuple[str, str], tuple[str, ...]] = {}
        self.floating: list[str] = []
        self.known: dict[str, PortStatus] = {}
        self.written = Changes()
        self.begin()

    def begin(self) -> None:
        self.both = self.guests()
        self.views = {name: HostView(Witness.AWAY) for name in self.hosts}
        for guests in self.both:
            guests.hosts = dict(self.views)
            guests.places = Places(lambda: self.now)
        self.judge(None)

    def guests(self) -> tuple[Guests, Guests]:
        return Guests(), Whole()

    def judge(self, stale: set[str] | None) -> None:
        wanted = Wanted(self.hosts, self.networks, self.registered, self.leased, self.floating)
        quick, whole = (guests.evaluate(wanted, self.known, stale) for guests in self.both)
        assert quick == whole
        one, other = self.both
        assert (one.claimed, one.places.settled, one.places._left) == (
            other.claimed, other.places.settled, other.places._left
        )  # fmt: skip
        self.written = quick

    def write(self, names: set[str]) -> None:
        """These are in the store now."""
        self.known |= {name: status for name, status in self.written.statuses.items() if name in names}
        for name in self.written.gone & names:
            self.known.pop(name, None)

    @initialize(told=st.tuples(shown(), shown(), shown()))
    def all_tell(self, told: tuple[dict[str, Any], ...]) -> None:
        for name, each in zip(HOSTS, told, strict=True):
            self.tells_all(name, each, True)

    @rule(name=hosts, told=shown(), is_written=st.booleans())
    def tells(self, name: str, told: dict[str, Any], is_written: bool) -> None:
        self.tells_all(name, told, is_written)

    @rule(told=st.tuples(shown(), shown()), is_written=st.booleans())
    def some_tell(self, told: tuple[dict[str, Any], ...], is_written: bool) -> None:
        for name, each in zip(HOSTS, told, strict=False):
            self.tells_all(name, each, is_written)

    def tells_all(self, name: str, told: dict[str, Any], is_written: bool) -> None:
        if name not in self.hosts:
            return
        view = self.views[name]
        view.alive = view.reached = True
        for field, value in told.items():
            setattr(view, field, value)
        self.judge({name})
        if is_written:
            self.is_written()

    @rule(name=hosts, other=hosts, tap=st.sampled_from(TAPS), ofport=st.sampled_from([5, 6, 9]))
    def copies(self, name: str, other: str, tap: str, ofport: int) -> None:
        """A guest comes up on another host, too."""
        if not {name, other} <= self.hosts.keys() or name == other or tap not in self.views[name].vnics:
            return
        here, there = self.views[name], self.views[other]
        there.alive = there.reached = True
        there.witness, there.domains = here.witness, {**there.domains, **here.domains}
        one = here.vnics[tap]
        there.vnics = {**there.vnics, tap: row(one.vm_uuid, one.mac, tap, ofport=ofport, profile=one.profile)}
        there.reports = {**there.reports, **here.reports}
        self.judge({other})
        self.is_written()

    @rule(name=hosts, alive=st.booleans(), reached=st.booleans())
    def connects(self, name: str, alive: bool, reached: bool) -> None:
        if name in self.hosts:
            self.views[name].alive, self.views[name].reached = alive, reached
            self.judge({name})

    @rule(name=hosts, ofports=st.frozensets(st.sampled_from([5, 6, 7, 9])))
    def arrive(self, name: str, ofports: frozenset[int]) -> None:
        if name in self.hosts:
            self.views[name].arrived = ofports
            self.judge({name})

    @rule(uuid=uuids, name=hosts)
    def moves(self, uuid: str, name: str) -> None:
        for guests in self.both:
            guests.places.settled[uuid] = name

    @rule(name=hosts, identity=st.sampled_from(IDENTITIES), claimed=st.lists(st.sampled_from(ADDRESSES), min_size=1))
    def claims(self, name: str, identity: tuple[str, str], claimed: list[str]) -> None:
        for guests in self.both:
            guests.claimed[identity] = tuple(claimed)
        self.judge({name})

    @rule(network=st.sampled_from(["web", "lan"]), mac=macs, addresses=st.lists(st.sampled_from(ADDRESSES), max_size=2))
    def leases(self, network: str, mac: str, addresses: list[str]) -> None:
        self.leased = {**self.leased, (network, mac): tuple(addresses)}
        self.judge({status.host for status in self.known.values() if status.host and status.mac == mac})

    @rule(row=st.sampled_from(ROWS), vm=st.sampled_from([*NAMES, WEB1, WEB2]), mac=macs, place=places,
          libvirt=st.booleans(), addresses=st.lists(st.sampled_from(ADDRESSES), max_size=1))  # fmt: skip
    def registers(
        self, row: str, vm: str, mac: str, place: tuple[str, str], libvirt: bool, addresses: list[str]
    ) -> None:
        self.registered[row] = PortSpec(
            vm=vm, mac=mac, network=place[0], portgroup=place[1], libvirt=libvirt, addresses=tuple(addresses)
        )
        self.judge(None)

    @rule(row=st.sampled_from(ROWS))
    def registers_no_more(self, row: str) -> None:
        self.registered.pop(row, None)
        self.judge(None)

    @rule(networks=st.sampled_from(NETWORK_SETS), floating=st.lists(st.sampled_from(ADDRESSES), max_size=1))
    def wants(self, networks: dict[str, NetworkSpec], floating: list[str]) -> None:
        self.networks, self.floating = dict(networks), floating
        self.judge(None)

    @rule(name=hosts, is_told=st.booleans())
    def comes_or_goes(self, name: str, is_told: bool) -> None:
        """A host; perhaps its row is only to be deleted."""
        if name not in self.hosts:
            self.hosts[name] = host(HOSTS.index(name) + 1)
            if name not in self.both[0].hosts:
                self.views[name] = HostView(Witness.AWAY)
                for guests in self.both:
                    guests.hosts[name] = self.views[name]
        else:
            del self.hosts[name]
            for guests in self.both if is_told else ():
                guests.forget(name)
        self.judge(None)

    @rule()
    def is_written(self) -> None:
        """All of it, and the rows are looked at again."""
        for _ in range(2):
            self.write(self.written.statuses.keys() | self.written.gone)
            self.judge(set())

    @precondition(lambda self: self.written.statuses)
    @rule(data=st.data())
    def is_written_in_part(self, data: st.DataObject) -> None:
        self.write(set(data.draw(st.lists(st.sampled_from(sorted(self.written.statuses)), unique=True))))
        self.judge(set())

    @precondition(lambda self: self.known)
    @rule(data=st.data(), change=st.sampled_from([
        None, {"state": "active"}, {"state": "quarantined"}, {"vm": "web2"}, {"vm": None}, {"host": "kvm2"},
        {"host": None, "state": "absent"}, {"mac": MAC2}, {"vm_uuid": WEB2}, {"learned": ("10.0.0.1",)},
    ]))  # fmt: skip
    def somebody_writes(self, data: st.DataObject, change: dict[str, Any] | None) -> None:
        name = data.draw(st.sampled_from(sorted(self.known)))
        if change is None:
            del self.known[name]
        else:
            self.known[name] = self.known[name].model_copy(update=change)
        self.judge(set())

    @rule(seconds=st.sampled_from([1.0, 20.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.judge(set())

    @rule()
    def starts_again(self) -> None:
        """The controller; what the store has stays."""
        self.begin()


TestEvents = Events.TestCase
TestEvents.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)
