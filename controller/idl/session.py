"""One JSON-RPC session with one OVSDB database: connect, TLS, probe, back off, connect again; never blocks.

It stands where python-ovs's ``ovs.jsonrpc.Session`` stands, and answers the calls that ``ovs.db.idl.Idl`` makes on it.
python-ovs's own waits in ``select()`` (no descriptor above 1023), spins while a TLS peer is silent, does not resolve
names without a further library, bounds neither input nor output, and turns every reason into an errno.
"""

from __future__ import annotations

import errno
import json
import random
import select
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from ovs.jsonrpc import Message

from controller.idl.dial import Dial, Resolve, TlsFiles, reason_of
from controller.idl.framing import Framer, FramingError
from controller.model.remotes import Address

_READ = 1 << 18
_READ_A_TURN = 1 << 22
UNUSABLE = "cannot be used"
_LONGEST = 500
_STABLE = 10.0  # seconds that a connection must have lasted before its loss is answered without waiting


@dataclass(frozen=True, slots=True)
class Limits:
    """What one peer may cost: seconds and bytes."""

    connect: float = 5.0  # name, TCP and TLS
    silence: float = 10.0  # before the contents of the database are there
    handshake: float = 60.0  # the same, for a peer that keeps on sending
    probe: float = 5.0  # silence that is answered by an echo request, and then by a disconnect; 0: no probes
    backoff: tuple[float, float] = (1.0, 8.0)
    message: int = 64 << 20
    contents: int = 1 << 30  # of the whole database
    unsent: int = 64 << 20


class Phase(Enum):
    """Where a session stands; the value completes "while ..."."""

    WAITING = "waiting for the next attempt"
    OPENING = "opening a connection"
    GREETING = "asking for the schema"
    READY = "connected"
    CLOSED = "closed"


def brief(text: str) -> str:
    """What a peer said, fit for a message: printable, and so short that it can be shown."""
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


class Session:
    """Drive it by ``advance()`` when its socket is ready or ``wake`` has passed. All in one thread."""

    def __init__(
        self,
        remotes: Sequence[Address],
        database: str,
        limits: Limits,
        tls: TlsFiles | None,
        resolve: Resolve,
        on_schema: Callable[[Any], None],
    ) -> None:
        self.limits = limits
        self.phase = Phase.WAITING
        self.remote = remotes[0]
        self.reason = "no attempt was made yet"
        self.socket: socket.socket | None = None
        self.drained = True  # False: recv() has more to give without the socket becoming ready again
        self.ready_since = 0.0
        self.last_received = 0.0
        self.received = 0  # bytes, since ever
        self._remotes = random.sample(list(remotes), len(remotes))
        self._database = database
        self._tls = tls
        self._resolve = resolve
        self._on_schema = on_schema
        self._seqno = 0
        self._next_remote = 0
        self._backoff = 0.0
        self._free_tries = len(remotes)
        self._deadline = 0.0
        self._dial: Dial | None = None
        self._framer = Framer(limits.message)
        self._output = bytearray()
        self._probed = False
        self._budget = 0
        self.refused: Callable[[Message], str] = lambda message: ""
        self.reached = False  # whether the contents of the database arrived on this connection

    # What Idl calls.

    def run(self) -> None:
        """Writes what is unsent."""
        self._flush()

    def is_connected(self) -> bool:
        """Whether the Idl may speak. The greeting is over by then."""
        return self.phase is Phase.READY

    def get_seqno(self) -> int:
        """Changes whenever a connection begins or ends."""
        return self._seqno

    def get_name(self) -> str:
        """The address of the server."""
        return str(self.remote)

    def get_num_of_remotes(self) -> int:
        """How many servers there are to choose from."""
        return len(self._remotes)

    def send(self, message: Message) -> int:
        """Queues a message; returns 0 or an errno."""
        if self.phase not in (Phase.READY, Phase.GREETING):
            return errno.ENOTCONN
        data = json.dumps(message.to_json(), separators=(",", ":")).encode()
        if len(self._output) + len(data) > self.limits.unsent:
            self.drop(f"does not read: {len(self._output)} bytes wait for it")
            return errno.ENOBUFS
        self._output += data
        self._flush()
        return 0

    def recv(self) -> Message | None:
        """The next message that is not an echo, None when there is none yet or the connection was lost."""
        while (message := self._next_message()) is not None:
            if message.type == Message.T_REQUEST and message.method == "echo":
                self.send(Message.create_reply(message.params, message.id))
            elif reason := self.refused(message):
                self.drop(f"refuses to be watched: {reason}")
            elif message.id != "echo":
                return message
        return None

    def force_reconnect(self) -> None:
        """Drops the connection: the Idl cannot use this server."""
        self.drop(UNUSABLE)

    def reset_backoff(self) -> None:
        """The next attempts need not wait: one for each server."""
        self._free_tries = len(self._remotes) + 1

    # What the thread calls.

    @property
    def wake(self) -> float | None:
        """When advance() is due even if the socket is silent (``time.monotonic``)."""
        if self.phase is Phase.CLOSED or (self.phase is Phase.READY and not self.limits.probe):
            return None
        return self._deadline

    @property
    def interest(self) -> int:
        """The epoll events that advance() waits for."""
        if self._dial is not None:
            return self._dial.interest
        return select.EPOLLIN | (select.EPOLLOUT if self._output else 0)

    @property
    def doing(self) -> str:
        """Where the session stands; completes "while ..."."""
        return self._dial.stage if self._dial is not None else self.phase.value

    def advance(self) -> None:
        """Does what can be done without waiting. Errors become ``drop``."""
        now = time.monotonic()
        self._budget = _READ_A_TURN
        try:
            if self.phase is Phase.WAITING and now >= self._deadline:
                self._begin(now)
            if self._dial is not None:
                self._continue_opening(self._dial)
            if self.phase is Phase.GREETING:
                self._continue_greeting()
        except OSError as error:
            self.drop(reason_of(error))
        if self.phase is Phase.READY:
            self._probe(now)
        elif self.phase not in (Phase.WAITING, Phase.CLOSED) and now >= self._deadline:
            self.drop(f"no answer while {self.doing}")

    def drop(self, reason: str) -> None:
        """Ends the connection, or the attempt, and sets the time of the next one."""
        if self.phase in (Phase.WAITING, Phase.CLOSED):
            return
        now = time.monotonic()
        lasted = now - self.ready_since if self.reached else 0.0
        self._disconnect()
        self.reason = brief(reason)
        low, high = self.limits.backoff
        if lasted >= _STABLE:
            self._free_tries, self._backoff = len(self._remotes), 0.0
        if self._free_tries > 1:
            self._free_tries -= 1
            pause = 0.0
        else:
            self._backoff = min(high, max(low, self._backoff * 2))
            # 400 hosts that were lost at once must not come back at once.
            pause = self._backoff * random.uniform(0.8, 1.0)  # noqa: S311
        self._next_remote = (self._next_remote + 1) % len(self._remotes)
        self.phase = Phase.WAITING
        self._deadline = now + pause

    def close(self) -> None:
        """For good."""
        self._disconnect()
        self.phase = Phase.CLOSED

    def set_probe(self, seconds: float) -> None:
        """Changes ``limits.probe``."""
        self.limits = replace(self.limits, probe=seconds)
        if self.phase is Phase.READY:
            self._probed = False
            self._deadline = time.monotonic() + seconds

    def retry_now(self) -> None:
        """Makes a waiting session try at once."""
        self._backoff = 0.0
        if self.phase is Phase.WAITING:
            self._deadline = 0.0

    def settled(self) -> None:
        """The contents of the database have arrived: whoever fails after this has earned a quick new attempt."""
        self.reached = True
        self._backoff = 0.0
        self.reason = ""

    # One connection.

    def _disconnect(self) -> None:
        if self._dial is not None:
            self._dial.close()
            self._dial = None
        if self.socket is not None:
            self.socket.close()
            self.socket = None
        self._output.clear()
        self._framer = Framer(self.limits.message)
        self._probed = self.reached = False
        self.drained = True
        self._seqno += 1

    def _begin(self, now: float) -> None:
        self.remote = self._remotes[self._next_remote]
        self.reason = ""
        self._deadline = now + self.limits.connect
        self.phase = Phase.OPENING
        self._dial = Dial(self.remote, self._tls, self._resolve)

    def _continue_opening(self, dial: Dial) -> None:
        try:
            opened = dial.advance()
        finally:
            self.socket = dial.socket
        if opened:
            self._dial = None
            self._greet()

    def _greet(self) -> None:
        self.phase = Phase.GREETING
        self._deadline = time.monotonic() + self.limits.silence
        request = Message.create_request("get_schema", [self._database])
        request.id = "schema"
        self.send(request)

    def _continue_greeting(self) -> None:
        self._flush()
        while self.phase is Phase.GREETING and (message := self.recv()) is not None:
            if message.id != "schema":
                continue
            if message.type != Message.T_REPLY:
                self.drop(f"has no database {self._database}: {message.error}")
                return
            try:
                self._on_schema(message.result)
            except Exception as error:
                self.drop(f"sent a schema that cannot be used: {error}")
                return
            self.phase = Phase.READY
            self.ready_since = self.last_received = time.monotonic()
            self._deadline = self.ready_since + (self.limits.probe or self.limits.handshake)
            self._seqno += 1

    def _probe(self, now: float) -> None:
        if not self.limits.probe:
            return
        if now - self.last_received < self.limits.probe:
            self._deadline = self.last_received + self.limits.probe
        elif not self._probed:
            self._probed = True
            self._deadline = now + self.limits.probe
            request = Message.create_request("echo", [])
            request.id = "echo"
            self.send(request)
        elif now >= self._deadline:
            # A message may have come while this thread was busy: look before judging.
            if not self.drained or self._read():
                self.drained = False
                return
            self.drop(f"did not answer for {now - self.last_received:.0f} seconds")

    def _flush(self) -> None:
        while self._output and self.socket is not None and self.phase in (Phase.READY, Phase.GREETING):
            try:
                with memoryview(self._output) as view:
                    sent = self.socket.send(view[: 1 << 20])
                del self._output[:sent]
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                return
            except OSError as error:
                self.drop(reason_of(error))

    def _next_message(self) -> Message | None:
        while self.phase in (Phase.READY, Phase.GREETING):
            self.drained = False
            try:
                body = self._framer.next()
            except FramingError as error:
                self.drop(str(error))
                return None
            if body is not None:
                message = Message.from_json(body)
                if isinstance(message, Message):
                    return message
                self.drop(f"sent a bad JSON-RPC message: {message}")
                return None
            if self._budget <= 0 or not self._read():
                return None
        return None

    def _read(self) -> bytes:
        """Moves what has arrived into the framer, and returns it; empty when nothing has, or the connection is lost."""
        if self.socket is None:
            return b""
        try:
            data = self.socket.recv(_READ)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            self.drained = True
            return b""
        except OSError as error:
            self.drop(reason_of(error))
            return b""
        if not data:
            self.drop("closed the connection")
            return b""
        self.last_received = time.monotonic()
        self.received += len(data)
        self._probed = False  # whatever it says, it is there
        self._budget -= len(data)
        self._framer.feed(data)
        return data
