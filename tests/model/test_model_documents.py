"""Documents: what is wrong is told by file, line and field; what is right survives a round trip."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.errors import InvalidInput
from controller.model.documents import MAX_BYTES, MAX_NODES, dump_spec, load_objects, load_yaml, read_spec
from controller.model.host import HostSpec, Uplink
from controller.model.network import NetworkSpec, PortGroup

HOST = "kind: Host\nname: kvm01\novsdb: tcp:192.0.2.1:6640\n"


def problems(text: str) -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        load_yaml(text, "fleet.yaml")
    return [str(problem) for problem in caught.value.problems]


def only(text: str) -> str:
    [problem] = problems(text)
    return problem


def test_several_documents() -> None:
    host, network = load_yaml(HOST + "---\n---\nkind: Network\nname: web\nmode: isolated\ngeneration: 3\n", "f.yaml")
    assert (host.kind, host.name, host.generation, host.where) == ("Host", "kvm01", None, "f.yaml:1")
    assert (network.kind, network.name, network.generation, network.where) == ("Network", "web", 3, "f.yaml:6")
    assert host.spec == HostSpec(ovsdb="tcp:192.0.2.1:6640")


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        (HOST + "ovsbd: x\n", "fleet.yaml:4: Host kvm01: ovsbd", "is not known (did you mean ovsdb?)"),
        (HOST + "zzz: x\n", "fleet.yaml:4: Host kvm01: zzz", "known are: ovsdb, libvirt"),
        ("kind: Host\nname: kvm01\n", "fleet.yaml:1: Host kvm01: ovsdb", "is missing"),
        ("\n\nkind: hots\nname: x\n", "fleet.yaml:3", "kind 'hots' is not known (did you mean Host?)"),
        ("kind: Zebra\nname: x\n", "fleet.yaml:1", "one of: Host, Network, Port"),
        ("name: x\n", "fleet.yaml:1", "kind None is not known"),
        ("kind: [Host]\nname: x\n", "fleet.yaml:1", "is not known"),
        ("kind: Network\nname: 5\nmode: isolated\n", "fleet.yaml:2", "name 5 is no text (put it in quotes"),
        ("kind: Network\nmode: isolated\n", "fleet.yaml:1", "name None is no text"),
        ("kind: Network\nname: 'a b'\nmode: isolated\n", "fleet.yaml:2: Network: name", "'a b' is no usable name"),
        ("kind: Network\nname: " + "n" * 19 + "\nmode: isolated\n", "fleet.yaml:2", "1 to 18 letters"),
        (HOST + "tunnel_ip: 10.0.0.0/8\n", "fleet.yaml:4: Host kvm01: tunnel_ip", "is no IP address"),
        (HOST + "tunnel: stt\n", "fleet.yaml:4: Host kvm01: tunnel", "'stt' is not allowed (one of: 'geneve'"),
        (HOST + "underlay_mtu: 100\n", "fleet.yaml:4: Host kvm01: underlay_mtu", "greater than or equal to 576"),
        (
            HOST + "uplinks:\n  p1:\n    interface: a b\n",
            "fleet.yaml:6: Host kvm01: uplinks.p1.interface",
            "blanks",
        ),
        (HOST + "generation: -1\n", "fleet.yaml:1", "generation -1 is no count"),
        (HOST + "generation: yes\n", "fleet.yaml:1", "generation True is no count"),
        (HOST + "ovsdb: tcp:192.0.2.2:6640\n", "fleet.yaml:4", "names 'ovsdb' a second time"),
        (HOST + "? [a]\n: x\n", "fleet.yaml:4", "uses a list or mapping as a key"),
        (HOST + "tunnel_ip: [\n", "fleet.yaml:5", "is no YAML"),
        (HOST + "tunnel_ip: !!python/object:os.system x\n", "fleet.yaml:4", "is no YAML"),
        (HOST + "tunnel_ip: 2024-99-99\n", "fleet.yaml:4", "is no value"),
        ("- a\n- b\n", "fleet.yaml:1", "is no object but ['a', 'b']"),
        ("just text", "fleet.yaml:1", "is no object"),
        ("", "fleet.yaml", "holds no document"),
        ("---\n---\n", "fleet.yaml", "holds no document"),
        (HOST + "---\n" + HOST, "fleet.yaml:5", "Host kvm01 stands at fleet.yaml:1 already"),
    ],
)
def test_a_problem_names_its_place(text: str, place: str, said: str) -> None:
    problem = only(text)
    assert problem.startswith(place)
    assert said in problem


def test_a_mac_without_quotes_is_told_apart_from_a_wrong_one() -> None:
    """YAML 1.1 reads six pairs of decimal digits as one number of base 60."""
    port = "kind: Port\nname: web1\nvm: web1\nnetwork: web\nmac: {}\n"
    assert "put it in quotes" in only(port.format("52:54:00:12:34:56"))
    assert "is no MAC address" in only(port.format("52:54:00:12:34:zz"))
    [document] = load_yaml(port.format('"52-54-00-12-34-AB"'), "f")
    assert document.spec.mac == "52:54:00:12:34:ab"  # type: ignore[attr-defined]


def test_every_problem_of_every_document_is_told_at_once() -> None:
    text = HOST + "tunnel: stt\nunderlay_mtu: 1\n---\nkind: Network\nname: web\nmode: routed\n"
    assert [problem.split(": ")[0] for problem in problems(text)] == ["fleet.yaml:4", "fleet.yaml:5", "fleet.yaml:9"]


def test_fields_deep_inside_have_lines_of_their_own() -> None:
    text = "kind: Network\nname: web\nmode: isolated\nportgroups:\n  db:\n    vlan: 20\n"
    text += "  all:\n    trunk:\n    - 1\n    - 5000\n"
    assert only(text).startswith("fleet.yaml:10: Network web: portgroups.all.trunk.1: 5000 is no VLAN")


def test_an_alias_bomb_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert "holds too many values" in only("\n".join(lines))


def test_an_alias_of_itself_is_refused() -> None:
    with pytest.raises(InvalidInput):
        load_yaml("kind: Host\nname: x\nuplinks: &a [*a]\n", "f.yaml")


def test_depth_is_refused() -> None:
    assert "nested too deeply" in only("a: " + "[" * 20000)


def test_size_is_refused_before_it_is_read() -> None:
    assert "are too many" in only("#" * (MAX_BYTES + 1))
    assert "holds too many values" in only("a: [" + "1," * (MAX_NODES + 1) + "]")


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        load_yaml(text, "f.yaml")
    except InvalidInput as error:
        assert error.problems  # noqa: PT017


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
FIELDS = st.dictionaries(
    st.sampled_from(["ovsdb", "tunnel_ip", "uplinks", "mode", "portgroups", "vlan", "mac", "vm", "network", "mtu",
                     "addresses", "generation", "status", "physical_network"]),
    JSON,
)  # fmt: skip


@given(st.sampled_from(["Host", "Network", "Port"]), FIELDS)
def test_any_object_is_read_or_refused(kind: str, fields: dict[str, Any]) -> None:
    try:
        [document] = load_objects([{"kind": kind, "name": "x", **fields}])
    except InvalidInput as error:
        assert all(problem.where for problem in error.problems)  # noqa: PT017
    else:
        assert read_spec(kind, "x", dump_spec(document.spec)) == document.spec


def test_objects_of_a_body_are_numbered() -> None:
    with pytest.raises(InvalidInput) as caught:
        load_objects([{"kind": "Network", "name": "web", "mode": "isolated"}, {"kind": "Network", "name": "lan"}, 7])
    assert [problem.where for problem in caught.value.problems] == ["body[1]: Network lan: mode", "body[2]"]


@pytest.mark.parametrize(
    "spec",
    [
        HostSpec(ovsdb="unix:/run/db.sock", tunnel_ip="fd00::1", uplinks={"p1": Uplink(interface="ens224")}),
        NetworkSpec(mode="isolated"),
        NetworkSpec(
            mode="bridge", physical_network="p1", vlan=7,
            portgroups={"all": PortGroup(trunk=(1, 2), native=3, native_mode="tagged")},
        ),
    ],
)  # fmt: skip
def test_a_spec_survives_the_store(spec: HostSpec | NetworkSpec) -> None:
    kind = type(spec).__name__.removesuffix("Spec")
    assert read_spec(kind, "x", dump_spec(spec)) == spec


def test_defaults_are_not_written() -> None:
    assert dump_spec(NetworkSpec(mode="isolated")) == {"mode": "isolated"}


def test_nonsense_in_the_store_is_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match="Network web: mode"):
        read_spec("Network", "web", {"mode": 5})
