"""Where switches connect: ``tcp:ADDRESS:PORT``, ``ssl:ADDRESS:PORT`` and ``unix:PATH``.

Peers that have not finished hello and features, a TLS handshake included, are few at once, in all and for each
source; whoever comes beyond that displaces the one that has stood there longest, and who comes too often is closed at
once. Running out of descriptors delays accepting and never ends it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import re
import socket
import ssl
import stat
from asyncio import sslproto
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from controller.errors import OpenFlowError
from controller.openflow.connection import Connection
from controller.openflow.decode import Features
from controller.openflow.door import Door, source_of
from controller.openflow.sparse import Sparse
from controller.openflow.transport import Limits, address_of, peer_text

log = logging.getLogger(__name__)

# asyncio gives each TLS connection a buffer of 256 KiB before its first byte: a thousand strangers that say nothing
# would hold 300 MB (measured). A TLS record has 16 KiB at most.
sslproto.SSLProtocol.max_size = 1 << 15

BACKLOG = 1024  # 400 switches that reconnect at once overrun a short one, and Open vSwitch then waits (measured)
MAX_PENDING = 1024
_RETRY = 0.5
_ACCEPTS = 32  # in one turn of the loop
Accept = Callable[[Connection, Features], bool]
Lost = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed listening address; ``host`` is the path for ``unix``."""

    scheme: str
    host: str
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> Address:
        """Raises OpenFlowError that says what an address looks like."""
        unix = re.fullmatch(r"unix:(/.+)", text)
        if unix:
            return cls("unix", unix[1])
        inet = re.fullmatch(r"(tcp|ssl):(?:\[([0-9a-fA-F:.%\w]+)\]|([^:\[\]]+)):(\d{1,5})", text)
        if inet is None or int(inet[4]) > 65535:
            raise OpenFlowError(
                "not an address to listen on", where=text, remedy="tcp:ADDRESS:PORT, ssl:ADDRESS:PORT or unix:/PATH"
            )
        return cls(inet[1], inet[2] or inet[3], int(inet[4]))

    def __str__(self) -> str:
        if self.scheme == "unix":
            return f"unix:{self.host}"
        return f"{self.scheme}:{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def server_context(key: str | Path, certificate: str | Path, ca: str | Path) -> ssl.SSLContext:
    """A context that shows our certificate and demands one that ``ca`` signed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(ca)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def _ignore(address: str, reason: str) -> None:
    pass


class Listener:
    """Accepts switches. ``accept`` gets a connection that is through the handshake, with what the switch says of
    itself; it sets ``connection.handlers`` and returns True, or returns False to refuse it, and logs why. ``lost`` gets
    the address of a peer that did not get through the handshake, and the reason.

    ``max_pending`` peers may be in the handshake at once, ``max_pending_per_peer`` of them from one source: an IPv4
    address, a /64 of IPv6, all of ``unix:``.
    """

    def __init__(
        self,
        address: str,
        accept: Accept,
        *,
        tls: ssl.SSLContext | None = None,
        lost: Lost = _ignore,
        limits: Limits | None = None,
        max_pending: int = MAX_PENDING,
        max_pending_per_peer: int = 256,
    ) -> None:
        self.address = Address.parse(address)
        if (self.address.scheme == "ssl") != (tls is not None):
            raise OpenFlowError("ssl: needs key, certificate and CA, and nothing else takes them", where=address)
        self._accept = accept
        self._tls = tls
        self._limits = limits or Limits()
        self._lost = lost
        self._door = Door(max_pending, max_pending_per_peer)
        self._socket: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None
        self._openings: set[asyncio.Task[None]] = set()
        self._connections: set[Connection] = set()
        self._say = Sparse(log)

    @property
    def port(self) -> int:
        """The TCP port, also where the address asked for any."""
        return int(self._socket.getsockname()[1]) if self._socket and self.address.scheme != "unix" else 0

    @property
    def pending(self) -> int:
        """Peers in the handshake."""
        return self._door.inside

    def renew(self, tls: ssl.SSLContext) -> None:
        """Whoever connects from now on is shown these certificates; who is connected stays so."""
        self._tls = tls

    async def start(self) -> None:
        """Binds and begins to accept. Raises OpenFlowError when the address cannot be had."""
        try:
            self._socket = _bind(self.address)
        except OSError as error:
            raise OpenFlowError(f"cannot listen: {error.strerror or error}", where=str(self.address)) from error
        self._task = asyncio.create_task(self._serve(self._socket), name=f"listen {self.address}")

    async def close(self) -> None:
        """Stops accepting and ends every connection that came through here."""
        tasks = [t for t in (self._task, *self._openings) if t is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._socket is not None:
            _unbind(self._socket, self.address)
        for connection in list(self._connections):
            connection.abort("the controller stops")

    async def _serve(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        for turn in itertools.count():
            if turn % _ACCEPTS == 0:
                await asyncio.sleep(0)  # accepting never suspends while peers queue: let the others run
            try:
                sock, name = await loop.sock_accept(listening)
            except OSError as error:  # no descriptor, no memory, or a peer that has gone again
                self._say.warning("%s: cannot accept: %s", self.address, error.strerror)
                await asyncio.sleep(_RETRY)
                continue
            source = source_of(name)
            if not self._door.may_come(source):
                self._say.warning("%s: %s refused: comes too often", self.address, source)
                sock.close()
                continue
            opening = _Opening()
            ticket, crowded = self._door.enter(source, opening.end)
            if crowded:
                self._say.warning("%s: too many peers are in the handshake: one of them made room", self.address)
            leave = partial(self._door.leave, source, ticket)
            opening.task = asyncio.create_task(self._open(opening, sock, leave, peer_text(name)))
            self._openings.add(opening.task)
            opening.task.add_done_callback(self._openings.discard)

    async def _open(self, opening: _Opening, sock: socket.socket, leave: Callable[[], None], shown: str) -> None:
        """Takes a peer through TLS; from there the connection's own handshake timer holds it."""

        def ready(connection: Connection, features: Features) -> bool:
            leave()
            return self._accept(connection, features)

        def lost(reason: str) -> None:
            self._say.warning("%s: %s left in the handshake: %s", self.address, shown, reason)
            self._lost(address_of(shown), reason)

        def make() -> Connection:
            opening.connection = _Tracked(ready, self._limits, leave, lost, self._connections)
            return opening.connection

        seconds = self._limits.handshake if self._tls else None
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                make, sock, ssl=self._tls, ssl_handshake_timeout=seconds
            )
        except (OSError, ssl.SSLError) as error:
            leave()
            lost(f"TLS: {_tls_reason(error)}")
        except BaseException:
            leave()
            sock.close()
            raise


class _Opening:
    """A peer from its connection to the end of its handshake."""

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.connection: Connection | None = None

    def end(self) -> None:
        """Others need its place."""
        if self.connection is not None and self.connection.is_active:
            self.connection.abort("had to make room for others")
        elif self.task is not None:
            self.task.cancel()


class _Tracked(Connection):
    """A connection that its listener counts until the handshake is done, and knows until it ends."""

    def __init__(
        self,
        ready: Accept,
        limits: Limits,
        leave: Callable[[], None],
        lost: Callable[[str], None],
        known: set[Connection],
    ) -> None:
        super().__init__(ready, limits=limits)
        self._leave = leave
        self._lost = lost
        self._known = known

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._known.add(self)
        super().connection_made(transport)

    def ended(self, reason: str) -> None:
        if self.features is None:
            self._lost(reason)
        super().ended(reason)

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        self._known.discard(self)
        super().connection_lost(exc)


def _tls_reason(error: Exception) -> str:
    """What went wrong in a TLS handshake, without OpenSSL's file and line."""
    reason = getattr(error, "reason", None)
    if reason in {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST"}:
        return "it does not speak TLS"
    return str(getattr(error, "verify_message", "") or reason or error or "it broke off")


def _bind(address: Address) -> socket.socket:
    if address.scheme == "unix":
        path = Path(address.host)
        _clear(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(str(path))
            os.chmod(path, 0o600)
        except OSError:
            sock.close()
            raise
    else:
        family, kind, _, _, where = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(where)
        except OSError:
            sock.close()
            raise
    sock.listen(BACKLOG)
    sock.setblocking(False)
    return sock


def _unbind(sock: socket.socket, address: Address) -> None:
    sock.close()
    if address.scheme == "unix":
        Path(address.host).unlink(missing_ok=True)


def _clear(path: Path) -> None:
    """Removes the socket of a process that is gone; one that is served stays, and binding to it fails."""
    if not path.exists() or not stat.S_ISSOCK(path.stat().st_mode):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
