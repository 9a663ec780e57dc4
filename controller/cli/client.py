"""HTTP to the controller: over its unix socket or loopback TCP, errors as those of ``controller.errors``."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from controller.errors import (
    Conflict,
    ControllerUnreachable,
    FleetError,
    HostError,
    InvalidInput,
    NotConfirmed,
    NotFound,
    Problem,
    StoreError,
)

DEFAULT_API = "unix:/run/fleetswitch/api.sock"
PREFIX = "/api/v1"

_XML = "application/xml"
_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 60.0
_LONGEST_WAIT = 600.0  # of one request, as the API has it
_PAGE = 5000
_TRIES = 10  # to read a list that changes between its pages
_AWAY_SECONDS = 1.0  # before a controller that is away is tried again

_ERRORS: Mapping[int, type[FleetError]] = {
    HTTPStatus.NOT_FOUND: NotFound,
    HTTPStatus.CONFLICT: Conflict,
    HTTPStatus.GATEWAY_TIMEOUT: ControllerUnreachable,
    HTTPStatus.SERVICE_UNAVAILABLE: StoreError,
    HTTPStatus.BAD_GATEWAY: HostError,
}


@dataclass(frozen=True, slots=True)
class Address:
    """Where the controller answers: a unix socket's path, or host and port."""

    path: str = ""
    host: str = "localhost"
    port: int = 0

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path else f"http://{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """``unix:/path`` or ``http://host:port`` as an Address. Raises ValueError that says what would be right."""
    if text.startswith("unix:/"):
        return Address(path=text.removeprefix("unix:"))
    try:
        parts = urlsplit(text)
        if parts.scheme == "http" and parts.hostname and parts.path in {"", "/"} and not parts.query:
            return Address(host=parts.hostname, port=parts.port or 8640)
    except ValueError:
        pass
    raise ValueError(f"{text!r} is no address of a controller; write unix:/PATH or http://127.0.0.1:8640")


class Client:
    """Requests to one controller. Every method raises FleetError for what is refused or cannot be reached."""

    def __init__(self, address: Address, connect_seconds: float = _CONNECT_SECONDS) -> None:
        self._address = address
        self._connect_seconds = connect_seconds

    def get(self, path: str, **query: Any) -> Any:
        """The JSON value at this path below /api/v1."""
        return self._ask("GET", path, query, None)

    def post(self, path: str, body: Any, **query: Any) -> Any:
        """The answer to this JSON value."""
        return self._ask("POST", path, query, body)

    def post_xml(self, path: str, xml: bytes, **query: Any) -> Any:
        """The answer to this XML."""
        patience = _ANSWER_SECONDS + float(query.get("wait") or 0)
        return self._answer("POST", query, self._exchange("POST", _target(path, query), xml, patience, _XML))

    def delete(self, path: str, **query: Any) -> Any:
        """The answer to a deletion."""
        return self._ask("DELETE", path, query, None)

    def items(self, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        """All items of a list, those of several pages as of one moment. Raises Conflict for a list that is long and
        changes faster than it can be read."""
        for last in (*[False] * _TRIES, True):
            try:
                yield from list(self._pages(path, query))
                return
            except Conflict:
                if last:
                    raise

    def _pages(self, path: str, query: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        offset, sequence = 0, None
        while True:
            page = self.get(path, **query, limit=_PAGE, offset=offset, sequence=sequence)
            yield from page["items"]
            offset, sequence = offset + len(page["items"]), page.get("sequence")
            if not page["items"] or offset >= page["total"]:
                return

    def text(self, path: str, **query: Any) -> str:
        """What stands at this path, in a form that is not JSON."""
        status, data = self._send("GET", path, query, None)
        if status >= HTTPStatus.BAD_REQUEST:
            raise _error(status, self._json(data))
        return data.decode()

    def follow(self, path: str, after: int | None, **query: Any) -> Iterator[dict[str, Any] | None]:
        """Server-sent events behind the one with this id, or from now on: what each one carries, and None whenever the
        server has spoken. Comes again, as often as the server wants, where the stream ends. Never ends by itself."""
        retry, last = 1.0, str(after) if after is not None else None
        while True:
            data: list[str] = []
            try:
                for line in self._lines(path, query, last):
                    name, _, value = line.partition(": ")
                    if name == "id":
                        last = value
                    elif name == "retry":
                        retry = int(value) / 1000
                    elif name == "data":
                        data.append(value)
                    elif not line:
                        yield json.loads("\n".join(data)) if data else None
                        data = []
            except ControllerUnreachable:
                time.sleep(max(retry, _AWAY_SECONDS))
                raise
            time.sleep(retry)

    def _lines(self, path: str, query: Mapping[str, Any], last: str | None) -> Iterator[str]:
        """The lines of one stream. Raises FleetError where the answer is none."""
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last} if last is not None else {})}
        with self._asking("GET", _target(path, query), None, headers, _ANSWER_SECONDS) as response:
            if response.status >= HTTPStatus.BAD_REQUEST:
                raise _error(response.status, self._json(response.read()))
            while line := response.readline():
                yield line.decode().rstrip("\n")

    def _ask(self, method: str, path: str, query: Mapping[str, Any], body: Any) -> Any:
        return self._answer(method, query, self._send(method, path, query, body))

    def _answer(self, method: str, query: Mapping[str, Any], answer: tuple[int, bytes]) -> Any:
        status, data = answer
        value = self._json(data)
        if status >= HTTPStatus.BAD_REQUEST:
            raise _error(status, value, is_change=method != "GET" or "wait" in query)
        return value

    def _send(self, method: str, path: str, query: Mapping[str, Any], body: Any) -> tuple[int, bytes]:
        target = _target(path, query)
        sent = None if body is None else json.dumps(body).encode()
        patience = _ANSWER_SECONDS + min(float(query.get("wait") or 0), _LONGEST_WAIT)
        return self._exchange(method, target, sent, patience)

    def _json(self, data: bytes) -> Any:
        try:
            return json.loads(data)
        except ValueError:
            raise self._unreachable(f"what answers at {self._address} is no fleetswitch controller") from None

    def _exchange(
        self, method: str, target: str, body: bytes | None, patience: float, media: str = "application/json"
    ) -> tuple[int, bytes]:
        headers = {"Content-Type": media} if body is not None else {}
        with self._asking(method, target, body, headers, patience) as response:
            return response.status, response.read()

    @contextlib.contextmanager
    def _asking(
        self, method: str, target: str, body: bytes | None, headers: Mapping[str, str], patience: float
    ) -> Iterator[http.client.HTTPResponse]:
        """The answer to a request, to be read inside. Raises ControllerUnreachable, inside as well."""
        connection = http.client.HTTPConnection(self._address.host, self._address.port)
        try:
            try:
                connection.sock = self._connect()
            except PermissionError:
                what = f"{self._address} may not be opened by this user"
                raise ControllerUnreachable(what, remedy="run this as the user that runs the controller") from None
            except OSError as error:
                why = error.strerror or str(error)
                raise self._unreachable(f"no controller answers at {self._address}: {why}") from None
            try:
                connection.sock.settimeout(patience)
                # Refused before all was sent: the answer says why.
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    connection.request(method, target, body, dict(headers))
                yield connection.getresponse()
            except TimeoutError:
                raise self._unreachable(
                    f"the controller at {self._address} did not answer in {patience:.0f} s"
                ) from None
            except (OSError, http.client.HTTPException) as error:
                raise self._unreachable(f"the controller at {self._address} broke off: {error}") from None
        finally:
            connection.close()

    def _connect(self) -> socket.socket:
        if not self._address.path:
            return socket.create_connection((self._address.host, self._address.port), self._connect_seconds)
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connected.settimeout(self._connect_seconds)
            connected.connect(self._address.path)
        except BaseException:
            connected.close()
            raise
        return connected

    @staticmethod
    def _unreachable(what: str) -> ControllerUnreachable:
        return ControllerUnreachable(what, remedy="start it with `fleetswitch up`, or name its address with --api")


def object_path(kind: str, name: str) -> str:
    """The path of an object below /api/v1."""
    return f"/{kind.lower()}s/{quote(name, safe='')}"


def _target(path: str, query: Mapping[str, Any]) -> str:
    given = {name: value for name, value in query.items() if value is not None and value is not False}
    return PREFIX + path + ("?" + urlencode(given) if given else "")


def _error(status: int, value: Any, *, is_change: bool = False) -> FleetError:
    """``is_change``: something was to be changed or waited for, which a late answer leaves unconfirmed."""
    found = value.get("problems") if isinstance(value, dict) else None
    problems = [
        Problem(*(str(item.get(part, "")) for part in ("where", "what", "remedy")))
        for item in found or ()
        if isinstance(item, dict)
    ]
    if not problems:
        detail = value.get("detail", "") if isinstance(value, dict) else ""
        problems = [Problem("", str(detail) or f"refused with HTTP status {status}")]
    kind = NotConfirmed if is_change and status == HTTPStatus.GATEWAY_TIMEOUT else _ERRORS.get(status)
    if kind is None:
        return InvalidInput(problems)
    return kind(problems[0].what, where=problems[0].where, remedy=problems[0].remedy)


def changed_places(error: InvalidInput, places: Sequence[tuple[str, str]]) -> InvalidInput:
    """The error with the file and line of each object in front of what is wrong with it.

    ``places`` are pairs of an object (``Network web``) and where it stands (``fleet.yaml:12``).
    """
    known = dict(places)

    def place(where: str) -> str:
        file = known.get(where.partition(":")[0])
        return f"{file}: {where}" if file else where

    return InvalidInput([Problem(place(item.where), item.what, item.remedy) for item in error.problems])
