"""The private ovsdb-server: started, watched, restarted, taken over from a controller that was killed, and ended.

It runs in a session of its own, so that neither a Ctrl-C on the controller's terminal nor the controller's death takes
the database away; the next controller finds it by its pidfile and goes on with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

from controller.errors import StoreError
from controller.idl import connect_unix
from controller.store import schema

log = logging.getLogger(__name__)

_READY = 15.0  # seconds that a start may take; a large database is read first
_STOP = 10.0
_TOOL = 60.0
_PAUSES = (0.05, 5.0)  # before restarts that do not last, the first and the longest
_LASTS = 10.0  # seconds after which a server is one that lasts: the next is started at once


class PrivateServer:
    """``await start()``, then ``remote`` is the address for Store. ``state_dir`` is made, and is its owner's alone."""

    def __init__(self, state_dir: Path | str) -> None:
        # Its socket is found by its absolute path, also when the controller was started elsewhere.
        self._folder = Path(state_dir).absolute()
        self._database = self._folder / "fleetswitch.db"
        self._socket = self._folder / "db.sock"
        self._pidfile = self._folder / "ovsdb-server.pid"
        self._control = self._folder / "ovsdb-server.ctl"
        self._log = self._folder / "ovsdb-server.log"
        self._lock = -1
        self._pid = 0
        self._child: subprocess.Popen[bytes] | None = None
        self._watcher: asyncio.Task[None] | None = None

    @property
    def remote(self) -> str:
        """The address of the database."""
        return f"unix:{self._socket}"

    @property
    def pid(self) -> int:
        """The process that serves it, 0 when there is none at the moment."""
        return self._pid

    async def start(self) -> None:
        """Brings the database up: a server that still runs is taken over, a schema of another version converted. Raises
        StoreError; then nothing was changed that could not be read before."""
        for program in ("ovsdb-server", "ovsdb-tool"):
            if shutil.which(program) is None:
                raise self._error(f"{program} is not installed", "install Open vSwitch, on Debian openvswitch-switch")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder.chmod(0o700)
        except OSError as error:
            raise self._error(f"cannot be made: {error.strerror}", "give --state-dir a folder of your own") from error
        self._claim()
        try:
            await self._bring_up()
        except BaseException:
            self._unclaim()
            raise
        self._watcher = asyncio.create_task(self._watch())

    async def _bring_up(self) -> None:
        running = self._find_running()
        if running and (await self._needs_conversion() or not await self._answers()):
            await _end(running)
            running = 0
        if running:
            log.info("store: goes on with the ovsdb-server that runs as process %d", running)
            self._pid = running
        else:
            await self._prepare()
            await self._spawn()

    async def stop(self) -> None:
        """Ends the server; the database is on disk."""
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher
            self._watcher = None
        if self._pid:
            await _end(self._pid)
        self._reap()
        self._pid = 0
        self._unclaim()

    def _claim(self) -> None:
        """Two controllers in one folder would each end the other's server."""
        self._lock = os.open(self._folder / "controller.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._unclaim()
            raise self._error(
                "another controller runs with this folder", "end it, or give this one a --state-dir of its own"
            ) from None

    def _unclaim(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    # The database file.

    async def _prepare(self) -> None:
        if not self._database.exists():
            fresh = self._database.with_suffix(".new")
            fresh.unlink(missing_ok=True)
            await self._tool("create", str(fresh), str(schema.schema_path()))
            fresh.rename(self._database)
            fresh.with_name(f".{fresh.name}.~lock~").unlink(missing_ok=True)
        elif await self._needs_conversion():
            await self._convert()

    async def _needs_conversion(self) -> bool:
        return (await self._tool("needs-conversion", str(self._database), str(schema.schema_path()))) == "yes"

    async def _convert(self) -> None:
        theirs = await self._tool("db-version", str(self._database))
        ours = schema.load_schema()["version"]
        if _version(theirs) > _version(ours):
            raise self._error(
                f"the database has the schema {theirs}, which is newer than {ours}, the one of this program",
                "run the newer program, or put back the backup that it made beside the database",
            )
        backup = self._database.with_suffix(f".{theirs}.backup")
        log.info("store: converts the database from schema %s to %s; the old one stays in %s", theirs, ours, backup)
        await asyncio.to_thread(shutil.copy2, self._database, backup)
        await self._tool("convert", str(self._database), str(schema.schema_path()))

    async def _tool(self, *arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            "ovsdb-tool", *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, umask=0o077
        )
        try:
            async with asyncio.timeout(_TOOL):
                out, err = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise self._error(f"ovsdb-tool {arguments[0]} did not end in {_TOOL:.0f} seconds") from None
        if process.returncode:
            said = err.decode(errors="replace").strip().rpartition("ovsdb-tool: ")[2]
            raise self._error(f"ovsdb-tool {arguments[0]}: {said}", "put back a backup of the database")
        return out.decode(errors="replace").strip()

    # The process.

    def _find_running(self) -> int:
        """The process of the pidfile if it is an ovsdb-server on our database, else 0."""
        try:
            pid = int(self._pidfile.read_text())
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return 0
        ours = os.fsencode(self._database)
        return pid if os.path.basename(arguments[0]) == b"ovsdb-server" and ours in arguments else 0

    async def _spawn(self) -> None:
        self._pidfile.unlink(missing_ok=True)
        self._socket.unlink(missing_ok=True)
        self._child = subprocess.Popen(  # noqa: ASYNC220  fork and exec alone: nothing to wait for
            [
                "ovsdb-server",
                str(self._database),
                f"--remote=punix:{self._socket}",
                f"--unixctl={self._control}",
                f"--pidfile={self._pidfile}",
                f"--log-file={self._log}",
                "--no-chdir",
                "-vconsole:off",
                "-vsyslog:off",
                "-vfile:info",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            umask=0o077,
        )
        self._pid = self._child.pid
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _READY
        while not await self._answers():
            if self._child.poll() is not None:
                self._pid = 0
                raise self._error(f"ovsdb-server ended at once: {self._last_words()}")
            if loop.time() > deadline:
                await _end(self._pid)
                self._reap()
                self._pid = 0
                raise self._error(f"ovsdb-server does not answer after {_READY:.0f} seconds", f"read {self._log}")
            await asyncio.sleep(0.02)

    async def _answers(self) -> bool:
        """Whether a server on our socket serves our database."""
        try:
            async with asyncio.timeout(2.0):
                sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
                try:
                    connect_unix(sock, str(self._socket))
                except OSError:
                    sock.close()
                    return False
                reader, writer = await asyncio.open_unix_connection(sock=sock)
                try:
                    writer.write(b'{"id":0,"method":"list_dbs","params":[]}')
                    reply: Any = json.loads(await reader.readuntil(b"}"))
                finally:
                    writer.close()
        except (OSError, TimeoutError, EOFError, ValueError):
            return False
        return isinstance(reply, dict) and schema.DATABASE in (reply.get("result") or ())

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        pause = 0.0
        while True:
            since = loop.time()
            await _gone(self._pid)
            self._reap()
            log.warning("store: ovsdb-server, process %d, ended: starts it again", self._pid)
            self._pid = 0
            pause = 0.0 if loop.time() - since > _LASTS else _longer(pause)
            while not self._pid:
                await asyncio.sleep(pause)
                try:
                    await self._spawn()
                except (StoreError, OSError) as error:
                    log.error("%s", error)
                    pause = _longer(pause)

    def _reap(self) -> None:
        if self._child is not None:
            self._child.wait()
            self._child = None

    def _last_words(self) -> str:
        try:
            lines = self._log.read_text(errors="replace").splitlines()
        except OSError:
            lines = []
        return lines[-1].rpartition("|")[2] if lines else f"{self._log} says nothing"

    def _error(self, what: str, remedy: str = "") -> StoreError:
        return StoreError(what, where=f"store ({self._folder})", remedy=remedy)


def _longer(pause: float) -> float:
    return min(max(pause * 2, _PAUSES[0]), _PAUSES[1])


async def _gone(pid: int) -> None:
    """Returns when the process has ended, whoever started it. A pidfd becomes readable then (pidfd_open(2))."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


async def _end(pid: int) -> None:
    """Ends a process: SIGTERM, and SIGKILL for one that does not listen. A stopped one is woken first."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(pid, number)
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP):
                await _gone(pid)
                return


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdecimal())
