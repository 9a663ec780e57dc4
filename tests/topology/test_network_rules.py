"""Every element and attribute of libvirt's own schema has its row in the table, and the row comes true."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement, tostring

import pytest

from controller.errors import InvalidInput, Problem
from topology.network_definition import define_network, read_network_xml
from topology.network_findings import Findings
from topology.network_rules import DNSMASQ, MODES, RULES

SCHEMAS = Path("/usr/share/libvirt/schemas")
RNG = "{http://relaxng.org/ns/structure/1.0}"
NEWER = {"title", "description"}  # libvirt 9.7 and later


@cache
def defines() -> dict[str, Element]:
    found = {}
    for file in ("basictypes.rng", "networkcommon.rng", "network.rng"):
        for one in ElementTree.parse(SCHEMAS / file).iter(f"{RNG}define"):
            found[one.get("name", "")] = one
    return found


def paths(pattern: Element, above: str = "") -> Iterator[str]:
    """What a schema lets stand below a path."""
    for part in pattern:
        if part.tag == f"{RNG}ref":
            if (name := part.get("name", "")) not in {"metadata", "ipAddr", "ipv4Addr", "UUID"} and name in defines():
                yield from paths(defines()[name], above)
            elif name == "metadata":
                yield f"{above}/metadata".lstrip("/")
        elif part.tag == f"{RNG}attribute":
            yield f"{above}@{part.get('name')}"
        elif part.tag == f"{RNG}element":
            name = ("dnsmasq:" if part.get("ns") == DNSMASQ or above == "dnsmasq:options" else "") + part.get(
                "name", ""
            )
            inner = f"{above}/{name}".lstrip("/")
            yield inner
            yield from paths(part, inner)
        else:
            yield from paths(part, above)


@pytest.mark.skipif(not SCHEMAS.is_dir(), reason="libvirt's schemas are not installed")
def test_the_table_knows_all_that_libvirts_schema_knows() -> None:
    network = next(part for part in defines()["network"] if part.tag == f"{RNG}element")
    known = set(paths(network))
    assert len(known) > 100
    assert known - set(RULES) == set()
    assert set(RULES) - known == NEWER


def document(path: str, value: str = "7") -> str:
    """A network with that element or attribute and what is above it."""
    root = Element("network")
    SubElement(root, "name").text = "blue"
    steps, _, attribute = path.partition("@")
    at = root
    for step in steps.split("/") if steps else ():
        at = SubElement(at, step.replace("dnsmasq:", f"{{{DNSMASQ}}}"))
        at.attrib |= {"portgroup": {"name": "web"}, "ip": {"address": "10.1.0.1", "prefix": "24"}}.get(step, {})
    if attribute:
        at.set(attribute, value)
    if "forward" in steps and RULES[path].verdict == "ignored":  # what is routed needs a subnet
        SubElement(root, "ip", address="10.1.0.1", prefix="24")
    return tostring(root, encoding="unicode")


def chain(path: str) -> list[str]:
    """The rows that such a document goes through, from above."""
    steps, at, attribute = path.partition("@")
    parts = steps.split("/") if steps else []
    found = ["/".join(parts[: number + 1]) for number in range(len(parts))]
    return [*found, f"{steps}@{attribute}"] if at else found


def place(path: str) -> str:
    named = path.replace("portgroup", "portgroup web", 1) if path.startswith("portgroup") else path
    return f"network{named}" if named.startswith("@") else f"network/{named}"


def problems(xml: str) -> list[Problem]:
    with pytest.raises(InvalidInput) as caught:
        define_network(read_network_xml(xml))
    return list(caught.value.problems)


@pytest.mark.parametrize("path", [path for path, rule in RULES.items() if rule.verdict == "refused"])
def test_what_is_refused_is_named_with_the_reason_and_what_to_do(path: str) -> None:
    row = next(row for row in chain(path) if RULES[row].verdict == "refused")
    told = {problem.where: problem for problem in problems(document(path, "yes"))}
    assert RULES[row].about in told[place(row)].what
    assert told[place(row)].remedy == RULES[row].remedy != ""


@pytest.mark.parametrize("path", [path for path, rule in RULES.items() if rule.verdict == "ignored"])
def test_what_is_ignored_is_told_with_the_reason(path: str) -> None:
    told = {problem.where: problem.what for problem in define_network(read_network_xml(document(path))).warnings}
    assert RULES[path].about in told[place(path)]
    assert told[place(path)].endswith("; ignored")


@pytest.mark.parametrize(("path", "value"), [(path, value) for path, rule in RULES.items() for value in rule.neutral])
def test_what_says_only_what_holds_anyway_costs_no_word(path: str, value: str) -> None:
    findings = Findings()
    findings.judge(ElementTree.fromstring(document(path, value)))
    assert (findings.problems, findings.warnings) == ([], [])
    assert path not in findings.taken


def test_the_ports_that_libvirt_writes_by_itself_cost_no_word() -> None:
    ports = "<network><forward mode='nat'><nat><port start='{}' end='65535'/></nat></forward></network>"
    findings = Findings()
    findings.judge(ElementTree.fromstring(ports.format("1024")))
    assert (findings.problems, findings.warnings) == ([], [])
    assert findings.taken.keys() == {"forward@mode"}
    findings.judge(ElementTree.fromstring(ports.format("2048")))
    assert findings.taken["forward/nat/port@start"] == ["2048"]


@pytest.mark.parametrize("mode", [mode for mode, rule in MODES.items() if rule.verdict == "refused"])
def test_modes_that_are_not_there_are_refused_by_name(mode: str) -> None:
    (problem,) = problems(f"<network><name>blue</name><forward mode='{mode}'/></network>")
    assert problem.where == "network/forward@mode"
    assert f"{mode!r}: {MODES[mode].about}" == problem.what
    assert problem.remedy == MODES[mode].remedy
