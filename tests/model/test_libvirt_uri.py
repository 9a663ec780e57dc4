"""Which libvirt URIs a Host may name."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.errors import InvalidInput
from controller.model.documents import load_yaml
from controller.model.libvirt_uri import check_uri


@pytest.mark.parametrize(
    "uri",
    [
        "qemu+tls://kvm01/system",
        "qemu+tls://kvm01.example.org:16514/system?pkipath=/etc/pki/fleet",
        "qemu+tls://[fd00::1]/system",
        "qemu+tcp://172.31.0.1/system",
        "qemu+unix:///system",
        "qemu+unix:///system?socket=/run/libvirt/libvirt-sock",
        "test:///default",
        "test+unix:///a/node.xml?socket=/run/libvirt-sock",
    ],
)
def test_accepted_as_it_is(uri: str) -> None:
    assert check_uri(uri) == uri


@pytest.mark.parametrize(
    ("uri", "what"),
    [
        ("", "neither qemu+tls"),
        ("kvm01", "neither qemu+tls"),
        ("qemu:///system", "neither qemu+tls"),
        ("qemu+ssh://root@kvm01/system", "neither qemu+tls"),
        ("qemu+ext:///system?command=/bin/sh", "neither qemu+tls"),
        ("xen+tls://kvm01/system", "neither qemu+tls"),
        ("qemu+tls:///system", "names no host"),
        ("qemu+tls://user@kvm01/system", "a user"),
        ("qemu+tls://kvm01:0/system", "port 0"),
        ("qemu+tls://kvm01:70000/system", "Port out of range"),
        ("qemu+tls://kvm01/session", "not /system"),
        ("qemu+tls://kvm01", "not /system"),
        ("qemu+tcp:///system", "names no host"),
        ("qemu+tls://kvm01/system?no_verify=1", "'no_verify'"),
        ("qemu+tls://kvm01/system?command=/bin/sh", "'command'"),
        ("qemu+tcp://kvm01/system?socket=/x", "'socket'"),
        ("qemu+unix://kvm01/system", "names a host"),
        ("qemu+tcp://kvm01/system#x", "a fragment"),
        ("qemu+tcp://kvm01/ system", "spaces"),
        ("qemu+tcp://kvm01/; system", "spaces"),
        ("qemu+tcp://[kvm01/system", "qemu+tcp"),
        ("test:///default?x=1", "'x'"),
        ("test+unix://host/a?socket=/b", "is local and names a host"),
    ],
)
def test_refused_with_what_is_wrong(uri: str, what: str) -> None:
    text = f"kind: Host\nname: kvm01\novsdb: unix:/run/db.sock\nlibvirt: {json.dumps(uri)}\n"
    with pytest.raises(InvalidInput) as caught:
        load_yaml(text, "fleet.yaml")
    (problem,) = caught.value.problems
    assert problem.where == "fleet.yaml:4: Host kvm01: libvirt"
    assert repr(uri.strip()) in problem.what
    assert what in problem.what
    assert problem.remedy.startswith("write qemu+tls://HOST/system")


def refusal(uri: str) -> str:
    try:
        assert check_uri(uri) == uri
    except ValueError as error:
        return str(error)
    return ""


@given(st.text(), st.sampled_from(["", "qemu+tls://", "qemu+unix:", "test:"]))
def test_any_text_is_accepted_as_it_is_or_refused_with_a_remedy(text: str, scheme: str) -> None:
    said = refusal(scheme + text)
    assert not said or (said.startswith(repr(scheme + text)) and "; write qemu+tls" in said)
