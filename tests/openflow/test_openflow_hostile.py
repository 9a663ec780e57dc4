"""A controller's OpenFlow port under attack, with a real Open vSwitch as the good switch beside the attackers.

FLEETSWITCH_TEST_EFFORT multiplies the number of hostile messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import statistics
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openflow_controller import GOOD, Controller, controller, dpid_of
from openflow_peers import Peer
from openflow_sessions import Mutator, recording, split
from openflow_vswitch import Vswitch

from controller.openflow import messages as msg
from controller.strangers import MOST

EFFORT = int(os.environ.get("FLEETSWITCH_TEST_EFFORT", "1"))
MESSAGES, HONEST = 100_000 * EFFORT, 40_000
A_TIME = 50  # messages of one hostile connection
HOSTS = 9  # the first is the good one, the others are compromised


@contextlib.contextmanager
def bridge(vswitch: Vswitch, name: str, number: int, port: int) -> Iterator[None]:
    """A bridge of the real Open vSwitch that is host ``number``."""
    vswitch.bridge(name)
    try:
        vswitch.vsctl("set", "bridge", name, f"other-config:datapath-id={dpid_of(number):016x}", "--",
                      "set-controller", name, f"tcp:127.0.0.1:{port}", "--",
                      "set", "controller", name, "connection_mode=out-of-band", "max_backoff=1000")  # fmt: skip
        yield
    finally:
        vswitch.vsctl("del-br", name)


def up(answer: dict[str, Any], host: str = GOOD) -> bool:
    return bool(answer["hosts"][host][:2] == ["up", 1])


@dataclass
class Trips:
    """Round trips of the good switch, ms."""

    found: list[float] = field(default_factory=list)

    def median(self) -> float:
        return statistics.median(self.found)

    def at(self, part: float) -> float:
        return sorted(self.found)[int(len(self.found) * part)]

    def __str__(self) -> str:
        return f"{len(self.found)}: median {self.median():.2f}, 95 % {self.at(0.95):.2f}, most {max(self.found):.1f} ms"


async def trips(control: Controller, count: int = 150) -> tuple[Trips, dict[str, Any]]:
    """As many as that from now on, and how all stands then."""
    await control.ask()
    found = Trips()
    while True:
        answer = await control.ask()
        found.found += answer["trips"]
        if len(found.found) >= count:
            return found, answer
        await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def attacked(folder: Path, vswitch: Vswitch, **options: Any) -> AsyncIterator[Controller]:
    """A controller whose good switch is up; it must be the same connection in the end, and up."""
    async with controller(folder, **{"hosts": HOSTS, **options}) as control:
        with bridge(vswitch, "good", 1, control.port):
            before = await control.until("the good switch is up", up)
            yield control
            after = await control.ask()
            assert after["hosts"][GOOD] == before["hosts"][GOOD], "the good switch's connection was disturbed"
            assert after["lost"] == 0


async def from_somewhere(port: int, number: int) -> Peer:
    """A connection from one of some hundred addresses of this machine, so that none comes too often."""
    return await Peer.connect(port, local_addr=(f"127.0.{1 + number % 4}.{1 + number // 4 % 250}", 0))


async def swallow(peer: Peer) -> None:
    """Reads until the other side ends the connection."""
    with contextlib.suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(1.0):
            while await peer.reader.read(65536):
                pass


async def hurl(port: int, number: int, dpid: int | None, data: bytes) -> None:
    """One hostile connection: with a datapath id it gets through the handshake first."""
    peer = await from_somewhere(port, number)
    try:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            if dpid is not None:
                await peer.handshake(dpid)
            peer.writer.write(data)
            peer.writer.write_eof()
            await swallow(peer)
    finally:
        peer.writer.transport.abort()


async def record(control: Controller, vswitch: Vswitch) -> list[bytes]:
    """What a real switch says: handshake, role, flows, bundle, ports, flow monitor, errors, echoes."""
    async with recording(control.port) as (port, heard):
        with bridge(vswitch, "model", 2, port):
            await control.until("the model is up", lambda answer: up(answer, "h2"))
            path = f"unix:{vswitch.folder}/model.mgmt"
            for command in (["add-flow", path, "cookie=7,table=0,priority=9,tcp,tp_dst=80,actions=drop"],
                            ["mod-port", path, "1", "down"], ["del-flows", path, "cookie=7/-1"]):  # fmt: skip
                await asyncio.to_thread(vswitch.ofctl, *command)
            kinds = {msg.Type.HELLO, msg.Type.FEATURES_REPLY, msg.Type.MULTIPART_REPLY, msg.Type.BUNDLE_CONTROL,
                     msg.Type.ROLE_REPLY, msg.Type.PORT_STATUS, msg.Type.BARRIER_REPLY}  # fmt: skip
            async with asyncio.timeout(20):
                while not kinds <= {data[1] for data in split(bytes(heard))}:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
    return split(bytes(heard))


@dataclass
class Storm:
    """What many connections at once did: the controller before and after, and the good switch's round trips."""

    before: dict[str, Any]
    after: dict[str, Any] = field(default_factory=dict)
    trips: Trips = field(default_factory=Trips)

    @property
    def messages(self) -> int:
        return int(self.after["looked_at"] - self.before["looked_at"])

    def cpu(self) -> float:
        """Microseconds that the controller took for a message."""
        return float((self.after["cpu"] - self.before["cpu"]) / self.messages * 1e6)


async def storm(control: Controller, count: int, session: Callable[[], bytes]) -> Storm:
    """Sessions of strangers, and of switches that are through the handshake, until so many messages were looked at."""
    found = Storm(await control.ask())
    looked_at, numbers = found.before["looked_at"], itertools.count()

    async def attack(dpid: int | None) -> None:
        while looked_at - found.before["looked_at"] < count:
            await hurl(control.port, next(numbers), dpid, session())

    attackers = [asyncio.create_task(attack(n and dpid_of(n))) for n in (None, None, *range(2, HOSTS + 1))]
    while not all(task.done() for task in attackers):
        answer = await control.ask()
        found.trips.found += answer["trips"]
        looked_at = answer["looked_at"]
        await asyncio.sleep(0.05)
    await asyncio.gather(*attackers)
    found.after = await control.until("they are gone", lambda a: a["open"] == 1 and a["pending"] == 0)
    return found


def test_mutated_sessions(tmp_path: Path, vswitch: Vswitch) -> None:
    """They cost about what sessions of honest messages do: CPU, memory, and the good switch's time."""

    async def main() -> None:
        async with attacked(tmp_path, vswitch, flows=200) as control:
            mutator = Mutator(await record(control, vswitch), seed=4711)
            calm, _ = await trips(control)
            honest = await storm(control, HONEST, lambda: mutator.session(A_TIME, mutated=0.0))
            evil = await storm(control, MESSAGES, lambda: mutator.session(A_TIME))
            _, rested = await trips(control)
            for what, one in (("honest", honest), ("mutated", evil)):
                show(f"{one.messages} messages of {what} sessions", calm, one.trips, one.before, one.after)
            print(f"CPU a message: {honest.cpu():.0f} us honest, {evil.cpu():.0f} us mutated")
            assert evil.messages >= MESSAGES
            assert evil.cpu() < 5 * honest.cpu() + 50  # fewer of a connection are looked at: there are more handshakes
            assert evil.trips.median() < 3 * honest.trips.median() + 3
            assert evil.trips.at(0.95) < 3 * honest.trips.at(0.95) + 40
            assert evil.after["rss"] - evil.before["rss"] < 16
            assert evil.after["peak"] - evil.before["rss"] < 48
            assert rested["cpu"] - evil.after["cpu"] < 2.0, "it is still busy with what is over"
            assert 0 < len(evil.after["strangers"]) <= MOST

    asyncio.run(main())


def show(what: str, calm: Trips, storm: Trips, before: dict[str, Any], after: dict[str, Any]) -> None:
    print(f"\n{what}: round trips without {calm}; with {storm}; memory {before['rss']:.0f} to {after['rss']:.0f} MB, "
          f"at most {after['peak']:.0f}; CPU {after['cpu'] - before['cpu']:.1f} s")  # fmt: skip


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """A message that is one by its header, or nearly."""
    body = draw(st.binary(max_size=64))
    version = draw(st.sampled_from([6] * 30 + [0, 4, 5, 255]))
    kind = draw(st.one_of(st.sampled_from([0, 1, 3, 4, 6, 10, 12, 19, 21, 25, 33]), st.integers(0, 255)))
    size = 8 + len(body) if draw(st.integers(0, 19)) else draw(st.integers(0, 0xFFFF))
    return struct.pack("!BBHI", version, kind, size, draw(st.integers(0, 20))) + body


def test_generated_messages(tmp_path: Path, vswitch: Vswitch) -> None:
    """Hypothesis shrinks what does harm to the smallest that does."""

    async def main() -> None:
        async with attacked(tmp_path, vswitch) as control:
            loop, numbers = asyncio.get_running_loop(), itertools.count()

            async def one(dpid: int | None, sent: list[bytes]) -> None:
                await hurl(control.port, next(numbers), dpid, b"".join(sent))
                answer = await control.ask()
                assert up(answer)
                assert answer["lost"] == 0

            @settings(
                max_examples=250 * EFFORT, deadline=None, database=None,
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
            )  # fmt: skip
            @given(st.sampled_from([None, *map(dpid_of, range(2, HOSTS + 1))]), st.lists(messages(), max_size=20))
            def hurled(dpid: int | None, sent: list[bytes]) -> None:
                asyncio.run_coroutine_threadsafe(one(dpid, sent), loop).result(30)

            await asyncio.to_thread(hurled)
            answer = await control.until("the attackers are gone", lambda a: a["open"] == 1 and a["pending"] == 0)
            print(f"\n{answer['looked_at']} generated messages; memory {answer['rss']:.0f} MB")

    asyncio.run(main())


def test_a_flood_of_small_messages(tmp_path: Path, vswitch: Vswitch) -> None:
    """Whatever is in a peer's buffer, the others have their turn soon."""

    async def main() -> None:
        async with attacked(tmp_path, vswitch) as control:
            calm, before = await trips(control)
            over = asyncio.Event()
            ignored, error = msg.message(99), msg.message(msg.Type.ERROR, bytes(4), 4711)
            known = (ignored * 4000 + error * 2000 + msg.echo_request(b"", 1) * 2000) * 4
            stranger = msg.hello() + (ignored + msg.echo_request(b"", 1)) * 2000

            async def flood(number: int) -> None:
                while not over.is_set():
                    if number < HOSTS - 1:
                        await hurl(control.port, number, dpid_of(2 + number), known)
                    else:
                        await hurl(control.port, number, None, stranger)

            floods = [asyncio.create_task(flood(number)) for number in range(100)]
            found, after = await trips(control, 60)
            over.set()
            await asyncio.gather(*floods)
            show(f"a flood of {after['looked_at'] - before['looked_at']} small messages", calm, found, before, after)
            assert after["looked_at"] > before["looked_at"] + 10_000
            assert found.at(0.95) < 10 * calm.at(0.95) + 250
            assert after["peak"] - before["rss"] < 96

    asyncio.run(main())
