"""Whatever happens, vNICs are judged as if all had been looked at: beside the Guests that look only at what an event
can concern, others start from nothing at each event."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any
from unittest.mock import patch

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
from topology.judgement import Witness, judge
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
    """Knows nothing of the last time, and looks at all that hosts show."""

    def evaluate(self, wanted: Wanted, known: Mapping[str, PortStatus], stale: Iterable[str] | None) -> Changes:
        self._index = None
        return super().evaluate(wanted, known, None)


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
        self.look()
        self.written = quick

    def look(self) -> None:
        """What a sweep would take away is the same, too."""
        one, other = self.both
        assert [one.left_behind(name) for name in self.views if name in one.hosts] == [
            other.left_behind(name) for name in self.views if name in other.hosts
        ]

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

    @rule(both=st.permutations(HOSTS), identity=st.sampled_from(IDENTITIES),
          profile=st.sampled_from(["lab:default", "web:db", None]))  # fmt: skip
    def is_twice(self, both: list[str], identity: tuple[str, str], profile: str | None) -> None:
        """Another host shows a guest, too, in another network. Then its host is heard no more."""
        name, other, _ = both
        if not {name, other} <= self.hosts.keys():
            return
        self.starts(name, *identity, "web1")
        there = self.views[other]
        there.alive = there.reached = True
        there.vnics = {**there.vnics, "vnet0": row(*identity, profile=profile)}
        self.judge({other})
        self.is_written()
        self.views[name].alive = False
        self.judge({name})

    @rule(name=hosts, uuid=uuids, vm=st.sampled_from([*NAMES, None]))
    def renames(self, name: str, uuid: str, vm: str | None) -> None:
        """A libvirt tells another name of a guest, or of one more; or (None) nothing of it any more."""
        if name not in self.hosts or (view := self.views[name]).witness is not Witness.PRESENT:
            return
        if vm is not None:
            old = view.domains.get(uuid)
            view.domains = {**view.domains, uuid: domain(*(old.vnics if old else ()), uuid=uuid, name=vm)}
        else:
            view.domains = {each: of_it for each, of_it in view.domains.items() if each != uuid}
        self.judge({name})

    @rule(both=st.permutations(HOSTS), guests=st.permutations(UUIDS), mac=macs, vm=st.sampled_from(NAMES),
          then=st.sampled_from(["ends", "is untold", "is away", "is another's"]))  # fmt: skip
    def namesakes(self, both: list[str], guests: list[str], mac: str, vm: str, then: str) -> None:
        """Two hosts have guests of one name with one MAC, which is registered. The first ends, or no libvirt tells of
        it when the other comes, or only then one that does not, or its row is the other's all at once."""
        first, second, _ = both
        if not {first, second} <= self.hosts.keys():
            return
        self.registered["front"] = PortSpec(vm=vm, mac=mac, network="web")
        self.judge(None)
        self.starts(first, guests[0], mac, vm)
        if then == "is untold":
            self.tells_all(first, {"domains": {}}, True)
        elif then == "is away":
            self.tells_all(first, {"witness": Witness.AWAY, "domains": {}}, True)
        self.starts(second, guests[1], mac, vm)
        if then == "is away":
            self.tells_all(first, {"witness": Witness.PRESENT}, True)
        elif then == "ends":
            self.tells_all(first, {"vnics": {}, "domains": {}}, True)
        elif then == "is another's" and "front" in self.known:
            self.known["front"] = self.known["front"].model_copy(update={"vm_uuid": guests[1]})
            self.judge(set())

    @rule(both=st.permutations(HOSTS), is_first=st.booleans())
    def has_anothers_row(self, both: list[str], is_first: bool) -> None:
        """A registration has the row's name that a guest's would have that nobody registered."""
        if not set(both) <= self.hosts.keys():
            return
        self.registered[ROWS[2]] = PortSpec(vm="web2", mac=MAC2, network="web")
        self.judge(None)
        for uuid, mac, vm in sorted([(WEB1, MAC1, "web1"), (WEB2, MAC2, "web2")], reverse=is_first):
            self.starts(both.pop(), uuid, mac, vm)

    def starts(self, name: str, uuid: str, mac: str, vm: str) -> None:
        """Such a guest, and the host has no other."""
        told = {"vnics": {"vnet0": row(uuid, mac)}, "witness": Witness.PRESENT, "reports": {}, "hook": HookRow(),
                "domains": {uuid: domain(vnic(mac), uuid=uuid, name=vm)}, "asking": set()}  # fmt: skip
        self.tells_all(name, told, True)

    @rule(name=hosts, told=shown(), after=st.integers(0, 3))
    def is_at_fault(self, name: str, told: dict[str, Any], after: int) -> None:
        """A judgement fails in the midst of it; the next one takes up nothing of that."""
        if name not in self.hosts:
            return
        quick, remaining = self.both[0], [after]

        def fails(*args: Any) -> Any:
            remaining[0] -= 1
            if remaining[0] < 0:
                raise ZeroDivisionError
            return judge(*args)

        state = dict(quick.claimed), dict(quick.places.settled), dict(quick.places._left)
        for field, value in told.items():
            setattr(self.views[name], field, value)
        self.views[name].alive = self.views[name].reached = True
        wanted = Wanted(self.hosts, self.networks, self.registered, self.leased, self.floating)
        with patch("topology.guests.judge", fails), suppress(ZeroDivisionError):
            quick.evaluate(wanted, self.known, {name})
        quick.claimed, quick.places.settled, quick.places._left = state
        self.judge(set())

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
        self.judge(set(self.hosts))  # really it is where the row says; others follow once that is written

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
TestEvents.settings = settings(max_examples=200, stateful_step_count=25, deadline=None)
