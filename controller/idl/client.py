"""One remote database as asyncio sees it: its state, its changes in order, reads and transactions."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ovs.db.idl import ROW_DELETE, Idl
from ovsdbapp.backend.ovs_idl import Backend
from ovsdbapp.backend.ovs_idl.rowview import RowView

from controller.errors import FleetError, OvsdbError
from controller.idl.news import Listener, News, RowChange
from controller.idl.replica import Columns, Replica, Transaction, idl_log, make_api, reduce_schema
from controller.idl.session import UNUSABLE, Phase, Session, brief

T = TypeVar("T")

_TRIES = 20
_PENDING = 1000

Build = Callable[[Any, Transaction], None]


@dataclass(frozen=True, slots=True)
class ClientState:
    """How a client stands. ``since`` and ``next_try`` are seconds since the epoch; ``doing`` says what it is at,
    ``error`` why it is not connected, or why it was not the last time."""

    connected: bool
    since: float
    doing: str
    remote: str = ""
    error: str = ""
    next_try: float | None = None


@dataclass(frozen=True, slots=True)
class Database:
    """Which database, and what of it is copied. ``read`` makes plain values of rows, by table, in the Idl's thread.
    ``error`` is the exception that transactions raise; ``where`` is its first word, and the log's. ``peer`` is the Host
    that serves it, whose name a TLS certificate must carry; None: whoever has one of the authority."""

    name: str
    columns: Columns
    where: str
    read: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    backend: type[Backend] = Backend
    index: bool = True
    error: type[FleetError] = OvsdbError
    peer: str | None = None


@dataclass(slots=True)
class _Job:
    """A transaction on its way: built and sent, again when what it read has changed meanwhile."""

    build: Build
    deadline: float
    wait: bool
    done: Callable[[Any], None]
    raw: bool  # the caller judges the results
    tries: int = 0
    not_before: float = 0.0
    transaction: Transaction | None = None


class OvsdbClient:
    """Made by ``IdlThread.connect``. Methods named ``thread_*`` are the thread's own."""

    def __init__(
        self,
        database: Database,
        listener: Listener,
        session: Callable[[Callable[[Any], None]], Session],
        post: Callable[[OvsdbClient, Callable[[], None]], None],
    ) -> None:
        self.database = database
        self.listener = listener
        self.state = ClientState(False, time.time(), Phase.WAITING.value)
        self.session = session(self._take_schema)
        self._post = post
        self._loop = asyncio.get_running_loop()
        self._idl: Replica | None = None
        self._api: Any = None
        self._schema: dict[str, Any] | None = None
        # Tables and columns (``Port.tag``) that are wanted, but that the server's schema does not have.
        self.missing: tuple[str, ...] = ()
        self._up = False
        self._weighed = 0  # bytes that had come when the contents were weighed last
        self._jobs: deque[_Job] = deque()
        self._sent: list[_Job] = []
        self._news = News(listener, database.where)

    # For the loop.

    async def transact(self, build: Build, within: float = 10.0, *, wait: bool = False) -> list[Any]:
        """Runs ``build(api, txn)`` in the thread and commits. ``txn.add(api.db_set(...))`` adds an ovsdbapp command,
        ``txn.add_op({...})`` an operation of RFC 7047. Returns the commands' results as plain values, rows as UUIDs.

        ``build`` runs again, on newer contents, when what it verified had changed. Raises the database's error when the
        server refuses, is away (with ``wait``: still away after ``within`` seconds), does not answer in time, or is
        lost before it answered. In the last two cases the text says that the outcome is not known, and ``__cause__`` is
        a TimeoutError or a ConnectionError.
        """
        return list((await self._run(build, within, wait))[0])

    async def execute(self, operations: Sequence[dict[str, Any]], within: float = 10.0, *, wait: bool = False) -> Any:
        """Sends operations of RFC 7047 section 5.2 as one transaction, and returns the array of their results as the
        server sent it, errors included: the caller judges. Raises as ``transact`` does for everything else."""

        def build(api: Any, transaction: Transaction) -> None:
            for operation in operations:
                transaction.add_op(operation)

        return (await self._run(build, within, wait, raw=True))[1]

    async def call(self, read: Callable[[Any], T]) -> T:
        """Runs ``read(idl)`` in the thread and returns its result, which must not hold rows. Raises the database's
        error when nothing was ever read of the database, and whatever ``read`` raises."""
        future: asyncio.Future[T] = self._loop.create_future()

        def run() -> None:
            try:
                if self._idl is None or not self._idl.has_ever_connected():
                    raise self._error(f"was not reached yet: {self._why()}")
                result = read(self._idl)
            except Exception as error:
                self._news.fail(future, error)
            else:
                self._news.resolve(future, result)

        self._post(self, run)
        return await future

    def close(self) -> None:
        """Ends the connection; transactions that are not done fail, and nobody is told of anything any more."""
        self._post(self, self.thread_close)

    def retry_now(self) -> None:
        """Tries to connect at once rather than after the backoff."""
        self._post(self, self.session.retry_now)

    def set_probe(self, seconds: float) -> None:
        """Seconds of silence after which the server is asked for a sign of life, and after as many again given up."""
        self._post(self, lambda: self.session.set_probe(seconds))

    async def _run(self, build: Build, within: float, wait: bool, raw: bool = False) -> tuple[Sequence[Any], Any]:
        future: asyncio.Future[tuple[Sequence[Any], Any]] = self._loop.create_future()

        def done(outcome: Any) -> None:
            if isinstance(outcome, Exception):
                self._news.fail(future, outcome)
            else:
                self._news.resolve(future, outcome)

        job = _Job(build, time.monotonic() + within, wait, done, raw)
        self._post(self, lambda: self._accept(job))
        return await future

    # The thread's own.

    def thread_step(self) -> None:
        """Does everything that can be done now."""
        self.session.advance()
        if self.session.phase is Phase.READY and self._idl is not None:
            self._run_idl(self._idl)
        self._collect()
        if self.session.phase is Phase.READY:
            self._commit_jobs()
        if self.session.phase is not Phase.READY:
            self._lost()
            self._commit_jobs()
        self._note_state()

    @property
    def thread_wake(self) -> float | None:
        """When thread_step() is due although nothing came (``time.monotonic``); 0 is at once."""
        if not self.session.drained:
            return 0.0
        times = [job.deadline for job in self._sent]
        retry = self._takes_transactions() and not self._retrying()
        times += [job.not_before if retry and job.tries else job.deadline for job in self._jobs]
        if self.session.wake is not None:
            times.append(self.session.wake)
        if self.session.phase is Phase.READY and not self._up:
            times.append(self._handshake_deadline())
        return min(times, default=None)

    def _take_schema(self, schema: Any) -> None:
        reduced = reduce_schema(schema, self.database.columns)
        self.missing = tuple(
            f"{table}.{column}"
            for table, columns in self.database.columns.items()
            for column in columns
            if column not in reduced["tables"].get(table, {}).get("columns", {})
        )
        if self._idl is not None:
            if reduced == self._schema:
                return
            self._idl.forget_all()
            self._tell_changes(self._idl)
        self._idl = Replica(reduced, self.session)
        self._api = make_api(self.database.backend, self._idl, index=self.database.index)
        self._schema = self._idl.schema
        self.session.refused = self._idl.refused

    def _run_idl(self, idl: Replica) -> None:
        idl_log.take_last()
        try:
            idl.run()
        except Exception as error:
            idl.read_all_anew()
            self.session.drop(idl.damaged or f"sent what cannot be understood: {type(error).__name__}: {error}")
        self._tell_changes(idl)
        if self.session.phase is not Phase.READY:
            if idl.damaged or self.session.reason == UNUSABLE:
                self.session.reason = idl.damaged or idl_log.take_last().partition(": ")[2] or UNUSABLE
            idl.damaged = ""
        elif idl.state == Idl.IDL_S_MONITORING and not self._up:
            self._up = True
            self.session.settled()
            self._news.call(self.listener.on_up)
        elif not self._up and time.monotonic() >= self._handshake_deadline():
            self.session.drop("did not send the contents of the database in time")
        elif self.session.received - self._weighed >= self.session.limits.message:
            self._weigh(idl)

    def _weigh(self, idl: Replica) -> None:
        """Gives up a server whose database grows without end. Looked at once for so many bytes that came."""
        self._weighed, limits = self.session.received, self.session.limits
        if idl.weight() > limits.contents:
            self.session.drop(f"has more than {limits.contents} bytes of contents")
            idl.forget_contents()
            self._tell_changes(idl)

    def _handshake_deadline(self) -> float:
        limits, session = self.session.limits, self.session
        return min(session.ready_since + limits.handshake, session.last_received + limits.silence)

    def _lost(self) -> None:
        reason = self.session.reason
        for job in self._sent:
            if self._idl is not None and job.transaction is not None:
                self._idl._outstanding_txns.pop(job.transaction._request_id, None)
            error = self._error(f"{reason} before it confirmed the transaction: the outcome is not known")
            error.__cause__ = ConnectionError(reason)
            job.done(error)
        self._sent.clear()
        if self._up:
            self._up = False
            self._news.call(lambda: self.listener.on_down(reason))

    def _accept(self, job: _Job) -> None:
        if self.session.phase is Phase.CLOSED:
            job.done(self._error("the connection was closed"))
        elif not self._up and not job.wait:
            job.done(self._error(f"is not connected: {self._why()}"))
        elif len(self._jobs) + len(self._sent) >= _PENDING:
            job.done(self._error(f"does not keep up: {_PENDING} transactions wait for it"))
        else:
            self._jobs.append(job)

    def _commit_jobs(self) -> None:
        now = time.monotonic()
        for _ in range(len(self._jobs)):
            job = self._jobs.popleft()
            if now >= job.deadline:
                job.done(self._error(f"is not connected: {self._why()}" if not self._up else "changes too often"))
            elif not self._up and not job.wait:
                job.done(self._error(f"is not connected: {self._why()}"))
            elif self._idl is not None and self._may_go(job, now):
                self._commit(job, self._idl)
            else:
                self._jobs.append(job)
        self._collect()

    def _takes_transactions(self) -> bool:
        """False also while a server that converts its database makes the Idl begin anew."""
        return self._up and self._idl is not None and bool(self._idl.state == Idl.IDL_S_MONITORING)

    def _may_go(self, job: _Job, now: float) -> bool:
        if not self._takes_transactions():
            return False
        return not job.tries or (now >= job.not_before and not self._retrying())

    def _retrying(self) -> bool:
        """Whether a transaction that was refused before is under way. They go one by one: of those that read the same,
        all but one would be refused again."""
        return any(job.tries > 1 for job in self._sent)

    def _commit(self, job: _Job, idl: Replica) -> None:
        job.tries += 1
        transaction = Transaction(idl)
        idl_log.set_strict(True)
        try:
            job.build(self._api, transaction)
            transaction.commit()
        except Exception as error:
            transaction.abort()
            job.done(error if isinstance(error, FleetError) else self._error(f"{type(error).__name__}: {error}"))
            return
        finally:
            idl_log.set_strict(False)
        job.transaction = transaction
        self._sent.append(job)

    def _collect(self) -> None:
        now = time.monotonic()
        waiting = []
        for job in self._sent:
            transaction = job.transaction
            if transaction is None:
                continue
            if transaction._status != Transaction.INCOMPLETE:
                self._finish(job, transaction)
            elif now >= job.deadline:
                self._idl._outstanding_txns.pop(transaction._request_id, None)  # type: ignore[union-attr]
                error = self._error("did not confirm the transaction in time: the outcome is not known")
                error.__cause__ = TimeoutError()
                job.done(error)
            else:
                waiting.append(job)
        self._sent = waiting

    def _finish(self, job: _Job, transaction: Transaction) -> None:
        status = transaction._status
        replied = transaction.reply is not None and transaction.reply.type == transaction.reply.T_REPLY
        if replied and job.raw:
            job.done(([], transaction.reply.result))
        elif status in (Transaction.SUCCESS, Transaction.UNCHANGED):
            try:
                if status == Transaction.SUCCESS:
                    for command in transaction.commands:
                        command.post_commit(transaction)
                job.done(([_plain(command.result) for command in transaction.commands], None))
            except Exception as error:
                job.done(self._error(f"was changed, but the result cannot be read: {error}"))
        elif status == Transaction.TRY_AGAIN and job.tries < _TRIES:
            # The change that made it fail came before the refusal, so the next try sees it. A short wait all the same:
            # two writers in step would otherwise refuse each other for ever.
            job.not_before = time.monotonic() + random.uniform(0, 0.001 * job.tries)  # noqa: S311
            self._jobs.append(job)
        else:
            job.done(self._error(f"refused the transaction: {transaction.reason()}"))

    def thread_close(self) -> None:
        """Fails what is not done."""
        self.session.close()
        for job in [*self._jobs, *self._sent]:
            job.done(self._error("the connection was closed"))
        self._jobs.clear()
        self._sent.clear()
        self._up = False
        self._note_state()

    def _why(self) -> str:
        return self.session.reason or self.session.doing

    def _error(self, what: str) -> FleetError:
        return self.database.error(brief(what), where=f"{self.database.where} ({self.session.remote})")

    def _note_state(self) -> None:
        session = self.session
        doing = session.doing
        if session.phase is Phase.READY and not self._up:
            doing = "reading the database"
        waiting = session.phase is Phase.WAITING and session.wake is not None
        next_try = time.time() + session.wake - time.monotonic() if waiting and session.wake is not None else None
        old = self.state
        since = old.since if old.connected == self._up else time.time()
        self.state = ClientState(self._up, since, doing, str(session.remote), session.reason or old.error, next_try)

    def _tell_changes(self, idl: Replica) -> None:
        news = []
        for (table, uuid), event in idl.take_changes().items():
            value = None
            read = self.database.read.get(table)
            if event != ROW_DELETE and read is not None:
                try:
                    value = read(idl.tables[table].rows[uuid])
                except Exception as error:
                    idl.read_all_anew()
                    self.session.drop(f"sent a row of {table} that cannot be understood: {error}")
                    return
            news.append(RowChange(table, uuid, event, value))
        self._news.changed(news)


def _plain(value: Any) -> Any:
    if isinstance(value, RowView):
        return value.uuid
    return getattr(value, "uuid", value)
