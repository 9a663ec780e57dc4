"""One thread that drives many OVSDB clients, and wakes only those that have something to do."""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from controller.idl.client import Database, OvsdbClient
from controller.idl.dial import TlsFiles
from controller.idl.news import Listener
from controller.idl.session import Limits, Phase, Session
from controller.model.remotes import Address, parse_remotes

log = logging.getLogger(__name__)

_RESOLVERS = 4  # name servers answer slowly: more than one name is asked for at once


class IdlThread:
    """``start()`` it, ``connect()`` databases from the asyncio loop, ``stop()`` it. The cost of a wakeup does not grow
    with the number of clients: epoll names those whose socket is ready, a heap those whose time has come."""

    def __init__(self, name: str) -> None:
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._epoll = select.epoll()
        self._alarm = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._alarm, select.EPOLLIN)
        self._posted: deque[tuple[OvsdbClient | None, Callable[[], None]]] = deque()
        self._resolver = ThreadPoolExecutor(_RESOLVERS, thread_name_prefix=f"{name}-resolver")
        self._known: dict[Address, list[tuple[Any, ...]]] = {}
        self._running = True
        self._guard = threading.Lock()
        # Owned by the thread.
        self._clients: set[OvsdbClient] = set()
        self._by_fd: dict[int, OvsdbClient] = {}
        self._watched: dict[OvsdbClient, tuple[socket.socket, int, int]] = {}
        self._due: dict[OvsdbClient, float] = {}
        self._timers: list[tuple[float, int, OvsdbClient]] = []
        self._order = itertools.count()

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Closes every connection and ends the thread. Blocks for as long as one step of one client takes."""
        self._post(None, self._finish)
        if self._thread.is_alive():
            self._thread.join()
        with self._guard:
            if self._alarm >= 0:
                os.close(self._alarm)
                self._epoll.close()
                self._alarm = -1
        self._resolver.shutdown(wait=False, cancel_futures=True)

    def connect(
        self,
        remotes: str,
        database: Database,
        listener: Listener,
        *,
        limits: Limits | None = None,
        tls: TlsFiles | None = None,
    ) -> OvsdbClient:
        """Keeps a copy of ``database`` from one of ``remotes`` (``tcp:a:6641,tcp:b:6641``) from now on, and connects
        again for ever. To be called on the asyncio loop that ``listener`` is to be told on. Raises InvalidInput."""
        addresses = parse_remotes(remotes)
        files = replace(tls, peer=database.peer) if tls is not None else None

        def session(on_schema: Callable[[Any], None]) -> Session:
            return Session(addresses, database.name, limits or Limits(), files, resolve, on_schema)

        def resolve(address: Address) -> Future[list[tuple[Any, ...]]]:
            return self._resolve(address, client)

        client = OvsdbClient(database, listener, session, self._post)
        self._post(client, lambda: None)
        return client

    def _post(self, client: OvsdbClient | None, call: Callable[[], None]) -> None:
        self._posted.append((client, call))
        with self._guard:
            if self._alarm >= 0:
                os.eventfd_write(self._alarm, 1)

    def _resolve(self, address: Address, client: OvsdbClient) -> Future[list[tuple[Any, ...]]]:
        def look_up() -> list[tuple[Any, ...]]:
            try:
                found: list[tuple[Any, ...]] = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
            except OSError:
                if address not in self._known:
                    raise
                return self._known[address]  # the name server is away: the host may well be where it was
            self._known[address] = found
            return found

        if not address.is_numeric:
            future = self._resolver.submit(look_up)
            future.add_done_callback(lambda _: self._post(client, lambda: None))
            return future
        done: Future[list[tuple[Any, ...]]] = Future()
        done.set_result(
            socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        )
        return done

    # The thread's own.

    def _run(self) -> None:
        while self._running:
            ready = {self._by_fd[fd] for fd, _ in self._poll() if fd in self._by_fd}
            for client, call in self._take_posted():
                call()
                if client is not None:
                    ready.add(client)
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                due, _, client = heapq.heappop(self._timers)
                if self._due.get(client) == due:
                    del self._due[client]
                    ready.add(client)
            for client in ready:
                self._step(client)

    def _poll(self) -> list[tuple[int, int]]:
        while self._timers and self._due.get(self._timers[0][2]) != self._timers[0][0]:
            heapq.heappop(self._timers)
        timeout = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
        if self._posted:
            timeout = 0.0
        return self._epoll.poll(timeout)

    def _take_posted(self) -> list[tuple[OvsdbClient | None, Callable[[], None]]]:
        try:
            os.eventfd_read(self._alarm)
        except BlockingIOError:
            return []
        return [self._posted.popleft() for _ in range(len(self._posted))]

    def _step(self, client: OvsdbClient) -> None:
        try:
            client.thread_step()
        except Exception:
            log.exception("%s: dropped the connection after an error of our own", client.database.where)
            client.session.drop("dropped after an error of our own; the log has it")
        self._watch(client)
        wake, due = client.thread_wake, self._due.get(client)
        if wake is None:
            self._due.pop(client, None)
        elif due is None or wake < due:
            # A time that moved away, as that of the next probe does with every message, is not noted anew: the client
            # is woken once for nothing instead.
            self._due[client] = wake
            heapq.heappush(self._timers, (wake, next(self._order), client))

        if client.session.phase is Phase.CLOSED:
            self._clients.discard(client)
        else:
            self._clients.add(client)

    def _watch(self, client: OvsdbClient) -> None:
        sock, mask = client.session.socket, client.session.interest
        before = self._watched.get(client)
        if before is not None and before[0] is sock:
            if before[2] != mask:
                self._epoll.modify(before[1], mask)
                self._watched[client] = (before[0], before[1], mask)
            return
        if before is not None:
            del self._watched[client]
            # A closed socket has left epoll by itself; its number may be another client's by now.
            if self._by_fd.get(before[1]) is client:
                del self._by_fd[before[1]]
                if sock is not None and sock.fileno() == before[1]:
                    self._unregister(before[1])
        if sock is not None:
            fd = sock.fileno()
            self._epoll.register(fd, mask)
            self._by_fd[fd] = client
            self._watched[client] = (sock, fd, mask)

    def _unregister(self, fd: int) -> None:
        # wrap_socket() moves a connection's descriptor into another socket object: it is still registered.
        try:
            self._epoll.unregister(fd)
        except FileNotFoundError:
            return

    def _finish(self) -> None:
        self._running = False
        for client in self._clients:
            client.thread_close()
