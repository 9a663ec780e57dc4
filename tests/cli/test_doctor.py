"""doctor: findings as people read them, and the exit code."""

from __future__ import annotations

import json
from collections.abc import Callable

from click.testing import Result

from controller.api.operations import Finding
from tests.api.fake_fleet import Served
from tests.api.http_talk import ask

Run = Callable[..., Result]
HOST = '{kind: Host, name: kvm01, ovsdb: "tcp:192.0.2.1:6640"}'
ERROR = Finding("error", "connection", "Host kvm01: ovsdb", "is down: refu\x1bsed", "on kvm01: ovs-vsctl ...", "kvm01")
WARNING = Finding("warning", "mtu", "vNIC x of web1", "its MTU is 9000", "", "kvm02")
INFO = Finding("info", "clock", "hosts", "skew is unknown", "timedatectl")


def test_a_fleet_that_is_well(run: Run, served: Served) -> None:
    served.fleet.findings = [INFO]
    result = run("doctor")
    assert (result.exit_code, result.stderr) == (0, "nothing is wrong\n")
    assert result.stdout == "info     hosts: skew is unknown\n         -> timedatectl\n"


def test_what_is_wrong_where_and_what_to_type(run: Run, served: Served) -> None:
    served.fleet.findings = [ERROR, WARNING, INFO]
    result = run("doctor")
    assert (result.exit_code, result.stderr) == (1, "1 error, 1 warning\n")
    assert result.stdout.splitlines()[:3] == [
        "error    Host kvm01: ovsdb: is down: refu\\x1bsed", "         -> on kvm01: ovs-vsctl ...",
        "warning  vNIC x of web1: its MTU is 9000",
    ]  # fmt: skip
    assert run("doctor", "-o", "json").exit_code == 1
    assert [item["check"] for item in json.loads(run("doctor", "-o", "json").stdout)] == ["connection", "mtu", "clock"]


def test_one_host_and_one_check(run: Run, served: Served) -> None:
    served.fleet.findings = [ERROR, WARNING, INFO]
    assert run("apply", "-f", "-", stdin=HOST).exit_code == 0
    assert "kvm01" in run("doctor", "kvm01").stdout
    assert "web1" not in run("doctor", "kvm01").stdout
    assert run("doctor", "--check", "clock").exit_code == 0
    assert run("doctor", "kvm09").exit_code == 1
    found = ask(served.port, "GET", "/api/v1/doctor?severity=warning").json
    assert [item["place"] for item in found["items"]] == [WARNING.place]
