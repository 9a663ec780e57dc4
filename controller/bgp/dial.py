"""The TCP connection to a router."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import struct

from controller.errors import BgpError
from controller.model.bgp import BgpPeerSpec

_TCP_MD5SIG = 14  # linux/tcp.h
_MOST_KEY = 80  # bytes, TCP_MD5SIG_MAXKEYLEN
_TTL = 255  # a router with RFC 5082 takes nothing else, and one over several hops is reached as well

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def dial(spec: BgpPeerSpec) -> Connection:
    """Raises OSError, BgpError for a password that cannot be read."""
    key = None if spec.password_file is None else await asyncio.to_thread(_read_password, spec.password_file)
    channel = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        channel.setblocking(False)
        channel.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, _TTL)
        channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if key is not None:
            channel.setsockopt(socket.IPPROTO_TCP, _TCP_MD5SIG, _signature(spec.address, key))
        await asyncio.get_running_loop().sock_connect(channel, (spec.address, spec.port))
        return await asyncio.open_connection(sock=channel)
    except BaseException:
        channel.close()
        raise


def _signature(address: str, key: bytes) -> bytes:
    """struct tcp_md5sig (linux/tcp.h), RFC 2385."""
    whom = struct.pack("=HH4s120x", socket.AF_INET, 0, socket.inet_aton(address))
    return whom + struct.pack("=BBHI80s", 0, 0, len(key), 0, key)


def _read_password(path: str) -> bytes:
    """Never waits, whatever the path names. The password is in no message."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise BgpError(
            f"password_file {path}: {error.strerror}", remedy="see that the controller may read it"
        ) from None
    try:
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        key = os.read(descriptor, _MOST_KEY + 3).rstrip(b"\r\n") if is_file else b""
    finally:
        os.close(descriptor)
    if not 1 <= len(key) <= _MOST_KEY:
        raise BgpError(
            f"password_file {path}: is no file with 1 to {_MOST_KEY} bytes", remedy="write the password into it"
        )
    return key
