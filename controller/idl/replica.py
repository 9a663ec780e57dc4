"""The in-memory copy of a database: python-ovs's Idl and ovsdbapp's Backend, with what would bite taken out of them."""

from __future__ import annotations

import itertools
import logging
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID
from weakref import WeakSet

import ovs.db.custom_index
import ovs.db.data
import ovs.db.error
import ovs.db.idl
import ovs.jsonrpc
from ovs.db.idl import ROW_CREATE, ROW_DELETE, ROW_UPDATE, Idl, SchemaHelper
from ovs.db.schema import DbSchema
from ovsdbapp.backend.ovs_idl import Backend

from controller.idl.session import Session

log = logging.getLogger(__name__)

Columns = Mapping[str, Sequence[str]]

# Message numbers its requests with "+= 1" on the class: two threads that do so at once can hand out a number twice.
ovs.jsonrpc.Message._create_id = staticmethod(itertools.count().__next__)


_read_atom = ovs.db.data.Atom.from_json


def _interned_atom(base: Any, json: Any, symtab: Any = None) -> Any:
    """A value as the Idl keeps it. What hosts tell is much the same: "up", "iface-id", "fleetswitch" are there once."""
    return _read_atom(base, sys.intern(json) if type(json) is str else json, symtab)


ovs.db.data.Atom.from_json = staticmethod(_interned_atom)


class _IdlLog:
    """Takes the place of the Idl's own log, which python-ovs writes nowhere unless it is set up.

    ``Row`` logs a value that does not fit its column and then leaves the column as it was: the write is lost and the
    transaction succeeds. Within ``strict`` such an error is raised instead.
    """

    def __init__(self) -> None:
        self._thread = threading.local()

    def set_strict(self, strict: bool) -> None:
        self._thread.strict = strict

    def take_last(self) -> str:
        """The last thing that the Idl had to say in this thread, which is why it gave up a server."""
        last: str = getattr(self._thread, "last", "")
        self._thread.last = ""
        return last

    def err(self, message: str) -> None:
        if getattr(self._thread, "strict", False):
            raise ovs.db.error.Error(message)
        self.warn(message)

    def warn(self, message: str) -> None:
        self._thread.last = message
        log.debug("%s", message)

    info = warn

    def dbg(self, message: str) -> None:
        log.debug("%s", message)


idl_log = _IdlLog()
ovs.db.idl.vlog = idl_log


def reduce_schema(schema: Any, wanted: Columns) -> dict[str, Any]:
    """A database's schema cut down to the tables and columns that are wanted; those that it does not have are left out,
    so a host with an older Open vSwitch is still understood. References to tables that are left out become plain UUIDs.
    Raises KeyError, TypeError or AttributeError when ``schema`` is none."""
    tables = {}
    all_root = not any(table.get("isRoot") for table in schema["tables"].values())
    for name, columns in wanted.items():
        table = schema["tables"].get(name)
        if table is None:
            continue
        kept = {column: table["columns"][column] for column in columns if column in table["columns"]}
        tables[name] = {
            "columns": {column: _without_references(value, wanted, schema) for column, value in kept.items()},
            "isRoot": all_root or bool(table.get("isRoot")),
            "indexes": [index for index in table.get("indexes", []) if set(index) <= kept.keys()],
        }
        if "maxRows" in table:
            tables[name]["maxRows"] = table["maxRows"]
    return {"name": schema["name"], "version": schema.get("version", "0.0.0"), "tables": tables}


def _without_references(column: dict[str, Any], wanted: Columns, schema: Any) -> dict[str, Any]:
    kind = column["type"]
    if not isinstance(kind, dict):
        return column
    kind = dict(kind)
    for side in ("key", "value"):
        base = kind.get(side)
        if isinstance(base, dict) and "refTable" in base:
            target = base["refTable"]
            if target not in wanted or target not in schema["tables"]:
                kind[side] = "uuid"
    return {**column, "type": kind}


class _Rows(ovs.db.custom_index.IndexedRows):  # type: ignore[misc]
    """A table's rows. python-ovs makes a class for each table of each connection, to look things up in indexes (20 KB
    of 400 hosts' 240 each): here it is made when somebody does."""

    def __init__(self, table: Any) -> None:
        ovs.db.custom_index.DictBase.__init__(self)
        self.table = table
        self.indexes: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        if name != "IndexEntry":
            raise AttributeError(name)
        self.IndexEntry = ovs.db.custom_index.IndexEntryClass(self.table)
        return self.IndexEntry


ovs.db.custom_index.IndexedRows = _Rows


@dataclass(eq=False)
class _Schema:
    """As it was given, and parsed."""

    given: dict[str, Any]
    parsed: DbSchema


class _Schemas:
    """Schemas that hosts of one version of Open vSwitch share, for as long as one of them has it: nobody changes one.
    For several threads."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._known: WeakSet[_Schema] = WeakSet()

    def shared(self, given: dict[str, Any]) -> _Schema:
        """Raises ovs.db.error.Error when it makes no sense."""
        with self._guard:
            for known in self._known:
                if known.given == given:
                    return known
            made = _Schema(given, DbSchema.from_json(given))
            made.parsed.readonly = {}
            self._known.add(made)
            return made


class _Helper(SchemaHelper):  # type: ignore[misc]
    """One that has the schema already."""

    def __init__(self, schema: DbSchema) -> None:
        super().__init__(schema_json={})
        self._schema = schema

    def get_idl_schema(self) -> DbSchema:
        return self._schema


_schemas = _Schemas()


def sum_up(before: str | None, event: str) -> str:
    """Two events of one row as one."""
    if before == ROW_DELETE and event == ROW_CREATE:
        return str(ROW_UPDATE)
    return str(ROW_CREATE) if before == ROW_CREATE and event == ROW_UPDATE else event


_ATOM = 64


def _length(atom: Any) -> int:
    return len(atom.value) if isinstance(atom.value, str) else 0


class Replica(Idl):  # type: ignore[misc]
    """An Idl on a Session of ours, that keeps account of which rows changed."""

    def __init__(self, schema: dict[str, Any], session: Session) -> None:
        self._shared = _schemas.shared(schema)
        super().__init__("unix:replaced", _Helper(self._shared.parsed), leader_only=False)
        self._session = session
        # (table, uuid) -> the event that sums up what happened since the last take_changes().
        self._changes: dict[tuple[str, Any], str] = {}
        self.damaged = ""

    @property
    def schema(self) -> dict[str, Any]:
        """As it was given."""
        return self._shared.given

    def notify(self, event: str, row: Any, updates: Any = None) -> None:
        """Called by the Idl for each row that changed."""
        self._note((row._table.name, row.uuid), event)

    def take_changes(self) -> dict[tuple[str, Any], str]:
        """What changed since the last call."""
        changes, self._changes = self._changes, {}
        return changes

    def forget_all(self) -> None:
        """Notes every row as deleted: this copy is given up."""
        for name, table in self.tables.items():
            for uuid in list(table.rows):
                self._note((name, uuid), ROW_DELETE)

    def weight(self) -> int:
        """Bytes that its rows take, about: texts by their length, everything else by what a small object takes."""
        total = 0
        for table in self.tables.values():
            for row in table.rows.values():
                for datum in row._data.values():
                    for key, value in datum.values.items():
                        total += _ATOM + _length(key) + (_length(value) if value is not None else 0)
        return total

    def forget_contents(self) -> None:
        """Drops every row; they are read anew with the next connection."""
        self._Idl__clear()
        self.read_all_anew()

    def read_all_anew(self) -> None:
        """At the next connection the whole contents are asked for, rather than what changed since the last update."""
        self.last_id = str(UUID(int=0))

    def refused(self, message: Any) -> str:
        """The server's reason when ``message`` refuses to be monitored. The Idl would wait for ever."""
        pending: bool = self._monitor_request_id is not None and message.id == self._monitor_request_id
        if not pending or message.type != message.T_ERROR or message.error == "unknown method":
            return ""
        return str(message.error)

    def _note(self, key: tuple[str, Any], event: str) -> None:
        self._changes[key] = sum_up(self._changes.get(key), event)

    def _Idl__clear(self) -> None:
        # After a reconnect the Idl drops every row without a word, and reads all anew: whoever listens would never
        # hear of the rows that went away in between.
        self.forget_all()
        super()._Idl__clear()

    def _Idl__parse_update(self, update: Any, version: str, tables: Any = None) -> None:
        # The Idl logs an update that it cannot parse and goes on with a copy that is wrong from then on.
        if tables is not None:
            _shorten(update)
        try:
            self._Idl__do_parse_update(update, version, tables or self.tables)
        except Exception as error:
            self.damaged = f"sent an update that cannot be understood: {error}"
            self.read_all_anew()
            raise


def _shorten(update: Any) -> None:
    """Of the server's own Database table the Idl wants to know whether there is a schema: 40 KB of text that each
    connection would keep."""
    for rows in update.values() if isinstance(update, dict) else ():
        for change in rows.values() if isinstance(rows, dict) else ():
            for row in change.values() if isinstance(change, dict) else ():
                if isinstance(row, dict) and isinstance(row.get("schema"), str) and row["schema"]:
                    row["schema"] = "{}"


class Transaction(ovs.db.idl.Transaction):  # type: ignore[misc]
    """An Idl transaction that keeps the server's own words. ovsdbapp's commands run on it as they are added."""

    def __init__(self, idl: Replica) -> None:
        super().__init__(idl)
        self.expected_ifaces: set[Any] = set()  # ovsdbapp's port commands write here
        self.commands: list[Any] = []
        self.reply: Any = None

    def add(self, command: Any) -> Any:
        """Runs an ovsdbapp command (``api.db_set(...)``, ``api.add_br(...)``) in this transaction; returns it."""
        command.run_idl(self)
        self.commands.append(command)
        return command

    def _process_reply(self, message: Any) -> None:
        self.reply = message
        super()._process_reply(message)

    def reason(self) -> str:
        """Why the server refused."""
        if self.reply is not None and self.reply.type == self.reply.T_ERROR:
            return str(self.reply.error)
        for result in self.reply.result if self.reply is not None and isinstance(self.reply.result, list) else []:
            if isinstance(result, dict) and result.get("error"):
                return ": ".join(str(result[key]) for key in ("error", "details") if result.get(key))
        return str(self.get_error())


class _Connection:
    """What ovsdbapp's commands ask of their Connection. It starts no thread."""

    is_running = False
    timeout = 0

    def __init__(self, idl: Replica) -> None:
        self.idl = idl
        self.lock = threading.RLock()

    def start(self) -> None:
        """The Idl is driven elsewhere."""


def make_api(base: type[Backend], idl: Replica, *, index: bool) -> Any:
    """An ovsdbapp Backend on ``idl``. ovsdbapp keeps the connection in the class, so the second database would write to
    the first: each gets a class of its own."""
    api = type(base.__name__, (base,), {"_ovsdb_connection": None, "schema": idl._db.name})
    return api(_Connection(idl), start=False, auto_index=index)
