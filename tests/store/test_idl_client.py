"""OVSDB clients against real servers, and against peers that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ovsdb_servers import VSWITCH, Heard, Server, host_database, idl_thread, raises, run, until, vswitch

from controller.errors import InvalidInput, OvsdbError, StoreError
from controller.idl import Database, IdlThread, Limits, OvsdbClient, TlsFiles, parse_remotes

QUICK = Limits(connect=1.0, silence=0.5, handshake=2.0, probe=1.0, backoff=(0.05, 0.2), message=1 << 20)


async def up(client: OvsdbClient) -> None:
    await until(lambda: client.state.connected, f"connected: {client.state}")


def add_bridge(name: str) -> Callable[[Any, Any], None]:
    return lambda api, txn: txn.add(api.add_br(name))


def test_commands_of_ovsdbapp_are_committed_and_read_back(tmp_path: Path) -> None:
    async def main(host: Server, thread: IdlThread) -> None:
        heard = Heard()
        client = thread.connect(host.remote, host_database(), heard)

        def build(api: Any, txn: Any) -> None:
            txn.add(api.add_br("br-fleet"))
            txn.add(api.add_port("br-fleet", "vnet0", type="internal"))
            txn.add(api.db_set("Bridge", "br-fleet", external_ids={"owner": "fleetswitch"}))

        results = await client.transact(build, 5, wait=True)
        assert len(results) == 3
        # Nothing is awaited in between: the changes were told before the transaction's end was.
        assert heard.names("Port") == {"br-fleet", "vnet0"}
        owners = await client.call(lambda idl: [dict(r.external_ids) for r in idl.tables["Bridge"].rows.values()])
        assert owners == [{"owner": "fleetswitch"}]
        assert heard.ups == 1
        assert client.missing == ()

    with vswitch(tmp_path) as host, idl_thread() as thread:
        run(main(host, thread))


def test_what_the_server_or_the_schema_refuses_is_raised_with_the_reason(tmp_path: Path) -> None:
    async def main(host: Server, thread: IdlThread) -> None:
        client = thread.connect(host.remote, host_database(), Heard())
        await client.transact(add_bridge("br0"), 5, wait=True)

        # python-ovs logs a value that does not fit, drops it, and commits the rest.
        def misfit(api: Any, txn: Any) -> None:
            txn.add(api.add_br("br1"))
            txn.add(api.db_set("Port", "br0", tag=5000))

        text = await raises(OvsdbError, client.transact(misfit))
        assert "kvm01" in text
        assert "0 to 4095" in text

        def two_of_one_name(api: Any, txn: Any) -> None:
            for _ in range(2):
                txn.add_op({"op": "insert", "table": "Interface", "row": {"name": "same"}, "uuid-name": f"i{_}"})
                port = {"name": f"p{_}", "interfaces": ["named-uuid", f"i{_}"]}
                txn.add_op({"op": "insert", "table": "Port", "row": port, "uuid-name": f"p{_}"})
            ports = ["set", [["named-uuid", "p0"], ["named-uuid", "p1"]]]
            mutation = {"op": "mutate", "table": "Bridge", "where": [], "mutations": [["ports", "insert", ports]]}
            txn.add_op(mutation)

        assert "constraint violation" in await raises(OvsdbError, client.transact(two_of_one_name))
        assert "no_such" in await raises(OvsdbError, client.transact(lambda api, txn: txn.add(api.no_such())))
        assert await client.call(lambda idl: {r.name for r in idl.tables["Bridge"].rows.values()}) == {"br0"}
        # An error while a transaction was built leaves nothing behind that would stop the next one.
        await client.transact(add_bridge("br2"))

    with vswitch(tmp_path) as host, idl_thread() as thread:
        run(main(host, thread))


def test_two_writers_who_verify_lose_nothing(tmp_path: Path) -> None:
    async def main(host: Server, thread: IdlThread) -> None:
        clients = [thread.connect(host.remote, host_database(f"w{n}"), Heard()) for n in range(2)]

        def increment(api: Any, txn: Any) -> None:
            (row,) = api.tables["Open_vSwitch"].rows.values()
            row.verify("external_ids")
            row.external_ids = {"n": str(int(row.external_ids.get("n", "0")) + 1)}

        for client in clients:
            await up(client)
        await asyncio.gather(*(client.transact(increment, 20) for client in clients for _ in range(20)))
        listed = host.transact('{"op":"select","table":"Open_vSwitch","where":[],"columns":["external_ids"]}')
        assert json.loads(listed) == [{"rows": [{"external_ids": ["map", [["n", "40"]]]}]}]

    with vswitch(tmp_path) as host, idl_thread() as thread:
        run(main(host, thread))


def test_each_client_writes_to_its_own_database(tmp_path: Path) -> None:
    async def main(hosts: list[Server], thread: IdlThread) -> None:
        clients = [thread.connect(h.remote, host_database(str(n)), Heard()) for n, h in enumerate(hosts)]
        for number, client in enumerate(clients):
            await client.transact(add_bridge(f"br{number}"), 5, wait=True)
        for number, host in enumerate(hosts):
            listed = host.transact('{"op":"select","table":"Bridge","where":[],"columns":["name"]}')
            assert json.loads(listed) == [{"rows": [{"name": f"br{number}"}]}]

    with vswitch(tmp_path / "a") as one, vswitch(tmp_path / "b") as two, idl_thread() as thread:
        run(main([one, two], thread))


def test_rows_that_vanish_during_an_outage_are_told_as_deleted(tmp_path: Path) -> None:
    async def main(host: Server, thread: IdlThread) -> None:
        heard = Heard()
        client = thread.connect(host.remote, host_database(), heard, limits=QUICK)
        await client.transact(add_bridge("br0"), 5, wait=True)
        await client.transact(add_bridge("br1"))
        host.kill()
        await until(lambda: heard.downs, "the loss is told")
        assert not client.state.connected
        assert client.state.error
        assert client.state.next_try is not None
        assert heard.names("Bridge") == {"br0", "br1"}
        assert "is not connected" in await raises(OvsdbError, client.transact(add_bridge("br2")))
        host.database.unlink()
        fresh = Server(tmp_path / "again")
        fresh.transact('{"op":"insert","table":"Open_vSwitch","row":{}}')
        fresh.kill()
        fresh.database.rename(host.database)
        host.start()
        await until(lambda: heard.ups == 2, "it is back")
        assert heard.names("Bridge") == set()
        assert client.state.connected

    with vswitch(tmp_path) as host, idl_thread() as thread:
        run(main(host, thread))


def test_a_transaction_that_the_server_died_under_is_said_to_be_in_doubt(tmp_path: Path) -> None:
    async def main(host: Server, thread: IdlThread) -> None:
        client = thread.connect(host.remote, host_database(), Heard(), limits=QUICK)
        await client.transact(add_bridge("br0"), 5, wait=True)
        host.signal(signal.SIGSTOP)
        late = asyncio.create_task(raises(OvsdbError, client.transact(add_bridge("br1"), 0.3)))
        assert "did not confirm the transaction in time: the outcome is not known" in await late
        lost = asyncio.create_task(raises(OvsdbError, client.transact(add_bridge("br2"), 20)))
        for _ in range(2):  # after the second the thread has sent what it was given before the first
            await client.call(lambda idl: None)
        host.kill()
        assert "the outcome is not known" in await lost

    with vswitch(tmp_path) as host, idl_thread() as thread:
        run(main(host, thread))


def test_a_loop_that_is_slow_hears_the_sum_of_what_happened(tmp_path: Path) -> None:
    async def main(host: Server, thread: IdlThread) -> None:
        heard = Heard()
        database = host_database(read={"Open_vSwitch": lambda row: row.next_cfg})
        client = thread.connect(host.remote, database, heard)
        await up(client)
        heard.log.clear()
        # These calls block the loop; the thread hears of each change meanwhile.
        for number in range(5):
            row = {"next_cfg": number + 1}
            host.transact(json.dumps({"op": "update", "table": "Open_vSwitch", "where": [], "row": row}))
        await until(lambda: heard.log and heard.log[-1][2] == 5, "the last value")
        assert len(heard.log) < 5
        client.close()

    with vswitch(tmp_path) as host, idl_thread() as thread:
        run(main(host, thread))


def test_eventlet_is_not_loaded() -> None:
    """os-ken installs it, and python-ovs would import it."""
    code = "import controller.idl, controller.store, sys; sys.exit('eventlet' in sys.modules)"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_a_schema_that_lacks_a_column_is_still_read(tmp_path: Path) -> None:
    schema = json.loads(VSWITCH.read_text())
    del schema["tables"]["Port"]["columns"]["tag"]
    old = tmp_path / "old.ovsschema"
    old.write_text(json.dumps(schema))

    async def main(host: Server, thread: IdlThread) -> None:
        client = thread.connect(host.remote, host_database(), Heard())
        await client.transact(add_bridge("br0"), 5, wait=True)
        assert client.missing == ("Port.tag",)

    host = Server(tmp_path / "h", old)
    try:
        host.transact('{"op":"insert","table":"Open_vSwitch","row":{}}')
        with idl_thread() as thread:
            run(main(host, thread))
    finally:
        host.kill()


def test_a_server_without_the_database_is_named(tmp_path: Path) -> None:
    async def main(host: Server, thread: IdlThread) -> None:
        database = Database("Fleetswitch", {"Host": ["name"]}, "store", error=StoreError)
        client = thread.connect(host.remote, database, Heard(), limits=QUICK)
        await until(lambda: "has no database Fleetswitch" in client.state.error, "the reason")
        assert "Fleetswitch" in await raises(StoreError, client.execute([], 1))

    with vswitch(tmp_path) as host, idl_thread() as thread:
        run(main(host, thread))


# Peers that misbehave.


@contextlib.asynccontextmanager
async def peer(talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[str]:
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(ConnectionError):
            await talk(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"tcp:127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await server.wait_closed()


async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
    await reader.read()


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b'{"result":"')
    while True:
        writer.write(b"x" * 65536)
        await writer.drain()


async def wrong_schema(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"}")
    writer.write(b'{"id":"schema","error":null,"result":{"tables":[1,2]}}')
    await reader.read()


async def wrong_replies(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A schema that is right, and then nonsense to every request."""
    schema = VSWITCH.read_text()
    await reader.readuntil(b"}")
    writer.write(b'{"id":"schema","error":null,"result":' + schema.encode() + b"}")
    while data := await reader.read(65536):
        for number in [json.loads(each)["id"] for each in data.decode().replace("}{", "}\n{").split("\n")]:
            writer.write(json.dumps({"id": number, "error": None, "result": [["x"], 3]}).encode())


async def goodbye(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"}")
    writer.close()


@pytest.mark.parametrize(
    ("talk", "reason"),
    [
        (silence, "no answer while asking for the schema"),
        (garbage, "does not speak JSON-RPC: sent b'SSH-2.0"),
        (endless, "longer than 1048576 bytes"),
        (wrong_schema, "sent a schema that cannot be used"),
        (wrong_replies, "sent"),
        (goodbye, "closed the connection"),
    ],
)
def test_a_peer_that_misbehaves_is_reported_and_costs_nobody_else(
    tmp_path: Path, talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], reason: str
) -> None:
    async def main(host: Server, thread: IdlThread) -> None:
        async with peer(talk) as remote:
            bad = thread.connect(remote, host_database("bad"), Heard(), limits=QUICK)
            good = thread.connect(host.remote, host_database("good"), Heard())
            await up(good)
            await until(lambda: reason in bad.state.error, f"{reason!r}: {bad.state}")
            assert not bad.state.connected
            begin = time.monotonic()
            for number in range(10):
                await good.transact(add_bridge(f"br{number}"))
            assert time.monotonic() - begin < 2
            assert "bad" in await raises(OvsdbError, bad.transact(add_bridge("br0")))
            bad.close()

    with vswitch(tmp_path) as host, idl_thread() as thread:
        run(main(host, thread))


def test_a_stopped_server_delays_nobody_and_is_noticed_by_its_silence(tmp_path: Path) -> None:
    async def main(hosts: list[Server], thread: IdlThread) -> None:
        heard = Heard()
        stopped = thread.connect(hosts[0].remote, host_database("stopped"), heard, limits=QUICK)
        good = thread.connect(hosts[1].remote, host_database("good"), Heard())
        await up(stopped)
        await up(good)
        hosts[0].signal(signal.SIGSTOP)
        longest = 0.0
        number = 0
        while not heard.downs:
            begin = time.monotonic()
            await good.transact(add_bridge(f"br{number}"))
            longest = max(longest, time.monotonic() - begin)
            number += 1
            await asyncio.sleep(0.02)
        assert "did not answer" in heard.downs[0]
        assert longest < 0.5
        hosts[0].signal(signal.SIGCONT)
        await until(lambda: heard.ups == 2, "it is back")

    with vswitch(tmp_path / "a") as one, vswitch(tmp_path / "b") as two, idl_thread() as thread:
        run(main([one, two], thread))


def test_a_server_that_has_nothing_to_say_but_answers_is_kept(tmp_path: Path) -> None:
    async def main(host: Server, thread: IdlThread) -> None:
        heard = Heard()
        client = thread.connect(host.remote, host_database(), heard, limits=replace(QUICK, probe=0.05))
        await up(client)
        since = client.state.since
        await asyncio.sleep(0.05 * 20)
        assert client.state.connected
        assert (client.state.since, heard.ups) == (since, 1), "probes that were answered ended the connection"

    with vswitch(tmp_path) as host, idl_thread() as thread:
        run(main(host, thread))


def test_the_next_remote_is_tried_when_one_is_dead_and_names_are_resolved(tmp_path: Path) -> None:
    async def main(host: Server, thread: IdlThread) -> None:
        port = host.remotes[0].split(":")[1]
        remotes = f"unix:{tmp_path}/nothing,tcp:no-such-host.invalid:1,tcp:localhost:{port}"
        client = thread.connect(remotes, host_database(), Heard(), limits=QUICK)
        await client.transact(add_bridge("br0"), 20, wait=True)
        assert client.state.remote == f"tcp:localhost:{port}"

    with vswitch(tmp_path, f"ptcp:{free_port()}:127.0.0.1") as host, idl_thread() as thread:
        run(main(host, thread))


def test_closing_fails_what_is_under_way(tmp_path: Path) -> None:
    async def main(thread: IdlThread) -> None:
        client = thread.connect(f"unix:{tmp_path}/nothing", host_database(), Heard())
        waiting = asyncio.create_task(raises(OvsdbError, client.transact(add_bridge("br0"), 60, wait=True)))
        await asyncio.sleep(0)
        client.close()
        assert "was closed" in await waiting
        assert "was closed" in await raises(OvsdbError, client.transact(add_bridge("br0"), 60, wait=True))

    with idl_thread() as thread:
        run(main(thread))


def test_addresses_are_checked() -> None:
    assert [str(each) for each in parse_remotes("tcp:[::1]:6640,ssl:kvm01:6640,unix:/run/x")] == [
        "tcp:[::1]:6640",
        "ssl:kvm01:6640",
        "unix:/run/x",
    ]
    for wrong in ("", "tcp:kvm01", "tcp::6640", "tcp:kvm01:0", "tcp:kvm01:65536", "udp:a:1", "unix:", "tcp:a b:1"):
        with pytest.raises(InvalidInput):
            parse_remotes(wrong)


# TLS.


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    for ca in ("ca", "other"):
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                "-subj", f"/CN={ca}", "-keyout", f"{ca}.key", "-out", f"{ca}.pem")  # fmt: skip
    for name in ("server", "client"):
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")  # fmt: skip
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                "-days", "2", "-out", f"{name}.pem")  # fmt: skip
    return folder


@pytest.fixture
def tls_host(tmp_path: Path, certificates: Path) -> Iterator[Server]:
    options = [f"pssl:{free_port()}:127.0.0.1"]
    host = Server(tmp_path)
    host.kill()
    host.remotes = (
        *options,
        f"punix:{tmp_path}/unused",
    )
    host.extra = (
        f"--private-key={certificates}/server.key",
        f"--certificate={certificates}/server.pem",
        f"--ca-cert={certificates}/ca.pem",
    )
    host.start()
    try:
        host.transact('{"op":"insert","table":"Open_vSwitch","row":{}}')
        yield host
    finally:
        host.kill()


def test_tls_is_spoken_and_a_wrong_authority_is_refused_with_the_reason(tls_host: Server, certificates: Path) -> None:
    async def main(thread: IdlThread) -> None:
        remote = f"ssl:127.0.0.1:{tls_host.remotes[0].split(':')[1]}"
        key, own = str(certificates / "client.key"), str(certificates / "client.pem")
        right = TlsFiles(key, own, str(certificates / "ca.pem"))
        good = thread.connect(remote, host_database(), Heard(), limits=QUICK, tls=right)
        # More than one TLS record each way.
        for number in range(30):
            await good.transact(add_bridge(f"br{number}"), 10, wait=True)
        other = thread.connect(remote, host_database(), Heard(), limits=QUICK, tls=right)
        await up(other)
        count = await other.call(lambda idl: len(idl.tables["Bridge"].rows))
        assert count == 30
        wrong = TlsFiles(key, own, str(certificates / "other.pem"))
        bad = thread.connect(remote, host_database(), Heard(), limits=QUICK, tls=wrong)
        await until(lambda: "TLS: self-signed certificate" in bad.state.error, lambda: f"the reason: {bad.state}")
        bare = thread.connect(remote, host_database(), Heard(), limits=QUICK)
        await until(lambda: "no key, certificate" in bare.state.error, "the reason")
        kvm1 = thread.connect(remote, replace(host_database(), peer="kvm1"), Heard(), limits=QUICK, tls=right)
        await until(lambda: "a certificate of server is not this host's" in kvm1.state.error, "the reason")
        assert not kvm1.state.connected
        await up(thread.connect(remote, replace(host_database(), peer="server"), Heard(), limits=QUICK, tls=right))
        gone = TlsFiles("/no/key", own, str(certificates / "ca.pem"))
        missing = thread.connect(remote, host_database(), Heard(), limits=QUICK, tls=gone)
        await until(lambda: "cannot be read" in missing.state.error, "the reason")

    with idl_thread() as thread:
        run(main(thread))


def test_a_peer_that_is_silent_in_the_tls_handshake_does_not_spin(certificates: Path) -> None:
    """python-ovs waits for such a socket to be writable, which it always is."""

    async def main(thread: IdlThread) -> None:
        files = TlsFiles(*(str(certificates / name) for name in ("client.key", "client.pem", "ca.pem")))
        async with peer(silence) as remote:
            client = thread.connect(remote.replace("tcp", "ssl"), host_database(), Heard(), limits=QUICK, tls=files)
            begin = time.process_time()
            await until(lambda: "in the TLS handshake" in client.state.error, "the reason")
            assert time.process_time() - begin < 0.5
            client.close()

    with idl_thread() as thread:
        run(main(thread))


# Many.


def test_hundreds_of_clients_in_one_thread_on_descriptors_over_1024(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    fillers = [socket.socket() for _ in range(1100)]

    async def main(host: Server, thread: IdlThread) -> None:
        threads = threading.active_count()
        heard = [Heard() for _ in range(320)]
        clients = [thread.connect(host.remote, host_database(str(n)), each) for n, each in enumerate(heard)]
        await until(lambda: all(client.state.connected for client in clients), "all are connected", 60)
        assert threading.active_count() == threads
        assert all(client.session.socket.fileno() > 1023 for client in clients if client.session.socket)
        await clients[0].transact(add_bridge("br0"))
        await until(lambda: all(each.names("Bridge") == {"br0"} for each in heard), "all heard of it", 30)
        # Idle clients cost nothing, and a busy one does not pay for the others.
        for client in clients[1:]:
            client.close()
        begin = time.process_time()
        await asyncio.sleep(0.5)
        assert time.process_time() - begin < 0.25

    try:
        with vswitch(tmp_path) as host, idl_thread() as thread:
            run(main(host, thread), 120)
    finally:
        for each in fillers:
            each.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
