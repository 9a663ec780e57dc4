"""What happens in a fleet becomes events, and a controller that comes next knows them."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from pathlib import Path

import pytest
from coordinated import MAC1, NAME, coordinated, hosts_thread, plug, unplug
from ovsdb_servers import idl_thread, run, until, vswitch
from plugs_in import PlugsIn

from controller import chronicle
from controller.history import MOST_EVENTS, EventFilter, History
from controller.recorder import ASKED_THROUGH
from controller.store import PrivateServer, Store

WEB = "{kind: Network, name: web, mode: isolated}"
HOST = "{{kind: Host, name: kvm1, ovsdb: '{}'}}"
PORT = f"{{kind: Port, name: front, vm: web1, mac: '{MAC1}', network: web}}"


def words(history: History, **wanted: str) -> list[str]:
    return [event.event for event in history.find(EventFilter(**wanted)).events]  # type: ignore[arg-type]


def test_changes_are_events_that_say_who_asked_for_them(tmp_path: Path) -> None:
    async def main() -> None:
        async with coordinated(tmp_path) as fleet:
            history = fleet.coordinator.history
            ASKED_THROUGH.set("unix socket")
            await fleet.apply(WEB)
            await fleet.apply(WEB)
            await fleet.apply(WEB.replace("}", ", mtu: 1400}"))
            await fleet.apply(PORT)
            await fleet.delete("Port", "front")
            await fleet.delete("Network", "web")
            found = history.find(EventFilter(network="web")).events
            assert [(event.kind, event.event, event.generation) for event in found] == [
                ("Network", "created", 1), ("Network", "changed", 2), ("Port", "created", 1), ("Port", "deleted", 1),
                ("Network", "deleted", 2),
            ]  # fmt: skip
            assert found[1].message == "changed through the unix socket: mtu"

    run(main())


def test_a_guest_and_its_host_from_the_first_word_to_the_last(tmp_path: Path) -> None:
    async def main() -> None:
        with vswitch(tmp_path / "kvm1") as server, hosts_thread() as connect, idl_thread() as thread:
            async with coordinated(tmp_path, connect) as fleet:
                history = fleet.coordinator.history
                vswitchd = PlugsIn(server, thread)
                applied = await fleet.apply(f"{HOST.format(server.remote)}\n---\n{WEB}")
                switch = fleet.connect("kvm1")
                await fleet.confirmed(applied)
                plug(server)
                await until(lambda: fleet.status(NAME).get("state") == "active", "the guest is switched")
                switch.disconnect()
                await until(lambda: "openflow-down" in words(history), "the switch is missed")
                unplug(server)
                await until(lambda: not fleet.status(NAME), "the guest's row is gone")
                assert words(history, kind="Port") == ["active", "gone"]
                assert words(history, name="kvm1")[0] == "created"
                assert {"ovsdb-up", "openflow-up"} <= set(words(history, name="kvm1"))
                found = history.find(EventFilter(kind="Port")).events[0]
                assert (found.host, found.network) == ("kvm1", "web")
                assert f"vNIC {MAC1} of" in found.message
                await vswitchd.stop()

    run(main())


def test_what_somebody_changed_on_a_host_and_was_put_right(tmp_path: Path) -> None:
    async def main() -> None:
        with vswitch(tmp_path / "kvm1") as server, hosts_thread() as connect, idl_thread() as thread:
            async with coordinated(tmp_path, connect) as fleet:
                history = fleet.coordinator.history
                vswitchd = PlugsIn(server, thread)
                applied = await fleet.apply(HOST.format(server.remote))
                fleet.connect("kvm1")
                await fleet.confirmed(applied)
                assert "drift" not in words(history)
                command = ["ovs-vsctl", "--no-wait", f"--db={server.remote}", "set-fail-mode", "br-int", "standalone"]
                await asyncio.to_thread(subprocess.run, command, check=True)
                await until(lambda: "drift" in words(history), "the drift is told")
                found = history.find(EventFilter(event="drift")).events[0]
                assert "put right" in found.message
                assert "fail_mode" in found.message
                await vswitchd.stop()

    run(main())


def test_the_next_controller_knows_what_happened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chronicle, "_BATCH_SECONDS", 0.02)

    async def main() -> None:
        async with coordinated(tmp_path) as fleet:
            await fleet.apply(WEB)
            before = fleet.coordinator.history.find(EventFilter()).events
            await until(lambda: not fleet.coordinator.history.unwritten(1), "it is written")
            rows = await fleet.store.execute([select()], 5)
            assert len(rows[0]["rows"]) == len(before) == 2
        async with coordinated(tmp_path) as fleet:
            after = fleet.coordinator.history.find(EventFilter()).events
            assert after[:2] == before
            assert [event.event for event in after] == ["started", "created", "stopped", "started"]

    run(main())


def test_the_store_keeps_no_more_than_the_history_and_no_nonsense_stops_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with stored(tmp_path) as store:
            history = History(most=30)
            writer = chronicle.Chronicle(store, history)
            for number in range(100):
                history.add("Port", f"p{number}", "active", "")
                if number % 7 == 0:
                    await writer.finish()
            await writer.finish()
            nonsense = ["", "[]", "{}", '{"time": "x"}', '{"time": 1, "kind": 2, "name": 3}', "[" * 5000]
            rows = [{"sequence": number, "event": text} for number, text in enumerate(nonsense)]
            await store.execute([{"op": "insert", "table": "Event", "row": row} for row in rows], 5)
            again = History(most=MOST_EVENTS)
            await chronicle.Chronicle(store, again).load()
            assert [event.name for event in again.find(EventFilter()).events] == [f"p{n}" for n in range(70, 100)]
            await writer.finish()

    run(main())


def test_a_store_that_is_away_keeps_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chronicle, "_LAST_SECONDS", 0.1)

    async def main() -> None:
        with idl_thread() as thread:
            store = Store(f"unix:{tmp_path}/none.sock", thread)
            history = History()
            history.add("Host", "kvm1", "created", "")
            await chronicle.Chronicle(store, history).load()
            await asyncio.wait_for(chronicle.Chronicle(store, history).finish(), 10)
            assert len(history.unwritten(10)) == 1
            store.close()

    run(main())


def select() -> dict[str, object]:
    return {"op": "select", "table": "Event", "where": [], "columns": ["sequence"]}


@contextlib.asynccontextmanager
async def stored(folder: Path):  # type: ignore[no-untyped-def]
    private = PrivateServer(folder / "store")
    await private.start()
    try:
        with idl_thread() as thread:
            store = Store(private.remote, thread)
            await store.start()
            yield store
            store.close()
    finally:
        await private.stop()
