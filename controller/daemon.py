"""``fleetswitch up``: the parts in their order, and their end in the reverse."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import platform
import resource
import signal
import socket
import ssl
import sys
import uuid
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any

from apps import APPS
from controller import heap
from controller.api.app import create_app
from controller.api.server import ApiServer
from controller.coordinator import Coordinator
from controller.errors import FleetError
from controller.idl import IdlThread, TlsFiles
from controller.openflow.listener import MAX_PENDING, Listener, server_context
from controller.operations import FleetOperations
from controller.options import Options, parse_loopback
from controller.ovsdb.host import HOST_LIMITS, Connect
from controller.pauses import ShortPauses
from controller.pipeline.pipeline import Pipeline
from controller.store.server import PrivateServer
from controller.store.store import Store

log = logging.getLogger(__name__)

_LEASE = "controller"
_LEASE_SECONDS = 10.0
_CALL_SECONDS = 120.0
_DESCRIPTORS = 65536


def run(options: Options) -> int:
    """Run until SIGTERM or SIGINT; SIGHUP reads the certificates again.

    Returns the exit code: 0 was told to stop, 1 could not start or go on.
    """
    heap.share()
    _configure_logging(options.log_level)
    _raise_descriptor_limit()
    ShortPauses().install()
    try:
        asyncio.run(_serve(options))
    except FleetError as error:
        log.error("%s", error)
        return 1
    return 0


async def _serve(options: Options) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    listeners: list[Listener] = []
    loop.add_signal_handler(signal.SIGHUP, lambda: _reload(listeners, options))
    lost: list[str] = []

    def on_lost(reason: str) -> None:
        # A private store has no other controller; its lease is taken again as soon as it is back.
        if options.store is not None and not stopping.is_set():
            lost.append(reason)
            stopping.set()

    async with contextlib.AsyncExitStack() as stack:
        store = await stack.enter_async_context(_store(options))
        won: asyncio.Future[int] = loop.create_future()
        owner = f"{platform.node()} {uuid.uuid4()}"  # hosts may be called alike

        def on_won(epoch: int) -> None:
            if not won.done():
                won.set_result(epoch)

        leadership = store.lease(_LEASE, owner, _LEASE_SECONDS, on_won, on_lost, alone=options.store is None)
        leadership.start()
        stack.push_async_callback(leadership.stop)
        epoch = await _first(won, stopping)
        if epoch is None:
            return
        hosts = IdlThread("hosts-ovsdb")
        hosts.start()
        stack.callback(hosts.stop)
        coordinator = Coordinator(store, Pipeline(APPS), _connector(hosts, options), options.advertise, epoch)
        stack.push_async_callback(coordinator.stop)
        await coordinator.start()
        for address in options.listen:
            listener = Listener(
                address, coordinator.admission.accept, lost=coordinator.admission.lost,
                tls=_server_context(address, options), max_pending=_most_strangers(),
            )  # fmt: skip
            await listener.start()
            listeners.append(listener)
            stack.push_async_callback(listener.close)
        api = _api(options, FleetOperations(coordinator), loop)
        api.start()
        stack.push_async_callback(asyncio.to_thread, api.stop)
        log.info("fleetswitch is up; OpenFlow at %s", ", ".join(options.listen))
        _notify_systemd()
        await stopping.wait()
        log.info("stopping; the hosts go on with what they have")
    if lost:
        raise FleetError(f"another controller took over: {lost[0]}", remedy="one controller drives a store at a time")


@contextlib.asynccontextmanager
async def _store(options: Options) -> AsyncIterator[Store]:
    """The store, on its private server unless the operator named one."""
    async with contextlib.AsyncExitStack() as stack:
        remotes = options.store
        if remotes is None:
            server = PrivateServer(options.state_dir / "store")
            await server.start()
            stack.push_async_callback(server.stop)
            remotes = server.remote
        thread = IdlThread("store-ovsdb")
        thread.start()
        stack.callback(thread.stop)
        store = Store(remotes, thread, tls=_tls_files(options))
        stack.callback(store.close)
        await store.start()
        yield store


async def _first(won: asyncio.Future[int], stopping: asyncio.Event) -> int | None:
    """The epoch of our lease, or None when we are told to stop before we get it."""
    stop = asyncio.ensure_future(stopping.wait())
    either: set[asyncio.Future[Any]] = {won, stop}
    done, _ = await asyncio.wait(either, timeout=_LEASE_SECONDS / 5, return_when=asyncio.FIRST_COMPLETED)
    if not done:
        log.warning("another controller drives this store, or did a moment ago; waiting until its lease ends")
        done, _ = await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    return won.result() if won in done else None


def _api(options: Options, operations: FleetOperations, loop: asyncio.AbstractEventLoop) -> ApiServer:
    def call(coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(_CALL_SECONDS)

    tcp = parse_loopback(options.api_tcp) if options.api_tcp is not None else None
    return ApiServer(create_app(call, operations), options.api_socket, tcp)


def _tls_files(options: Options) -> TlsFiles | None:
    tls = options.tls
    return TlsFiles(str(tls.key), str(tls.certificate), str(tls.ca)) if tls is not None else None


def _server_context(address: str, options: Options) -> ssl.SSLContext | None:
    if options.tls is None or not address.startswith("ssl:"):
        return None
    try:
        return server_context(options.tls.key, options.tls.certificate, options.tls.ca)
    except (OSError, ssl.SSLError) as error:
        raise FleetError(f"the certificates cannot be used: {error}", where=str(options.tls.certificate)) from None


def _reload(listeners: Sequence[Listener], options: Options) -> None:
    """Read the certificates again, all or none of them; connections that stand go on.

    Everything else that could be read again is read when it is used: the store's rows as they change, and for hosts'
    OVSDB the certificates at every connection.
    """
    try:
        fresh = [(each, _server_context(str(each.address), options)) for each in listeners]
    except FleetError as error:
        log.error("reload: %s; what was read before is used on", error)
        return
    renewed = [(listener, context) for listener, context in fresh if context is not None]
    for listener, context in renewed:
        listener.renew(context)
    log.info("reload: %s", "certificates read again" if renewed else "there are no certificates to read again")


def _connector(thread: IdlThread, options: Options) -> Connect:
    """How a host's OVSDB is connected to."""
    tls = _tls_files(options)
    return lambda remote, database, listener: thread.connect(remote, database, listener, tls=tls, limits=HOST_LIMITS)


def _configure_logging(level: str) -> None:
    logging.basicConfig(
        level=level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )


def _raise_descriptor_limit() -> None:
    """A host takes about five descriptors; the usual soft limit of 1024 ends at 200 hosts."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _most_strangers() -> int:
    """Peers that may be in the handshake at once at one address: never so many that hosts' connections find no
    descriptor, where the hard limit is low."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(MAX_PENDING, max(16, soft // 8))


def _notify_systemd() -> None:
    """Tell a service manager that waits for it that we are ready (sd_notify(3))."""
    path = os.environ.get("NOTIFY_SOCKET")
    if path:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, contextlib.suppress(OSError):
            notify.sendto(b"READY=1", "\0" + path[1:] if path.startswith("@") else path)
