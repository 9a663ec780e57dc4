"""Opening a connection to one OVSDB server step by step: name, TCP or unix socket, TLS; never blocks."""

from __future__ import annotations

import errno
import os
import random
import select
import socket
import ssl
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from controller.certificates import anothers, carry, certificate_names
from controller.model.remotes import Address

Resolve = Callable[[Address], "Future[list[tuple[Any, ...]]]"]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files for an ``ssl:`` peer, whose certificate must be signed by ``ca`` and carry the name of the Host
    ``peer``; without one its name is not compared, as in ovsdb(7). They are read at every connection, so a renewed
    certificate needs no restart."""

    private_key: str
    certificate: str
    ca: str
    peer: str | None = None


class Dial:
    """One attempt. Call ``advance()`` when ``socket`` is ready for ``interest``, until it gives True."""

    def __init__(self, address: Address, tls: TlsFiles | None, resolve: Resolve) -> None:
        """Begins. Raises OSError."""
        self.socket: socket.socket | None = None
        self.interest = select.EPOLLOUT
        self.stage = "connecting"  # completes "no answer while ..."
        self._address, self._tls = address, tls
        self._resolving: Future[list[tuple[Any, ...]]] | None = None
        if address.method == "unix":
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        else:
            self.stage = "asking for the address"
            self._resolving = resolve(address)

    def advance(self) -> bool:
        """Does what can be done without waiting; True: connected. Raises OSError, of which ssl.SSLError is one."""
        if self._resolving is not None:
            if not self._resolving.done():
                return False
            self._connect(self._resolving.result())
            self._resolving = None
        elif self.socket is not None and self._address.method == "unix":
            connect_unix(self.socket, self._address.path)
            return True
        if isinstance(self.socket, ssl.SSLSocket):
            return self._shake_hands(self.socket)
        if self.socket is None or not _is_connected(self.socket):
            return False
        if self._address.method != "ssl":
            return True
        self.stage = "in the TLS handshake"
        self.socket = self._wrap(self.socket)
        return self._shake_hands(self.socket)

    def close(self) -> None:
        """Gives the attempt up."""
        if self.socket is not None:
            self.socket.close()
        if self._resolving is not None:
            self._resolving.cancel()

    def _connect(self, found: list[tuple[Any, ...]]) -> None:
        family, _, _, _, address = random.choice(found)  # noqa: S311
        self.stage = "connecting"
        self.socket = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = self.socket.connect_ex(address)
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, os.strerror(code))

    def _wrap(self, plain: socket.socket) -> ssl.SSLSocket:
        if self._tls is None:
            raise OSError(errno.EINVAL, "no key, certificate and CA certificate were configured for TLS")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False  # a Host's address is no name; its own name is compared below
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_verify_locations(self._tls.ca)
            context.load_cert_chain(self._tls.certificate, self._tls.private_key)
        except OSError as error:
            raise OSError(error.errno, f"the key, certificate or CA certificate cannot be read: {error}") from error
        return context.wrap_socket(plain, do_handshake_on_connect=False)

    def _shake_hands(self, secure: ssl.SSLSocket) -> bool:
        try:
            secure.do_handshake()
        except ssl.SSLWantReadError:
            self.interest = select.EPOLLIN
            return False
        except ssl.SSLWantWriteError:
            self.interest = select.EPOLLOUT
            return False
        peer = self._tls.peer if self._tls is not None else None
        if peer is not None and (reason := anothers(certificate_names(secure.getpeercert()), peer)) is not None:
            raise OSError(errno.EACCES, f"TLS: {reason}; {carry(peer)}")
        return True


def connect_unix(sock: socket.socket, path: str) -> None:
    """Connects, at once or with OSError. A path longer than sun_path (108 bytes, unix(7)) is reached through a
    descriptor of its folder."""
    if len(os.fsencode(path)) < 108:
        sock.connect(path)
        return
    folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY)
    try:
        sock.connect(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
    finally:
        os.close(folder)


def reason_of(error: OSError) -> str:
    """Why a connection failed, in words."""
    if isinstance(error, ssl.SSLError):
        return f"TLS: {getattr(error, 'verify_message', '') or error.reason or error}"
    return error.strerror or str(error)


def _is_connected(sock: socket.socket) -> bool:
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))
    try:
        sock.getpeername()
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            return False
        raise
    return True
