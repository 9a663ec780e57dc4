"""Commands inside a real guest, over its serial line.

The guest's init answers lines that start with "@" (guest-init.sh). An answer carries the request's random id on every
line and a checksum over all, so kernel messages, a person's typing or a lost byte are noticed, and the answer is asked
for again.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import os
import secrets
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from .run import LabError

# The guest's terminal holds 4,095 bytes of a line that nobody has read yet.
_LONGEST = 3900


class Console:
    """The serial line of one guest; `path` is QEMU's unix socket, which takes one client at a time."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.path = path

    def run(self, command: str, timeout: float, boot: float = 90.0) -> tuple[int, bytes]:
        """Run a shell command: (exit code, what it wrote to both outputs). Waits up to `boot` s for a guest that boots.

        After `timeout` s the guest ends the command itself, with exit code 143.
        """
        coded = base64.b64encode(command.encode()).decode()
        if len(coded) > _LONGEST:
            raise LabError(f"{self.name}: a command of {len(command)} bytes is too long for the serial line")
        with self._line() as line:
            line.greet(boot)
            ident = secrets.token_hex(6)
            line.send(f"@run {ident} {max(1, round(timeout))} {coded}")
            for _ in range(5):
                if (answer := line.answer(ident, timeout + 15)) is not None:
                    return answer
                line.send(f"@again {ident}")
        raise LabError(f"{self.name}: five damaged answers on the console")

    def wait(self, timeout: float) -> None:
        """Return when the guest's init listens."""
        with self._line() as line:
            line.greet(timeout)

    @contextlib.contextmanager
    def _line(self) -> Iterator[_Line]:
        """Connect, alone among all users of this library."""
        lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with socket.socket(socket.AF_UNIX) as sock:
                try:
                    sock.connect(str(self.path))
                except OSError as error:
                    raise LabError(f"{self.name} does not run: no console ({error.strerror})") from error
                yield _Line(self.name, sock)
        finally:
            os.close(lock)


class _Line:
    """One connection to the serial line."""

    def __init__(self, name: str, sock: socket.socket) -> None:
        self._name = name
        self._sock = sock
        self._rest = b""

    def send(self, text: str) -> None:
        self._sock.settimeout(10.0)
        try:
            self._sock.sendall(text.encode() + b"\n")
        except OSError as error:
            raise LabError(f"{self._name}: the console is gone ({error})") from error

    def greet(self, timeout: float) -> None:
        """Ask until the guest answers: what is sent before its init reads is lost."""
        deadline = time.monotonic() + timeout
        ident = secrets.token_hex(6)
        while time.monotonic() < deadline:
            # a guest that boots on a slow machine reads nothing for long: what waits for it need not become more
            if select.select([], [self._sock], [], 0.0)[1]:
                self.send(f"@ping {ident}")
            with contextlib.suppress(TimeoutError):
                while self._next(0.2) != f"@{ident} pong":
                    pass
                return
        raise LabError(f"{self._name}: no answer on the console in {timeout:.0f} s")

    def answer(self, ident: str, timeout: float) -> tuple[int, bytes] | None:
        """The answer to a request, None if it was damaged."""
        deadline = time.monotonic() + timeout
        code: int | None = None
        digest = ""
        body: list[str] = []
        while True:
            try:
                line = self._next(max(0.01, deadline - time.monotonic()))
            except TimeoutError:
                raise LabError(f"{self._name}: no answer in {timeout:.0f} s on the console") from None
            words = line.split(" ")
            if words[:2] == [f"@{ident}", "begin"] and len(words) == 4 and words[2].isdecimal():
                code, digest, body = int(words[2]), words[3], []
            elif words[:2] == [f"@{ident}", "+"]:
                body.append("".join(words[2:]))
            elif words == [f"@{ident}", "end"]:
                break
        with contextlib.suppress(ValueError):
            data = base64.b64decode("".join(body))
            if code is not None and hashlib.md5(data, usedforsecurity=False).hexdigest() == digest:
                return code, data
        return None

    def _next(self, timeout: float) -> str:
        """The next line. Raises TimeoutError, or LabError at the end of the stream."""
        deadline = time.monotonic() + timeout
        while b"\n" not in self._rest:
            self._sock.settimeout(max(0.001, deadline - time.monotonic()))
            data = self._sock.recv(65536)
            if not data:
                raise LabError(f"{self._name}: the console was closed; the guest ended or moved")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode("ascii", "replace").strip("\r")
