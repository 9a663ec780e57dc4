"""A host of which nothing can be made: it says so, and harms no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from coordinated import NAME, Fleet, coordinated, hosts_thread, plug
from ovsdb_servers import Server, idl_thread, run, until, vswitch
from plugs_in import PlugsIn

from controller.api import metrics as m
from controller.errors import InvalidInput
from controller.idl import Database, Listener, OvsdbClient
from controller.store.rows import MarkDeleting, Put

GOOD = "{{kind: Host, name: kvm1, ovsdb: '{}'}}\n---\n{{kind: Network, name: web, mode: isolated}}\n"

# As an older program may have left them, or somebody who writes to the store by hand.
ROWS: list[dict[str, Any]] = [
    {"ovsdb": "tcp:192.0.2.1:6640", "libvirt": "qemu+tls://kvm01"},
    {"ovsdb": "tcp:192.0.2.1:6640", "libvirt": "qemu+tcp:///system"},
    {"ovsdb": "unix:/run/a,b"},
    {"ovsdb": "tcp:192.0.2.1:٦٦٤٠"},
]


async def undriven(fleet: Fleet, name: str) -> str:
    """Why, as host list, doctor and --wait have it."""
    reason = str((await fleet.operations.get("Host", name))["status"]["ovsdb"]["reason"])
    [finding] = [found for found in await fleet.operations.doctor(name) if found.check == "host"]
    assert (finding.place, finding.what, finding.host) == (f"Host {name}", reason, name)
    assert finding.remedy == f"apply it again, or fleetswitch host remove {name}"
    missing = await fleet.operations.wait(fleet.coordinator.sequence, 0.1)
    assert (name, reason) in [(one.host, one.reason) for one in missing]
    return reason


async def others_are_driven(fleet: Fleet, server: Server) -> None:
    """A guest that starts on the good host is switched, and a change reaches it."""
    agent = fleet.coordinator.agents["kvm1"]
    fleet.connect("kvm1")
    await until(lambda: agent.ovsdb.state.state == "up", lambda: str(agent.ovsdb.state), 20)
    plug(server)
    await until(lambda: fleet.status(NAME).get("state") == "active", lambda: str(fleet.status(NAME)), 20)
    sequence = await fleet.apply("{kind: Network, name: lan, mode: isolated}")
    await until(lambda: agent.switch.state.confirmed >= sequence, lambda: str(agent.switch.state), 20)
    await until(lambda: agent.ovsdb.state.confirmed >= sequence, lambda: str(agent.ovsdb.state), 20)


def test_rows_of_hosts_that_make_no_sense_keep_no_other_host_from_being_driven(tmp_path: Path) -> None:
    async def main() -> None:
        with vswitch(tmp_path / "kvm1") as server, hosts_thread() as connect, idl_thread() as thread:
            vswitchd = PlugsIn(server, thread)
            async with coordinated(tmp_path) as fleet:
                await fleet.apply(GOOD.format(server.remote))
                await fleet.store.commit([Put("Host", f"a{n}", row) for n, row in enumerate(ROWS)])
                await fleet.store.commit([Put("Host", "gone", ROWS[0]), MarkDeleting("Host", "gone")])
                await fleet.store.commit([Put("Host", "unnumbered", {"ovsdb": "tcp:192.0.2.9:6640"})])
            async with coordinated(tmp_path, connect) as fleet:  # a controller that finds them
                await others_are_driven(fleet, server)
                for n, row in enumerate(ROWS):
                    assert repr(row.get("libvirt", row["ovsdb"])) in await undriven(fleet, f"a{n}")
                assert "KeyError" in await undriven(fleet, "unnumbered")
                down = m.CONNECTION.at(True, "a1", "ovsdb", "down")
                assert down in await fleet.operations.metrics()
                health = await fleet.operations.health()
                assert any("qemu+tcp:///system" in reason for reason in health.reasons)

                await fleet.apply("{kind: Host, name: a0, ovsdb: 'tcp:192.0.2.1:6640'}")
                assert "a0" in fleet.coordinator.agents
                for name in ("a1", "a2", "a3", "gone", "unnumbered"):
                    await fleet.delete("Host", name, force=name == "unnumbered")
                assert sorted(fleet.store.rows("Host")) == ["a0", "kvm1"]
                await fleet.delete("Host", "a0", force=True)
                await fleet.confirmed(fleet.coordinator.sequence)
            await vswitchd.stop()

    run(main(), 90)


def test_a_host_whose_connections_cannot_be_made_is_tried_again_at_the_next_change(tmp_path: Path) -> None:
    async def main() -> None:
        with vswitch(tmp_path / "kvm1") as server, hosts_thread() as connect, idl_thread() as thread:
            vswitchd = PlugsIn(server, thread)
            broken = True

            def some(remote: str, database: Database, listener: Listener) -> OvsdbClient:
                if broken and remote == "unix:/broken":
                    raise OSError("no room for it")
                return connect(remote, database, listener)

            async with coordinated(tmp_path, some) as fleet:
                await fleet.apply("{kind: Host, name: a, ovsdb: 'unix:/broken'}\n---\n" + GOOD.format(server.remote))
                await others_are_driven(fleet, server)
                assert await undriven(fleet, "a") == "cannot be driven: OSError('no room for it')"

                # also one that had connections, and is to have others
                await fleet.apply("{kind: Host, name: b, ovsdb: 'unix:/whole'}")
                await fleet.apply("{kind: Host, name: a, ovsdb: 'unix:/other'}\n---\n"
                                  "{kind: Host, name: b, ovsdb: 'unix:/broken'}")  # fmt: skip
                await until(lambda: "b" in fleet.coordinator.driver.undriven, "it is told", 20)
                assert await undriven(fleet, "b") == "cannot be driven: OSError('no room for it')"
                assert "a" in fleet.coordinator.agents
                broken = False
                await fleet.apply("{kind: Network, name: more, mode: isolated}")
                assert fleet.coordinator.driver.undriven == {}
                assert "b" in fleet.coordinator.agents
            await vswitchd.stop()

    run(main(), 90)


@pytest.mark.parametrize("row", ROWS)
def test_the_like_of_them_is_refused(tmp_path: Path, row: dict[str, Any]) -> None:
    async def main() -> None:
        async with coordinated(tmp_path) as fleet:
            field, value = list(row.items())[-1]
            with pytest.raises(InvalidInput) as caught:
                await fleet.apply(str({"kind": "Host", "name": "a", **row}))
            [problem] = caught.value.problems
            assert problem.where == f"fleet.yaml:1: Host a: {field}"
            assert repr(value) in problem.what
            assert problem.remedy.startswith("write ")
            assert fleet.coordinator.agents == {}

    run(main())
