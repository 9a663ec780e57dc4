"""Whatever the OpenAPI document allows is answered as it says, by a real controller; nothing makes it stumble."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from coordinated import coordinated
from hypothesis import HealthCheck, Phase, given, settings
from ovsdb_servers import run
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from controller.api import routes
from controller.api.app import create_app
from controller.api.endpoints import STOPPING
from controller.api.guard import UNIX

EXAMPLES = 6  # of each operation
FLEET = """\
{kind: Host, name: kvm1, ovsdb: "tcp:192.0.2.1:6640", tunnel_ip: 192.0.2.1}
---
{kind: Network, name: web, mode: isolated, portgroups: {quiet: {isolation: isolated}}}
---
{kind: Port, name: front, vm: web1, mac: "52:54:00:00:00:01", network: web}
"""
_SETTINGS = settings(
    max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
_CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]
_TROUBLE_OF_OTHERS = {502, 503, 504}  # a host is not there, or does not answer


def fuzz(app: Any) -> int:
    """How many operations were tried."""
    schema = schemathesis.openapi.from_wsgi("/openapi.json", app)
    tried = 0
    for found in schema.get_all_operations():
        operation = found.ok()

        @_SETTINGS
        @given(case=operation.as_strategy())
        def holds(case: Any) -> None:
            response = case.call()
            checks = _CHECKS if response.status_code in _TROUBLE_OF_OTHERS else [*_CHECKS, not_a_server_error]
            case.validate_response(response, checks=checks)

        holds()
        tried += 1
    return tried


def test_every_operation_keeps_what_its_document_promises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "WAIT_SLICE", 0.01)

    async def main() -> None:
        async with coordinated(tmp_path) as fleet:
            await fleet.apply(FLEET)
            loop = asyncio.get_running_loop()

            def call(coroutine: Coroutine[Any, Any, Any]) -> Any:
                return asyncio.run_coroutine_threadsafe(coroutine, loop).result(20)

            app = create_app(call, fleet.operations)

            def through_unix(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
                environ |= {UNIX: True, STOPPING: lambda: True}  # nothing waits for longer than a slice
                return app(environ, start_response)

            assert await asyncio.to_thread(fuzz, through_unix) > 30

    run(main(), within=100)
