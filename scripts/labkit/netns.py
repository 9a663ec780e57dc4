"""Network namespaces: make, remove, act inside, and turn offloads off."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from .run import LabError, run

T = TypeVar("T")

NETNS_DIR = Path("/run/netns")
_CLONE_NEWNET = 0x40000000
_SIOCETHTOOL = 0x8946
# ETHTOOL_SRXCSUM, STXCSUM, SSG, STSO, SGSO, SGRO of linux/ethtool.h
_OFFLOADS = (0x15, 0x17, 0x19, 0x1F, 0x24, 0x2C)
_libc = ctypes.CDLL(None, use_errno=True)


def path(name: str) -> Path:
    """Where ip-netns(8) keeps the namespace."""
    return NETNS_DIR / name


def exists(name: str) -> bool:
    return path(name).exists()


def ip_batch(lines: Iterable[str], netns: str | None = None) -> None:
    """Hand many ip(8) commands to one process. Stops at the first that fails and raises LabError with its text."""
    if text := "\n".join(lines):
        where = ["-n", netns] if netns else []
        run(["ip", *where, "-batch", "-"], input=text + "\n", timeout=120.0)


def ip_batch_forced(lines: Iterable[str], netns: str | None = None) -> None:
    """The same for taking away: a command that fails (because the thing is gone) does not stop the others."""
    if text := "\n".join(lines):
        where = ["-n", netns] if netns else []
        run(["ip", "-force", *where, "-batch", "-"], input=text + "\n", check=False, timeout=120.0)


def argv_in(netns: str, argv: Sequence[str]) -> list[str]:
    """The command line that runs argv in the namespace."""
    return ["nsenter", f"--net={path(netns)}", "--", *argv]


def call_in(netns: str, function: Callable[[], T]) -> T:
    """Run a function in the namespace and return its value; a socket that it opens stays there.

    setns(2) acts on one thread, so a thread is made for it and ended after it: the caller's namespace never changes.
    """
    outcome: list[T] = []
    failure: list[BaseException] = []

    def work() -> None:
        try:
            fd = os.open(path(netns), os.O_RDONLY | os.O_CLOEXEC)
            try:
                if _libc.setns(fd, _CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns", netns)
            finally:
                os.close(fd)
            outcome.append(function())
        except BaseException as error:  # handed to the caller below
            failure.append(error)

    thread = threading.Thread(target=work, name=f"in {netns}")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


def offloads_off(netns: str | None, interfaces: Iterable[str] | None = None) -> None:
    """Turn checksum and segmentation offload off (all interfaces of the namespace but lo, unless some are named).

    The userspace datapath sends what it reads: a checksum that a veth left to "hardware" would never be filled in, and
    TCP dies while ping works.
    """

    def work() -> None:
        names = [name for _, name in socket.if_nameindex() if name != "lo"] if interfaces is None else interfaces
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            for name in names:
                for command in _OFFLOADS:
                    value = ctypes.create_string_buffer(struct.pack("=II", command, 0))
                    request = struct.pack("16sP", name.encode(), ctypes.addressof(value))
                    try:
                        fcntl.ioctl(control, _SIOCETHTOOL, request)
                    except OSError as error:
                        if error.errno != 95:  # EOPNOTSUPP: the device never had this offload
                            raise LabError(f"ethtool -K {name}: {error.strerror}") from error

    if netns is None:
        work()
    else:
        call_in(netns, work)
