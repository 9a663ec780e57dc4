"""Networks as libvirt's XML over HTTP: defined, given back, taken over from a host."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any

import pytest

from controller.model.network import NetworkSpec, network_uuid
from tests.api.fake_fleet import VM, Served

NAT = """<network><name>lab</name><forward mode='nat'/><bridge name='virbr9'/>
<ip address='10.9.0.1' prefix='24'><dhcp><range start='10.9.0.10' end='10.9.0.20'/></dhcp></ip></network>"""


def ask(served: Served, method: str, path: str, xml: str | None = None, media: str = "application/xml") -> Any:
    """Status, content type and body of the answer, through the unix socket."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(served.socket))
    body = xml.encode() if xml is not None else None
    connection.request(method, f"/api/v1{path}", body, {"Content-Type": media} if xml is not None else {})
    response = connection.getresponse()
    text, kind = response.read().decode(), response.headers["Content-Type"]
    connection.close()
    return response.status, kind, json.loads(text) if "json" in kind else text


def test_a_file_becomes_a_network_and_is_given_back(served: Served) -> None:
    status, _, answer = ask(served, "POST", "/define", NAT)
    assert status == 202
    assert [each["action"] for each in answer["outcomes"]] == ["created"]
    assert {"where": "ip@address", "values": ["10.9.0.1"]} in answer["taken"]
    assert [each["where"] for each in answer["warnings"]] == ["network/bridge@name"]
    assert answer["unchecked"] == ""
    status, kind, xml = ask(served, "GET", "/networks/lab/xml")
    assert (status, kind) == (200, "application/xml; charset=utf-8")
    status, _, answer = ask(served, "POST", "/define?wait=1", xml)
    assert (status, answer["outcomes"][0]["action"], answer["warnings"]) == (200, "unchanged", [])
    assert ask(served, "GET", "/networks/nix/xml")[0] == 404


def test_dry_run_changes_nothing(served: Served) -> None:
    status, _, answer = ask(served, "POST", "/define?dry_run=1", NAT)
    assert (status, answer["outcomes"][0]["action"]) == (200, "created")
    assert "+mode: nat" in answer["outcomes"][0]["diff"]
    assert not served.fleet.rows


def test_what_is_refused_changes_nothing_and_the_schema_has_its_word(served: Served) -> None:
    status, _, answer = ask(served, "POST", "/define", NAT.replace("</network>", "<foo/><bandwidth/></network>"))
    assert status == 422
    places = [each["where"] for each in answer["problems"]]
    assert places == ["network/foo", "network/bandwidth", "network"]
    assert "libvirt's schema: " in answer["problems"][2]["what"]
    status, _, answer = ask(served, "POST", "/define", "<network><name>a</name><mtu size='1400' /><port/></network>")
    assert status == 202, answer
    assert ("Network", "lab") not in served.fleet.rows


@pytest.mark.parametrize(
    ("xml", "media", "status"),
    [
        (NAT, "application/json", 415),
        ("<network>", "text/xml", 422),
        ("<!DOCTYPE network SYSTEM 'file:///etc/passwd'><network/>", "application/xml", 422),
        ("<network><name>" + "x" * (2 << 20) + "</name></network>", "application/xml", 422),
    ],
)
def test_what_is_no_network_is_refused(served: Served, xml: str, media: str, status: int) -> None:
    assert ask(served, "POST", "/define", xml, media)[0] == status


def test_a_network_keeps_the_uuid_that_it_has(served: Served) -> None:
    own = network_uuid("lab", NetworkSpec(mode="isolated"))
    named = NAT.replace("<forward", f"<uuid>{VM}</uuid><forward")
    assert ask(served, "POST", "/define", named)[0] == 202
    status, _, answer = ask(served, "POST", "/define", NAT.replace("20", "30"))
    assert (status, answer["outcomes"][0]["action"]) == (202, "changed")
    assert served.fleet.rows["Network", "lab"][0].uuid == VM
    status, _, answer = ask(served, "POST", "/define", named.replace(VM, own))
    assert status == 409
    assert answer["problems"][0]["what"] == f"is there already with the UUID {VM}, not {own}"


def test_a_hosts_network_is_taken_over(served: Served) -> None:
    served.fleet.host_networks["kvm01", "default"] = NAT.replace("lab</name>", f"default</name><uuid>{VM}</uuid>")
    status, _, answer = ask(served, "POST", "/hosts/kvm01/networks/default/import?dry_run=1")
    (clash,) = [each for each in answer["warnings"] if each["where"] == "Host kvm01"]
    assert f"a network default ({VM}) of its own" in clash["what"]
    assert clash["remedy"].endswith("virsh net-destroy default; virsh net-undefine default")
    status, _, answer = ask(served, "POST", "/hosts/kvm01/networks/default/import?name=lab")
    assert status == 202
    assert served.fleet.rows["Network", "lab"][0].uuid is None
    assert not [each for each in answer["warnings"] if each["where"].startswith("Host")]
    assert ask(served, "POST", "/hosts/kvm01/networks/nix/import")[0] == 404


def test_one_element_is_updated(served: Served) -> None:
    ask(served, "POST", "/define", NAT)
    path = "/networks/lab/update?command=add&section=dns-txt"
    status, _, answer = ask(served, "POST", path, "<txt name='note' value='x'/>")
    assert (status, answer["outcomes"][0]["action"]) == (202, "changed")
    assert '<txt name="note" value="x" />' in ask(served, "GET", "/networks/lab/xml")[2]
    status, _, answer = ask(served, "POST", path, "<txt name='note' value='y'/>")
    assert (status, answer["problems"][0]["where"]) == (422, "dns-txt")
    assert ask(served, "POST", path.replace("lab", "nix"), "<txt name='a' value='b'/>")[0] == 404
    assert ask(served, "POST", path.replace("dns-txt", "coffee"), "<txt/>")[0] == 400
    assert ask(served, "POST", "/networks/lab/update?command=add", "<txt/>")[0] == 400
