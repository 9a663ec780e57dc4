"""The sockets that the API listens on: a unix socket that only its owner may open, and loopback TCP."""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import os
import socket
import stat
from pathlib import Path

from controller.errors import InvalidInput, Problem

_LONGEST = 107  # bytes of a path in sockaddr_un, unix(7)
_BACKLOG = 128


class UnixListener:
    """A listening unix socket of mode 0600, and the lock that says that its path is ours.

    Raises InvalidInput when another program has the path, or when it cannot be made. What a process that died left
    there is replaced.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if len(os.fsencode(path)) > _LONGEST:
            raise _problem(path, f"is longer than {_LONGEST} bytes, which unix(7) allows", "choose a shorter path")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # The lock decides between two that start at once; it stays locked as long as the process lives.
            self._lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise _problem(path, f"cannot be made: {error.strerror}", "choose a path with --api-socket") from None
        try:
            self.socket = self._listen()
        except BaseException:
            os.close(self._lock)
            raise

    def _listen(self) -> socket.socket:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise _taken(self.path) from None
        self._clear()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(str(self.path))
            os.chmod(self.path, 0o600)  # nobody can connect before listen()
            listener.listen(_BACKLOG)
        except OSError as error:
            listener.close()
            raise _problem(self.path, f"cannot be made: {error.strerror}", "choose a path with --api-socket") from None
        return listener

    def _clear(self) -> None:
        """Remove a socket that nobody listens on."""
        try:
            mode = os.lstat(self.path).st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise _problem(self.path, "is there and is no socket", "remove it, or choose a path with --api-socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1)
            code = probe.connect_ex(str(self.path))
        if code not in {errno.ECONNREFUSED, errno.ENOENT}:
            raise _taken(self.path)
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Remove the socket and let others have its path."""
        self.socket.close()
        self.path.unlink(missing_ok=True)
        os.close(self._lock)


def listen_tcp(address: tuple[str, int]) -> socket.socket:
    """A listening TCP socket; port 0 lets the system choose. Raises InvalidInput, also if it is no loopback address."""
    host, port = address
    where = f"{host}:{port}"
    try:
        parsed = ipaddress.ip_address(host)
    except ValueError:
        raise InvalidInput([Problem(where, "is no IP address", "use 127.0.0.1 or ::1")]) from None
    if not parsed.is_loopback:
        raise InvalidInput([Problem(where, "can be reached from other machines, and the API has no TLS and no tokens "
                                    "yet", "use 127.0.0.1 and a tunnel: ssh -L 8640:127.0.0.1:8640 HOST")])  # fmt: skip
    try:
        return socket.create_server(address, family=socket.AF_INET6 if parsed.version == 6 else socket.AF_INET,
                                    backlog=_BACKLOG)  # fmt: skip
    except OSError as error:
        raise InvalidInput([Problem(where, f"cannot be listened on: {os.strerror(error.errno or 0)}",
                                    "choose another with --api-tcp, or none")]) from None  # fmt: skip


def _taken(path: Path) -> InvalidInput:
    return _problem(path, "is another controller's, which runs", "stop it, or choose another with --api-socket")


def _problem(path: Path, what: str, remedy: str) -> InvalidInput:
    return InvalidInput([Problem(str(path), what, remedy)])
