"""A connection to a router: how it comes about, what is told on it, and every way that it ends."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from os_ken.lib.packet import bgp

from controller.bgp import dial as dialling
from controller.bgp import messages
from controller.bgp import peer as peers
from controller.bgp.dial import dial
from controller.bgp.peer import Peer
from controller.errors import BgpError
from controller.model.bgp import BgpPeerSpec

PATIENCE = 20.0
WRONG_PREFIX = b"\xff" * 16 + b"\0\x18\x02\0\0\0\0\x21"  # of 33 bits
AGAIN = b"\xff" * 16 + b"\0\x17\x05" + b"\0\1\0\1"  # RFC 2918: tell me all of IPv4
ROUTES = {"10.20.0.0/24": "203.0.113.11", "10.20.0.5/32": "203.0.113.12"}


def spec(**fields: object) -> BgpPeerSpec:
    about = {"address": "192.0.2.1", "remote_as": 64512, "local_as": 4200000001, **fields}
    return BgpPeerSpec.model_validate(about)


class Router:
    """The other end, which does as the test says. ``told`` is what it knows by UPDATEs."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.told: dict[str, str] = {}
        self.ended = self.ended6 = False  # all is told that was to be told first; of IPv6

    def say(self, message: bytes) -> None:
        self._writer.write(message)

    async def hear(self) -> bgp.BGPMessage:
        """The next message, as os-ken reads it. Raises EOFError at the end."""
        async with asyncio.timeout(PATIENCE):
            head = await self._reader.readexactly(messages.HEADER_BYTES)
            rest = await self._reader.readexactly(int.from_bytes(head[16:18], "big") - len(head))
        return bgp.BGPMessage.parser(head + rest)[0]

    async def hear_until(
        self, kind: type[bgp.BGPMessage], satisfied: Callable[[], bool] = lambda: True
    ) -> bgp.BGPMessage:
        while True:
            message = await self.hear()
            if isinstance(message, bgp.BGPUpdate):
                self.take(message)
            if isinstance(message, kind) and satisfied():
                return message

    def take(self, update: bgp.BGPUpdate) -> None:
        self.ended |= not update.nlri and not update.withdrawn_routes and not update.path_attributes
        for route in update.withdrawn_routes:
            del self.told[route.prefix]
        for route in update.nlri:
            self.told[route.prefix] = update.pathattr_map[bgp.BGP_ATTR_TYPE_NEXT_HOP].value
        if (reach := update.pathattr_map.get(bgp.BGP_ATTR_TYPE_MP_REACH_NLRI)) is not None:
            self.told |= {route.prefix: reach.next_hop for route in reach.nlri}
        if (unreach := update.pathattr_map.get(bgp.BGP_ATTR_TYPE_MP_UNREACH_NLRI)) is not None:
            self.ended6 |= not unreach.withdrawn_routes
            for route in unreach.withdrawn_routes:
                del self.told[route.prefix]

    async def establish(self, hold_time: int = 90, restart_time: int | None = 120) -> bgp.BGPOpen:
        """Up to the point where routes come; returns what the speaker said of itself."""
        opened = await self.hear()
        self.say(hello(hold_time=hold_time, restart_time=restart_time))
        self.say(messages.keepalive())
        assert isinstance(await self.hear(), bgp.BGPKeepAlive)
        return opened

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


def hello(asn: int = 64512, hold_time: int = 90, restart_time: int | None = 120, wide: bool = True) -> bytes:
    capabilities = [bgp.BGPOptParamCapabilityFourOctetAsNumber(as_number=asn)] if wide else []
    if restart_time is not None:
        capabilities.append(bgp.BGPOptParamCapabilityGracefulRestart(flags=0, time=restart_time, tuples=[(1, 1, 0)]))
    return bytes(bgp.BGPOpen(min(asn, 65535), "192.0.2.9", hold_time=hold_time, opt_param=capabilities).serialize())


class Meeting:
    """``peer`` dials, and each call finds another ``router()``. ``states`` are those that it was in; ``reader`` and
    ``writer`` are its end of the connection."""

    def __init__(self, about: BgpPeerSpec) -> None:
        self._calls: asyncio.Queue[Router] = asyncio.Queue()
        self._all: list[Router] = []
        self._news = asyncio.Event()
        self.port = 0
        self.states: list[tuple[str, str]] = []
        self.peer = Peer("tor", about, self._changed, dialled=self._connection)

    def _changed(self, peer: Peer) -> None:
        self.states.append((peer.state, peer.reason))
        self._news.set()

    async def _connection(self, about: BgpPeerSpec) -> dialling.Connection:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        return self.reader, self.writer

    async def _called(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._all.append(Router(reader, writer))
        self._calls.put_nowait(self._all[-1])

    async def router(self) -> Router:
        async with asyncio.timeout(PATIENCE):
            return await self._calls.get()

    async def times(self, state: str, count: int) -> list[str]:
        """When it came into that state so often: the reasons that it had then."""
        async with asyncio.timeout(PATIENCE):
            while len(found := [reason for its, reason in self.states if its == state]) < count:
                self._news.clear()
                await self._news.wait()
        return found

    async def reason(self) -> str:
        """Why it came to nothing, the first time."""
        return (await self.times("idle", 1))[0]

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        server = await asyncio.start_server(self._called, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        task = asyncio.create_task(self.peer.run())
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            server.close()
            for router in self._all:
                await router.close()


@contextlib.asynccontextmanager
async def meeting(**fields: object) -> AsyncIterator[tuple[Meeting, asyncio.Task[None]]]:
    met = Meeting(spec(**fields))
    async with met.running() as task:
        yield met, task


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "_FIRST_WAIT", 0.01)
    monkeypatch.setattr(peers, "_LONGEST_WAIT", 0.02)


def test_a_router_is_told_the_routes_and_what_changes() -> None:
    async def main() -> None:
        async with meeting() as (met, _):
            met.peer.want(ROUTES)
            router = await met.router()
            opened = await router.establish(hold_time=30)
            assert (opened.my_as, opened.hold_time, opened.bgp_identifier) == (23456, 90, "127.0.0.1")
            await router.hear_until(bgp.BGPUpdate, lambda: router.ended)
            assert router.told == ROUTES == met.peer.announced
            assert (met.peer.state, met.peer.hold_time, met.peer.router and met.peer.router.restart_time) == (
                "established", 30, 120)  # fmt: skip
            then = {"10.20.0.5/32": "203.0.113.11", "10.20.0.6/32": "203.0.113.11"}
            met.peer.want(then)
            await router.hear_until(bgp.BGPUpdate, lambda: router.told == then)
            assert [state for state, _ in met.states] == ["connect", "opensent", "openconfirm", "established"]

    asyncio.run(main())


def test_a_router_that_speaks_ipv6_is_told_those_routes_too() -> None:
    both = ROUTES | {"fd20::/64": "2001:db8::11", "fd20::5/128": "2001:db8::12"}

    async def main(ipv6: bool) -> dict[str, str]:
        async with meeting() as (met, _):
            met.peer.want(both)
            router = await met.router()
            await router.hear()
            router.say(messages.open_message(64512, 90, "192.0.2.9", 120, False) if ipv6 else hello())
            router.say(messages.keepalive())
            await router.hear_until(bgp.BGPUpdate, lambda: router.ended6 if ipv6 else router.ended)
            met.peer.want({**ROUTES, "fd20::5/128": "2001:db8::11", "10.20.0.9/32": "203.0.113.11"})
            await router.hear_until(
                bgp.BGPUpdate, lambda: "10.20.0.9/32" in router.told and "fd20::/64" not in router.told
            )
            assert router.told == met.peer.announced
            return {prefix: hop for prefix, hop in router.told.items() if ":" in prefix}

    assert asyncio.run(main(ipv6=True)) == {"fd20::5/128": "2001:db8::11"}
    assert asyncio.run(main(ipv6=False)) == {}


def test_after_a_loss_all_is_told_again() -> None:
    async def main() -> None:
        async with meeting() as (met, _):
            met.peer.want(ROUTES)
            router = await met.router()
            opened = await router.establish()
            assert opened.get_opt_param_cap(bgp.BGP_CAP_GRACEFUL_RESTART).flags == 8  # perhaps it was another process
            await router.close()
            assert await met.reason() == "it closed the connection"
            assert met.peer.announced == {}
            router = await met.router()
            opened = await router.establish()
            assert opened.get_opt_param_cap(bgp.BGP_CAP_GRACEFUL_RESTART).flags == 0
            await router.hear_until(bgp.BGPUpdate, lambda: router.ended)
            assert router.told == ROUTES
            assert (met.peer.state, met.peer.reason) == ("established", "")

    asyncio.run(main())


def test_a_router_that_asks_is_told_all_again_and_its_own_routes_are_counted() -> None:
    async def main() -> None:
        async with meeting() as (met, _):
            met.peer.want(ROUTES)
            router = await met.router()
            await router.establish()
            await router.hear_until(bgp.BGPUpdate, lambda: router.ended)
            router.told.clear()
            router.say(b"".join(messages.updates({"0.0.0.0/0": "192.0.2.1", "10.0.0.0/8": "192.0.2.1"}, (), 1, False)))
            router.say(AGAIN)
            await router.hear_until(bgp.BGPUpdate, lambda: router.told == ROUTES)
            assert met.peer.received == 2

    asyncio.run(main())


def test_a_route_that_goes_while_a_router_asks_for_all_is_withdrawn() -> None:
    async def main() -> None:
        async with meeting() as (met, _):
            met.peer.want(ROUTES)
            router = await met.router()
            await router.establish()
            await router.hear_until(bgp.BGPUpdate, lambda: router.ended)
            taken, drain = asyncio.Event(), met.writer.drain

            async def slow() -> None:
                await taken.wait()
                await drain()

            met.writer.drain = slow  # type: ignore[method-assign]
            met.peer.want(ROUTES | {"10.20.0.6/32": "203.0.113.11"})  # it waits for the router to take this
            await router.hear_until(bgp.BGPUpdate)
            router.say(AGAIN + b"".join(messages.updates({"10.0.0.0/8": "192.0.2.1"}, (), 1, False)))
            async with asyncio.timeout(PATIENCE):
                while not met.peer.received:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            met.peer.want({"10.20.0.0/24": "203.0.113.11"})
            taken.set()
            await router.hear_until(bgp.BGPUpdate, lambda: "10.20.0.5/32" not in router.told)
            assert router.told == met.peer.announced == {"10.20.0.0/24": "203.0.113.11"}

    asyncio.run(main())


def test_a_router_that_talks_without_end_leaves_the_loop_to_others() -> None:
    async def main() -> None:
        async with meeting() as (met, _):
            router = await met.router()
            await router.establish()
            await router.hear_until(bgp.BGPUpdate, lambda: router.ended)
            (said,) = messages.updates({"10.0.0.0/8": "192.0.2.1"}, (), 1, False)
            met.reader.feed_data(said * 500)
            seen = set()
            while met.peer.received < 500:
                seen.add(met.peer.received)
                await asyncio.sleep(0)
            assert len(seen) > 100

    asyncio.run(main())


def test_it_says_that_it_is_there_and_ends_with_a_router_that_is_not() -> None:
    async def main() -> None:
        async with meeting(hold_time=3) as (met, _):
            router = await met.router()
            await router.establish()
            await router.hear_until(bgp.BGPKeepAlive)
            said = await router.hear_until(bgp.BGPNotification)
            assert (said.error_code, said.error_subcode) == (4, 0)
            assert "said nothing for 3 seconds" in [reason for _, reason in met.states]

    asyncio.run(main())


def test_only_an_end_for_good_takes_the_routes_away() -> None:
    async def main(farewell: bool) -> list[type[bgp.BGPMessage]]:
        async with meeting() as (met, task):
            router = await met.router()
            await router.establish()
            await router.hear_until(bgp.BGPUpdate, lambda: router.ended)
            if farewell:
                met.peer.part()
            task.cancel()
            heard = []
            with contextlib.suppress(EOFError):
                while True:
                    heard.append(await router.hear())
            return [(each.error_code, each.error_subcode) for each in heard]

    assert asyncio.run(main(farewell=True)) == [(6, 3)]
    assert asyncio.run(main(farewell=False)) == []


@pytest.mark.parametrize(
    ("answer", "said", "code"),
    [
        (hello(asn=64999), "is of AS 64999, not of 64512 (see remote_as)", (2, 2)),
        (hello(wide=False), "knows no AS numbers of four octets", (2, 7)),
        (hello(hold_time=0), "wants a hold time of 0", (2, 6)),
        (messages.keepalive(), "sent KEEPALIVE where OPEN belongs", (5, 1)),
        (hello() + hello(), "sent OPEN where KEEPALIVE belongs", (5, 2)),
        (hello() + messages.keepalive() + hello(), "sends a second OPEN", (5, 3)),
        (hello() + messages.keepalive() + WRONG_PREFIX, "sends a prefix that is none", (3, 10)),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "is out of step", (1, 1)),
        (messages.notification(2, 2), "local_as is not the AS that it expects", None),
        (hello() + messages.keepalive() + messages.notification(6, 2), "shut down by its administrator", None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_a_router_may_not_do(answer: bytes, said: str, code: tuple[int, int] | None) -> None:
    async def main() -> None:
        async with meeting() as (met, _):
            router = await met.router()
            router.say(answer)
            assert said in await met.reason()
            if code is not None:
                heard = await router.hear_until(bgp.BGPNotification)
                assert (heard.error_code, heard.error_subcode) == code
            await met.router()  # it is tried again

    asyncio.run(main())


@pytest.mark.parametrize("local_as", [64512, 4200000001])
def test_only_a_router_of_the_same_as_needs_another_identifier(local_as: int) -> None:
    """RFC 6286, 2.2: one of another AS may run on the controller's own machine."""

    async def main() -> tuple[str, str]:
        async with meeting(local_as=local_as) as (met, _):
            router = await met.router()
            router.say(messages.open_message(64512, 90, "127.0.0.1", 0, False) + messages.keepalive())
            if local_as != 64512:
                await router.hear_until(bgp.BGPUpdate)
                return met.peer.state, met.peer.reason
            said = await router.hear_until(bgp.BGPNotification)
            assert (said.error_code, said.error_subcode) == (2, 3)
            return "idle", await met.reason()

    internal = ("idle", "has our own BGP identifier 127.0.0.1")
    assert asyncio.run(main()) == (internal if local_as == 64512 else ("established", ""))


def test_a_router_that_refuses_connections_is_tried_again() -> None:
    async def main() -> None:
        met = Meeting(spec())
        with socket.create_server(("127.0.0.1", 0)) as nobody:
            met.port = nobody.getsockname()[1]
        task = asyncio.create_task(met.peer.run())
        await met.times("idle", 3)
        task.cancel()
        assert met.peer.reason == "connection refused"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "no such file or directory"), (b"\n", "is no file with 1 to 80 bytes"), (b"x" * 81, "1 to 80 bytes")],
)
def test_a_password_that_cannot_be_read(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "password"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BgpError, match=str(path)) as caught:
        asyncio.run(dial(spec(password_file=str(path))))
    assert said in str(caught.value).lower()
    assert "xxx" not in str(caught.value)


def test_a_password_file_that_is_none_holds_up_nobody() -> None:
    for path in ("/dev/zero", "/", "/dev/tty"):
        with pytest.raises(BgpError):
            asyncio.run(dial(spec(password_file=path)))
