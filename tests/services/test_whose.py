"""Who has which address: what is found by an index is what a look at everything finds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controller.addresses import Addresses
from controller.leases import Leases
from controller.model.lease import Lease
from controller.services.dhcp_service import Lasting, lasting, still_lasting
from controller.services.offers import OFFER_SECONDS, Offers
from controller.store.rows import Change, Row

MACS, PORTS, PLACES = st.sampled_from("abc"), st.sampled_from(["p", "q", "r"]), st.sampled_from(["1", "2", "3", "::4"])


@given(st.lists(st.tuples(PORTS, st.integers(0, 1), MACS, st.lists(PLACES, max_size=3)), max_size=20))
def test_whose_an_address_is(steps: list[tuple[str, int, str, list[str]]]) -> None:
    index, claims = Addresses(), dict[tuple[int, str], tuple[str, list[str]]]()
    for port, rank, mac, addresses in steps:
        index.put(port, rank, "web", mac, addresses)
        claims[rank, port] = mac, addresses
        owners: dict[str, str] = {}
        for _, (whose, claimed) in sorted(claims.items()):
            for address in claimed:
                owners.setdefault(address, whose)
        assert {a: index.owner("web", a) for a in ("1", "2", "3", "::4")} == {
            a: owners.get(a) for a in ("1", "2", "3", "::4")
        }
        for whose in "abc":
            assert set(index.of("web", whose)) == {a for a, owner in owners.items() if owner == whose}
        assert index.owner("other", "1") is None
    for rank, port in claims:
        index.drop(port, rank)
    assert not any(vars(index).values())  # nothing is kept of those who are gone


@given(st.lists(st.tuples(PLACES, MACS | st.none(), PORTS), max_size=20))
def test_whose_leases_they_are(steps: list[tuple[str, str | None, str]]) -> None:
    leases, known = Leases(), dict[str, Lease]()
    for ip, mac, port in steps:
        if mac is None:
            leases.pop(ip, None)
            known.pop(ip, None)
        else:
            leases[ip] = known[ip] = Lease(network="web", ip=ip, mac=mac, port=port, expires=1)
        assert leases == known
        for each in "abc":
            assert leases.of_mac(each) == {ip: lease for ip, lease in known.items() if lease.mac == each}
        for each in ("p", "q", "r"):
            assert leases.of_port(each) == {ip: lease for ip, lease in known.items() if lease.port == each}


@given(st.lists(st.tuples(PLACES, MACS | st.none(), PORTS, st.integers(0, 20)), max_size=20))
def test_what_is_kept_for_whom(steps: list[tuple[str, str | None, str, int]]) -> None:
    offers, known, now = Offers(), dict[str, tuple[str, str, float]](), 0.0
    for ip, mac, port, passed in steps:
        now += passed
        if mac is None:
            offers.withdraw(ip)
            known.pop(ip, None)
        else:
            offers.put(ip, mac, port, now)
            known = {other: kept for other, kept in known.items() if kept[0] != mac}
            known[ip] = mac, port, now + OFFER_SECONDS
        known = {other: kept for other, kept in known.items() if kept[2] > now}
        for each in ("1", "2", "3", "::4"):
            assert offers.whose(each, now) == (known[each][0] if each in known else None)
        for each in ("p", "q", "r"):
            assert offers.behind(each, now) == {kept[0] for kept in known.values() if kept[1] == each}


STEPS = st.tuples(st.sampled_from(["web", "app"]), PLACES, MACS | st.none(), st.sampled_from([900, 2000]))


@given(st.lists(st.lists(STEPS, max_size=3), max_size=8))
def test_what_changed_leads_to_what_a_look_at_all_leads_to(
    commits: list[list[tuple[str, str, str | None, int]]],
) -> None:
    leases, rows = dict[str, Leases](), dict[str, Row]()
    found: Lasting = {}
    for commit in commits:
        changes = []
        for network, ip, mac, expires in {step[:2]: step for step in commit}.values():
            name, known = f"{network}/{ip}", leases.setdefault(network, Leases())
            old, new = rows.pop(name, None), None
            known.pop(ip, None)
            if mac is not None:
                lease = known[ip] = Lease(network=network, ip=ip, mac=mac, expires=expires)
                new = rows[name] = Row("DhcpLease", name, lease.model_dump())
            changes.append(Change("DhcpLease", name, old, new))
        found = still_lasting(found, leases, changes, 0.0, 1500.0)
        whole = lasting(leases, 0.0, 1500.0)
        assert {key: set(ips) for key, ips in found.items()} == {key: set(ips) for key, ips in whole.items()}
