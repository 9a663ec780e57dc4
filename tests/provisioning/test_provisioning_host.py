"""A host's own ovsdb-server, with as little of a switch behind it as there has to be: made right, kept right, left
clean."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import subprocess
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from ovsdb_servers import Server, idl_thread, run, until, vswitch
from plugs_in import PlugsIn

from controller.errors import OvsdbError
from controller.idl import Database, Listener, OvsdbClient
from controller.model.host import HostSpec, Uplink
from controller.ovsdb import host as driven_host
from controller.ovsdb.host import HookRow, HostOvsdb, VnicRow
from controller.ovsdb.hygiene import remove_ports
from controller.ovsdb.plan import plan, removal
from controller.ovsdb.rows import Mirror
from controller.ovsdb.wanted import MARK, WantedBridge, wanted_bridges

OWNER = "fleet1"
SPEC = HostSpec(
    ovsdb="unix:/db", tunnel_ip="192.0.2.1", uplinks={"p1": Uplink(interface="ens1"), "p2": Uplink(interface="ens2")}
)
NUMBERS = {"p1": 1, "p2": 2, "p3": 3}


def bridges(spec: HostSpec = SPEC, *controllers: str) -> tuple[WantedBridge, ...]:
    return wanted_bridges(spec, 1, NUMBERS, controllers or ("tcp:192.0.2.9:6653",), guarded=True)


class Driven:
    """A HostOvsdb on a server of its own, and ovs-vsctl beside it."""

    def __init__(self, server: Server, host: HostOvsdb, vswitchd: PlugsIn) -> None:
        self.server, self.host, self.vswitchd = server, host, vswitchd
        self.sequence = 0
        self.vnics: Mapping[str, VnicRow] = {}
        self.hook = HookRow()
        self.told = 0

    def vsctl(self, *args: str) -> str:
        command = ["ovs-vsctl", "--no-wait", "--timeout=10", f"--db={self.server.remote}", *args]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def want(self, wanted: tuple[WantedBridge, ...] | None) -> None:
        self.sequence += 1
        self.host.want(wanted, self.sequence)

    async def settle(self, wanted: tuple[WantedBridge, ...] | None) -> None:
        self.want(wanted)
        await until(lambda: self.host.state.confirmed == self.sequence, lambda: str(self.host.state))

    async def shows(self, value: str, *args: str) -> None:
        """Until ``ovs-vsctl`` says so."""
        seen: list[str] = [""]

        def right() -> bool:
            seen[0] = self.vsctl(*args)
            return seen[0] == value

        await until(right, lambda: f"{args}: {seen[0]!r}, not {value!r}")

    def dump(self, *tables: str) -> str:
        """Every row with its UUID, of all tables or of some."""
        command = ["ovsdb-client", "dump", self.server.remote, "Open_vSwitch", *tables]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@contextlib.asynccontextmanager
async def driven(folder: Path) -> AsyncIterator[Driven]:
    with vswitch(folder) as server, idl_thread() as thread:
        told: list[Driven] = []

        def on_vnics(vnics: Mapping[str, VnicRow], hook: HookRow) -> None:
            told[0].vnics, told[0].hook = vnics, hook
            told[0].told += 1

        host = HostOvsdb("kvm1", server.remote, OWNER, thread.connect, on_vnics, lambda: None)
        vswitchd = PlugsIn(server, thread)
        told.append(Driven(server, host, vswitchd))
        try:
            yield told[0]
        finally:
            await vswitchd.stop()
            await host.stop()


def test_created_whole_and_then_left_alone(tmp_path: Path) -> None:
    async def main() -> None:
        async with driven(tmp_path) as host:
            await host.settle(bridges())
            assert host.vsctl("list-br").split() == ["br-int", "fs-up1", "fs-up2"]
            assert set(host.vsctl("list-ports", "br-int").split()) == {
                "fs-geneve", "fs-gre", "fs-vxlan", "fs-int1", "fs-int2",
            }  # fmt: skip
            assert set(host.vsctl("list-ports", "fs-up1").split()) == {"ens1", "fs-ext1"}
            assert host.vsctl("get-fail-mode", "br-int") == "secure"
            assert host.vsctl("get-controller", "br-int") == "tcp:192.0.2.9:6653"
            assert host.vsctl("get-controller", "fs-up1") == ""
            assert host.vsctl("get", "bridge", "fs-up1", "other_config:forward-bpdu") == '"true"'
            assert "forward-bpdu" not in host.vsctl("get", "bridge", "br-int", "other_config")
            limits = host.vsctl("--columns=controller_rate_limit,controller_burst_limit", "list", "controller")
            assert [line.split()[-1] for line in limits.splitlines()] == ["1000", "500"]
            assert host.vsctl("get", "bridge", "br-int", "other_config:datapath-id") == "f1ee000000000001"
            assert host.vsctl("get", "interface", "fs-int1", "options:peer") == "fs-ext1"
            assert host.vsctl("get", "interface", "fs-geneve", "ofport_request") == "65001"
            assert host.vsctl("get", "bridge", "br-int", f"external_ids:{MARK}") == OWNER
            before = host.dump()
            host.want(None)
            await host.settle(bridges())  # it was not wanted for a moment in which nothing could be done
            assert host.dump() == before

    run(main())


def test_an_equal_plan_writes_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with driven(tmp_path) as host:
            await host.settle(bridges())
            host.vsctl("set", "Open_vSwitch", ".", "external_ids:somebody=else")
            before = host.dump()
            await host.settle(bridges())
            assert host.dump() == before
            assert plan(bridges(), host.host._mirror, OWNER, "kvm1") == []

    run(main())


def test_drift_is_mended(tmp_path: Path) -> None:
    def read(kind: str, name: str, column: str) -> list[str]:
        return ["get", kind, name, column]

    drifts: list[tuple[list[str], str, list[str]]] = [
        (["del-port", "fs-geneve"], "br-int", ["port-to-br", "fs-geneve"]),
        (["set-fail-mode", "br-int", "standalone"], "secure", ["get-fail-mode", "br-int"]),
        (["del-controller", "br-int"], "tcp:192.0.2.9:6653", ["get-controller", "br-int"]),
        (["set-controller", "br-int", "tcp:192.0.2.66:1"], "tcp:192.0.2.9:6653", ["get-controller", "br-int"]),
        (["set", "interface", "fs-int1", "type=internal"], "patch", read("interface", "fs-int1", "type")),
        (
            ["set", "interface", "fs-vxlan", "ofport_request=9"],
            "65002",
            read("interface", "fs-vxlan", "ofport_request"),
        ),
        (["set", "interface", "fs-gre", "options:key=5"], "flow", read("interface", "fs-gre", "options:key")),
        (["set", "port", "fs-int1", "tag=7"], "[]", read("port", "fs-int1", "tag")),
        (["set", "port", "ens1", "vlan_mode=access"], "[]", read("port", "ens1", "vlan_mode")),
        (["clear", "bridge", "br-int", "protocols"], "[OpenFlow10, OpenFlow15]", read("bridge", "br-int", "protocols")),
        (
            ["set", "bridge", "br-int", "other_config:disable-in-band=false"],
            '"true"',
            read("bridge", "br-int", "other_config:disable-in-band"),
        ),
        (
            ["remove", "bridge", "fs-up1", "other_config", "forward-bpdu"],
            '"true"',
            read("bridge", "fs-up1", "other_config:forward-bpdu"),
        ),
        (
            ["set", "controller", ".", "controller_rate_limit=5000"],
            "1000",
            read("controller", ".", "controller_rate_limit"),
        ),
        (["set", "bridge", "br-int", "datapath_type=netdev"], "system", read("bridge", "br-int", "datapath_type")),
        (["del-br", "fs-up2"], "fs-up2", ["iface-to-br", "ens2"]),
    ]

    async def main() -> None:
        async with driven(tmp_path) as host:
            await host.settle(bridges())
            for drift, value, question in drifts:
                host.vsctl(*drift)

                def right(value: str = value, question: list[str] = question) -> bool:
                    asked = ["ovs-vsctl", "--no-wait", f"--db={host.server.remote}", *question]
                    done = subprocess.run(asked, capture_output=True, text=True)
                    return done.returncode == 0 and done.stdout.strip() == value

                await until(right, f"{drift} is mended")
            await until(lambda: host.host.state.state == "up", lambda: str(host.host.state))

    run(main())


def test_a_change_of_uplinks_moves_interfaces(tmp_path: Path) -> None:
    moved = SPEC.model_copy(update={"uplinks": {"p3": Uplink(interface="ens1"), "p2": Uplink(interface="ens2")}})

    async def main() -> None:
        async with driven(tmp_path) as host:
            await host.settle(bridges())
            await host.settle(bridges(moved))
            assert host.vsctl("list-br").split() == ["br-int", "fs-up2", "fs-up3"]
            assert host.vsctl("port-to-br", "ens1") == "fs-up3"
            swapped = SPEC.model_copy(
                update={"uplinks": {"p3": Uplink(interface="ens2"), "p2": Uplink(interface="ens1")}}
            )
            await host.settle(bridges(swapped))
            assert host.vsctl("port-to-br", "ens1") == "fs-up2"
            assert host.vsctl("port-to-br", "ens2") == "fs-up3"

    run(main())


def test_rows_of_others_are_not_touched(tmp_path: Path) -> None:
    async def main() -> None:
        async with driven(tmp_path) as host:
            host.vsctl("add-br", "br-ex", "--", "add-port", "br-ex", "eth7", "tag=5", "--", "set-fail-mode", "br-ex",
                       "secure", "--", "set-controller", "br-ex", "tcp:192.0.2.77:6653")  # fmt: skip
            before = {table: host.dump(table) for table in ("Bridge", "Port", "Interface", "Controller")}
            await host.settle(bridges())
            host.vsctl("add-port", "br-int", "vnet0")
            await host.settle(bridges(SPEC, "tcp:192.0.2.10:6653", "tcp:192.0.2.11:6653"))
            assert host.vsctl("port-to-br", "vnet0") == "br-int"
            await host.settle(None)
            host.vsctl("del-br", "br-int")  # which was left for the guest in it
            assert {table: host.dump(table) for table in before} == before

    run(main())


def test_a_foreign_bridge_of_that_name_is_refused_until_it_is_handed_over(tmp_path: Path) -> None:
    async def main() -> None:
        async with driven(tmp_path) as host:
            host.vsctl("add-br", "br-int")
            host.want(bridges())
            refusal = "br-int exists and is not fleetswitch's"
            await until(lambda: refusal in host.host.state.reason, lambda: str(host.host.state))
            assert host.vsctl("list-br") == "br-int"
            host.vsctl("set", "bridge", "br-int", f"external_ids:{MARK}={OWNER}")
            await until(lambda: host.host.state.confirmed == 1, lambda: str(host.host.state))
            assert host.vsctl("get-fail-mode", "br-int") == "secure"

    run(main())


def test_removal_leaves_nothing_of_ours(tmp_path: Path) -> None:
    async def main() -> None:
        async with driven(tmp_path) as host:
            await host.settle(bridges())
            await host.settle(None)
            assert host.vsctl("list-br") == ""
            for table in ("Bridge", "Port", "Interface", "Controller"):
                assert host.vsctl("--columns=_uuid", "--bare", "list", table) == ""

    run(main())


def test_removal_lets_go_of_a_bridge_that_guests_are_in(tmp_path: Path) -> None:
    async def main() -> None:
        async with driven(tmp_path) as host:
            await host.settle(bridges())
            host.vsctl("add-port", "br-int", "vnet0")
            await host.settle(None)
            assert host.vsctl("list-br") == "br-int"
            assert host.vsctl("list-ports", "br-int") == "vnet0"
            assert host.vsctl("get-controller", "br-int") == ""
            assert host.vsctl("get", "bridge", "br-int", "external_ids") == f"{{fleetswitch-released={OWNER}}}"

    run(main())


def test_vnics_of_the_integration_bridge_are_told(tmp_path: Path) -> None:
    async def main() -> None:
        async with driven(tmp_path) as host:
            await host.settle(bridges())
            ids = ['attached-mac="52:54:00:00:00:01"', "iface-id=i1", "vm-id=u1", 'port-profile="web:default"']
            host.vsctl("add-port", "br-int", "vnet0", "--", "set", "interface", "vnet0",
                       *(f"external_ids:{each}" for each in ids))  # fmt: skip
            await until(lambda: "vnet0" in host.vnics, lambda: str(host.vnics))
            assert host.vnics == {"vnet0": VnicRow("vnet0", None, "52:54:00:00:00:01", "i1", "u1", "web:default", None)}
            host.vsctl("set", "interface", "vnet0", "ofport=12")
            await until(lambda: host.vnics["vnet0"].ofport == 12, lambda: str(host.vnics))
            host.vsctl("set", "interface", "vnet0", "ofport=-1", "error=gone")
            await until(lambda: host.vnics["vnet0"].ofport is None, lambda: str(host.vnics))
            host.vsctl("del-port", "vnet0")
            await until(lambda: not host.vnics, lambda: str(host.vnics))

    run(main())


def test_the_server_dies_and_comes_back(tmp_path: Path) -> None:
    async def main() -> None:
        async with driven(tmp_path) as host:
            await host.settle(bridges())
            host.server.kill()
            await until(lambda: host.host.state.state == "down", lambda: str(host.host.state))
            host.server.start()
            host.vsctl("del-br", "fs-up1")
            await until(lambda: host.host.state.state == "up", lambda: str(host.host.state), 20)
            await host.settle(bridges())
            await host.shows("fs-up1", "port-to-br", "ens1")

    run(main())


def test_nothing_is_confirmed_before_open_vswitch_has_plugged_it_in(tmp_path: Path) -> None:
    async def main() -> None:
        async with driven(tmp_path) as host:
            host.vswitchd.runs = False
            host.want(bridges())
            await until(
                lambda: "Open vSwitch has not plugged in" in host.host.state.reason, lambda: str(host.host.state)
            )
            assert (host.host.state.state, host.host.state.confirmed) == ("degraded", -1)
            assert "fs-geneve" in host.host.state.reason
            host.vswitchd.resume()
            await until(lambda: host.host.state.confirmed == 1, lambda: str(host.host.state))
            assert host.host.state.state == "up"

    run(main())


def test_an_error_of_a_patch_port_that_has_its_peer_again_is_none(tmp_path: Path) -> None:
    """Open vSwitch lets it stand when the peer is back before it looks again."""

    async def main() -> None:
        async with driven(tmp_path) as host:
            await host.settle(bridges())
            host.vsctl("set", "interface", "fs-int1", "error=no-usable-peer")
            host.vsctl("set", "interface", "fs-geneve", "error=no-such-device")
            await until(lambda: host.host.state.state == "degraded", lambda: str(host.host.state))
            assert host.host.state.reason == "fs-geneve: no-such-device"
            host.vswitchd.runs = False
            host.vsctl("clear", "interface", "fs-ext1", "ofport")
            await until(lambda: "fs-int1: no-usable-peer" in host.host.state.reason, lambda: str(host.host.state))

    run(main())


def test_an_interface_that_open_vswitch_refuses_is_told_and_holds_up_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with driven(tmp_path) as host:
            host.vswitchd.refuses = {"ens2"}
            await host.settle(bridges())
            assert (host.host.state.state, host.host.state.reason) == ("degraded", "ens2: no such device")

    run(main())


def test_rates_of_guests_on_other_bridges_are_left_alone(tmp_path: Path) -> None:
    """Also where no port refers to them at the moment: somebody may be about to."""

    async def main() -> None:
        async with driven(tmp_path) as host:
            await host.settle(bridges())
            host.vsctl("add-br", "br-other", "--", "add-port", "br-other", "vnet9")
            host.vsctl("add-port", "br-int", "vnet1", "--", "set", "interface", "vnet1", "external_ids:vm-id=guest")
            rows = {}
            for tap in ("vnet1", "vnet9", "gone"):
                ids = ("external_ids:vm-id=guest", f"external_ids:ifname={tap}")
                rows[tap] = host.vsctl("--id=@q", "create", "QoS", "type=linux-htb", "queues:0=@u", *ids,
                                       "--", "--id=@u", "create", "Queue", *ids).split()  # fmt: skip
            await until(lambda: rows["vnet1"][0] not in host.vsctl("--columns=_uuid", "list", "QoS"), "ours goes")
            await until(lambda: rows["vnet1"][1] not in host.vsctl("--columns=_uuid", "list", "Queue"), "and its queue")
            host.vsctl("set", "interface", "vnet1", "ingress_policing_rate=100")
            await host.shows("0", "get", "interface", "vnet1", "ingress_policing_rate")
            for tap in ("vnet9", "gone"):
                assert rows[tap][0] in host.vsctl("--columns=_uuid", "list", "QoS")
                assert rows[tap][1] in host.vsctl("--columns=_uuid", "list", "Queue")

    run(main())


def test_the_links_of_uplinks_are_told(tmp_path: Path) -> None:
    async def main() -> None:
        async with driven(tmp_path) as host:
            host.vswitchd.refuses = {"ens2"}
            assert host.host.links() == {}
            await host.settle(bridges())
            assert host.host.links() == {"ens1": "down", "ens2": "missing"}
            host.vsctl("set", "interface", "ens1", "link_state=up")
            await until(lambda: host.host.links()["ens1"] == "up", lambda: str(host.host.links()))

    run(main())


def test_a_host_without_vnics_says_so(tmp_path: Path) -> None:
    async def main() -> None:
        async with driven(tmp_path) as host:
            await until(lambda: host.told == 1, lambda: f"told {host.told} times")
            assert host.vnics == {}
            await host.settle(bridges())
            assert host.told == 1, "nothing of it changed"

    run(main())


RENAMED = SPEC.model_copy(update={"bridge": "br-new"})


def test_the_integration_bridge_gets_another_name(tmp_path: Path) -> None:
    async def main() -> None:
        async with driven(tmp_path) as host:
            await host.settle(bridges())
            await host.settle(bridges(RENAMED))
            assert host.vsctl("list-br").split() == ["br-new", "fs-up1", "fs-up2"]
            assert host.vsctl("port-to-br", "fs-geneve") == "br-new"
            before = host.dump()
            await host.settle(bridges(RENAMED, "tcp:192.0.2.9:6653"))
            assert host.dump() == before, "it has come to rest"
            assert host.host.state.state == "up"

    run(main())


def test_the_integration_bridge_gets_another_name_while_guests_are_in_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with driven(tmp_path) as host:
            await host.settle(bridges())
            host.vsctl("add-port", "br-int", "vnet0")
            await host.settle(bridges(RENAMED))
            assert set(host.vsctl("list-br").split()) == {"br-int", "br-new", "fs-up1", "fs-up2"}
            assert host.vsctl("list-ports", "br-int") == "vnet0"
            assert host.vsctl("get-controller", "br-int") == ""
            assert host.vsctl("port-to-br", "fs-geneve") == "br-new"
            await host.settle(bridges())  # and back again, into the bridge that it let go of
            assert host.vsctl("port-to-br", "fs-geneve") == "br-int"
            assert host.vsctl("get", "bridge", "br-int", "external_ids") == f"{{fleetswitch={OWNER}}}"
            assert host.vsctl("list-br").split() == ["br-int", "fs-up1", "fs-up2"]

    run(main())


def test_the_mark_of_an_interface_is_restored(tmp_path: Path) -> None:
    async def main() -> None:
        async with driven(tmp_path) as host:
            await host.settle(bridges())
            host.vsctl("clear", "interface", "fs-geneve", "external_ids")
            await host.shows(OWNER, "--if-exists", "get", "interface", "fs-geneve", f"external_ids:{MARK}")

    run(main())


class Deaf:
    """A database that takes every transaction and stays as it is."""

    def __init__(self) -> None:
        self.state = SimpleNamespace(error=None)
        self.transactions: list[float] = []

    async def transact(self, work: Any, within: float) -> None:
        self.transactions.append(time.monotonic())
        await asyncio.sleep(0)

    def close(self) -> None:
        pass


def test_a_host_that_does_not_stay_as_it_was_made_is_tried_ever_more_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driven_host, "_RETRY_FIRST", 0.02)

    async def main() -> None:
        client = Deaf()
        listeners: list[Listener] = []

        def connect(remote: str, database: Database, listener: Listener) -> OvsdbClient:
            listeners.append(listener)
            return cast(OvsdbClient, client)

        host = HostOvsdb("kvm1", "unix:/db", OWNER, connect, lambda vnics, hook: None, lambda: None)
        listeners[0].on_up()
        host.want(bridges(), 1)
        await until(lambda: "does not stay as it was made" in host.state.reason, lambda: str(host.state))
        assert (host.state.state, host.state.confirmed) == ("degraded", -1)
        assert len(client.transactions) == 1
        await until(lambda: len(client.transactions) == 6, lambda: str(client.transactions))
        took = client.transactions[-1] - client.transactions[0]
        assert took > 0.02 * (1 + 2 + 4 + 8 + 16) * 0.9, "each time it waits twice as long"
        await host.stop()

    run(main())


def test_a_bridge_that_a_guest_is_plugged_into_at_this_moment_is_not_deleted(tmp_path: Path) -> None:
    async def main() -> None:
        async with driven(tmp_path) as host:
            await host.settle(bridges())
            before = copy.deepcopy(host.host._mirror)
            steps = [step for step in removal(before, OWNER) if step.what == "delete bridge br-int"]
            host.vsctl("add-port", "br-int", "vnet0")

            def build(api: Any, txn: Any) -> None:
                for step in steps:
                    for command in step.commands(api):
                        txn.add(command)

            with pytest.raises(OvsdbError, match="br-int changed while it was to be deleted"):
                await host.host._client.transact(build, 5.0)
            assert "vnet0" in host.vsctl("list-ports", "br-int").split()

    run(main())


@pytest.mark.parametrize("made", [("add-br", "br-int"), ("add-port", "br-other", "ens1")])
def test_what_somebody_else_makes_at_this_moment_is_not_taken_for_ours(tmp_path: Path, made: tuple[str, ...]) -> None:
    async def main() -> None:
        async with driven(tmp_path) as host:
            await until(lambda: host.host.seen, lambda: str(host.host.state))
            host.vsctl("add-br", "br-other")
            steps = plan(bridges(), Mirror(), OWNER, "kvm1")  # as it is made before the news has come
            host.vsctl(*made)

            def build(api: Any, txn: Any) -> None:
                for step in steps:
                    for command in step.commands(api):
                        txn.add(command)

            with pytest.raises(OvsdbError, match="refused the transaction"):
                await host.host._client.transact(build, 5.0)
            assert MARK not in host.dump()

    run(main())


def test_a_hook_is_heard_and_told(tmp_path: Path) -> None:
    def wanted(networks: str) -> tuple[WantedBridge, ...]:
        return wanted_bridges(SPEC, 1, NUMBERS, ("tcp:192.0.2.9:6653",), networks)

    key, said = "fleetswitch-port-x", ("--if-exists", "get", "bridge", "br-int", "external_ids:fleetswitch-networks")

    async def main() -> None:
        async with driven(tmp_path) as host:
            await host.settle(wanted("web:default"))
            assert host.vsctl(*said) == "", "there is no hook"
            host.vsctl("set", "bridge", "br-int", 'external_ids:fleetswitch-hook="1 no"', f"external_ids:{key}=zip",
                       "--", "add-port", "br-int", "vnet0", "--", "set", "interface", "vnet0",
                       "external_ids:fleetswitch-xml=zap")  # fmt: skip
            await host.shows('"web:default"', *said)
            await until(lambda: host.hook == HookRow("1 no", {key: "zip"}), lambda: str(host.hook))
            assert host.vnics["vnet0"].report == "zap"
            for networks in ("web:default web:db", "", "web:db"):
                await host.settle(wanted(networks))
                assert host.vsctl(*said).strip('"') == networks
            assert host.host.state.state == "up"
            host.vsctl("set", "bridge", "br-int", 'external_ids:fleetswitch-networks="any:thing"')
            await host.shows('"web:db"', *said)
            host.host.drop_stale({key: "zip", "vnet9": host.vnics["vnet0"]})
            await host.shows("", "--if-exists", "get", "bridge", "br-int", f"external_ids:{key}")
            await until(lambda: host.hook == HookRow("1 no"), lambda: str(host.hook))
            await host.settle(None)
            assert host.vsctl("get", "bridge", "br-int", "external_ids") == (
                f'{{fleetswitch-hook="1 no", fleetswitch-released={OWNER}}}'
            )

    run(main())


def test_what_comes_by_the_name_of_what_was_left_behind_stays(tmp_path: Path) -> None:
    """A host that lost its power names taps from vnet0 on again; a port gets its number a little later than its row."""
    key = "fleetswitch-port-x"

    async def main() -> None:
        async with driven(tmp_path) as host:
            await host.settle(bridges())
            await host.vswitchd.stop()

            def plug(uuid: str) -> None:
                host.vsctl("set", "bridge", "br-int", f"external_ids:{key}={uuid}", "--", "add-port", "br-int", "vnet0",
                           "--", "set", "interface", "vnet0", f"external_ids:vm-id={uuid}")  # fmt: skip

            def shown() -> str | None:
                return host.vnics["vnet0"].vm_uuid if "vnet0" in host.vnics else None

            plug("old")
            await until(lambda: shown() == "old", shown)
            host.host.drop_stale({"vnet0": host.vnics["vnet0"], key: "old"})
            await until(lambda: shown() is None and not host.hook.ports, shown)
            plug("new")
            await until(lambda: shown() == "new", shown)
            await host.settle(bridges())
            assert host.vsctl("get", "interface", "vnet0", "external_ids:vm-id") == "new"
            assert host.vsctl("get", "bridge", "br-int", f"external_ids:{key}") == "new"

    run(main())


def test_a_port_that_the_next_guest_uses_at_this_moment_is_not_deleted(tmp_path: Path) -> None:
    async def main() -> None:
        async with driven(tmp_path) as host:
            await host.settle(bridges())
            await host.vswitchd.stop()
            host.vsctl("add-port", "br-int", "vnet0", "--", "set", "interface", "vnet0", "external_ids:vm-id=old")
            await until(lambda: "vnet0" in host.vnics, "it is there")
            steps = remove_ports("br-int", ["vnet0"], copy.deepcopy(host.host._mirror))
            assert len(steps) == 1
            host.vsctl("set", "interface", "vnet0", "external_ids:vm-id=new")

            def build(api: Any, txn: Any) -> None:
                for step in steps:
                    for command in step.commands(api):
                        txn.add(command)

            with pytest.raises(OvsdbError, match=r"changed while|refused"):
                await host.host._client.transact(build, 5.0)
            assert "vnet0" in host.vsctl("list-ports", "br-int").split()

    run(main())
