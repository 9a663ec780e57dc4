"""Whatever the OpenAPI document allows or does not is answered as it says, by a real controller with a host that is up;
every operation is seen to succeed, and nothing makes it stumble."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from coordinated import MAC1, WEB1, Fleet, coordinated, documents, hosts_thread, plug
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from ovsdb_servers import idl_thread, run, until, vswitch
from plugs_in import PlugsIn
from schemathesis import GenerationMode
from schemathesis.core import NOT_SET
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from told_switch import ToldSwitch

from controller.api import routes
from controller.api.app import create_app
from controller.api.endpoints import STOPPING
from controller.api.guard import UNIX
from controller.model.documents import dump_spec
from controller.pipeline.cookies import is_own

EXAMPLES = {GenerationMode.POSITIVE: 12, GenerationMode.NEGATIVE: 6}  # of each operation
FLEET = """\
{{kind: Host, name: kvm1, ovsdb: "{}", tunnel_ip: 192.0.2.1, uplinks: {{phys1: {{interface: eth1}}}},
  external: {{uplink: phys1, address: 203.0.113.11/24, gateway: 203.0.113.1}}}}
---
{{kind: Network, name: pool, mode: nat, subnets: [198.51.100.0/24]}}
---
{{kind: Network, name: web, mode: isolated, portgroups: {{quiet: {{isolation: isolated}}}}}}
---
{{kind: Port, name: front, vm: web1, mac: "52:54:00:00:00:0f", network: web, addresses: [192.0.2.7]}}
---
{{kind: PortForward, name: door, network: pool, listen: {{port: 8080}}, target: {{vm: web1, port: 80}}}}
---
{{kind: BgpPeer, name: tor, address: 203.0.113.1, remote_as: 64512, local_as: 64513}}
---
{{kind: FloatingIP, name: own, network: pool, address: 203.0.113.50, target: {{vm: web1}}}}
"""
SPARE = """\
---
{kind: Host, name: kvm2, ovsdb: "unix:/nonexistent/kvm2"}
---
{kind: Network, name: spare, mode: isolated}
"""
XML = b"<network><name>spare</name><bridge name='virbr7'/></network>"
# What there is, for path and query parameters; what else is text finds nothing.
_NAMES = {"hosts": "kvm1", "networks": "web", "ports": "front", "portforwards": "door", "bgppeers": "tor",
          "floatingips": "own", "topology": "kvm1"}  # fmt: skip
_SPARE = {
    "hosts": "kvm2",
    "networks": "spare",
    "ports": "front",
    "portforwards": "door",
    "bgppeers": "tor",
    "floatingips": "own",
}  # what nobody uses, to be deleted
_REAL = {"from": WEB1, "to": "front", "host": "kvm1", "network": "web", "guest": WEB1, "port": MAC1, "vm": "web1",
         "table": "classify", "owner": "fleetswitch", "state": "installed", "since": "15m", "kind": "Host",
         "command": "add-last", "section": "portgroup"}  # fmt: skip
_CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]
_settings = settings(
    deadline=None, database=None, derandomize=True, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)


class Fuzz:
    """Asks ``app`` for everything that its document describes. ``statuses`` are those that were seen, by operation;
    ``restore`` makes the fleet again what it was before somebody changed it."""

    def __init__(self, app: Any, cookie: str, bodies: dict[str, Any], restore: Callable[[], None]) -> None:
        self.statuses: defaultdict[str, set[int]] = defaultdict(set)
        self._app, self._cookie, self._bodies, self._restore = app, cookie, bodies, restore

    def everything(self) -> None:
        """Those that read come first, as long as the host is what it is. Where every text is possible, there is nothing
        that the document does not allow."""
        schema = schemathesis.openapi.from_wsgi("/openapi.json", self._app)
        operations = [found.ok() for found in schema.get_all_operations()]
        for operation in sorted(operations, key=lambda one: one.method.upper() != "GET"):
            for mode, examples in EXAMPLES.items():
                with contextlib.suppress(*(() if mode.is_positive else (Unsatisfiable,))):
                    self._operation(operation, mode, examples)

    def _operation(self, operation: Any, mode: GenerationMode, examples: int) -> None:
        name = operation.definition.raw["operationId"]

        @settings(_settings, max_examples=examples)
        @given(case=operation.as_strategy(generation_mode=mode), real=st.booleans())
        def holds(case: Any, real: bool) -> None:
            if real:
                self._make_real(name, case)
            if operation.method.upper() != "GET":
                self._restore()
            response = case.call()
            self.statuses[name].add(response.status_code)
            case.validate_response(response, checks=_CHECKS)
            if response.status_code >= 500:
                assert excused(response), f"{case.as_curl_command()}: {response.status_code} {response.text}"

        holds()

    def _make_real(self, name: str, case: Any) -> None:
        """Name what there is, and send a body that is right."""
        word = case.path.split("/")[3] if case.path.count("/") > 2 else ""
        if case.path_parameters:
            names = _SPARE if case.method.upper() == "DELETE" else _NAMES
            case.path_parameters = {"cookie": self._cookie} if word == "flows" else {"name": names[word]}
            if name == "importNetwork":
                case.path_parameters["network"] = "default"
        case.query = {
            key: _REAL[key] if isinstance(value, str) else value for key, value in (case.query or {}).items()
            if key in _REAL or not isinstance(value, str)
        }  # fmt: skip
        if name == "tracePacket":
            case.query.pop("port", None)  # an echo has none
        case.headers = {}
        if case.body is not NOT_SET:
            media = "xml" if name in {"defineNetwork", "updateNetwork"} else "json"
            case.media_type, case.body = f"application/{media}", self._bodies[name]


def excused(response: Any) -> bool:
    """A host that does not answer, a place that is taken, and a controller that says what it waits for."""
    if response.status_code == 502:
        return True
    body = response.json()
    return response.status_code == 503 and (body.get("type") == "urn:fleetswitch:problem:busy" or body.get("live"))


# what makes a body wrong, schemathesis chooses by chance of its own
@pytest.mark.filterwarnings("ignore:Do not use the `random` module")
def test_every_operation_keeps_what_its_document_promises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "WAIT_SLICE", 0.01)

    async def main() -> None:
        with vswitch(tmp_path / "kvm1") as server, hosts_thread() as connect, idl_thread() as thread:
            async with coordinated(tmp_path, connect) as fleet:
                vswitchd = PlugsIn(server, thread)
                text = FLEET.format(server.remote)
                applied = await fleet.apply(text)
                switch = ToldSwitch()
                switch.connect(fleet.coordinator.agents["kvm1"].switch)
                await fleet.confirmed(applied)
                plug(server)
                vnics = fleet.coordinator.desired.statuses
                await until(lambda: any(vnic.state == "active" for vnic in vnics.values()), "a guest runs")
                await fleet.confirmed(fleet.coordinator.sequence)
                cookie = next(cookie for _, cookie in sorted(switch.flows) if is_own(cookie))
                statuses = await asyncio.to_thread(fuzz, fleet, text, f"{cookie:#x}", asyncio.get_running_loop())
                await vswitchd.stop()
        del statuses["importNetwork"]  # the host has no libvirt
        never = {name: seen for name, seen in statuses.items() if not seen & {200, 202}}
        assert not never, "operations that were never seen to succeed"

    run(main(), within=150)


def fuzz(fleet: Fleet, text: str, cookie: str, loop: asyncio.AbstractEventLoop) -> dict[str, set[int]]:
    """The statuses that each operation was answered with."""

    def call(coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(20)

    app = create_app(call, fleet.operations)

    def through_unix(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ |= {UNIX: True, STOPPING: lambda: True}  # nothing waits for longer than a slice
        return app(environ, start_response)

    specs = {f"put{document.kind}": dump_spec(document.spec) for document in documents(text)}
    front = {"kind": "Port", "name": "front"}
    bodies = {**specs, "apply": {**front, **specs["putPort"]}, "delete": front, "defineNetwork": XML,
              "updateNetwork": b"<portgroup name='more'/>"}  # fmt: skip
    fuzzing = Fuzz(through_unix, cookie, bodies, lambda: call(fleet.apply(text + SPARE)))
    fuzzing.everything()
    return fuzzing.statuses
