"""The API's HTTP server: waitress on a unix socket and on loopback TCP.

waitress refuses unix and TCP sockets in one server (``Adjustments.check_sockets``), and counts connections of one map
against one limit. So each socket has a server with a map, a loop and threads of its own: whoever exhausts the TCP
listener leaves the unix socket alone.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Callable, Iterable
from http import HTTPStatus
from pathlib import Path
from typing import Any

from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.server import create_server
from waitress.task import ErrorTask

from controller.api.bodies import MAX_BODY
from controller.api.endpoints import STOPPING
from controller.api.guard import UNIX
from controller.api.problems import MEDIA_TYPE, problem_document
from controller.api.sockets import UnixListener, listen_tcp
from controller.errors import Problem

log = logging.getLogger(__name__)

Wsgi = Callable[[dict[str, Any], Any], Iterable[bytes]]

_THREADS = 24  # more than may wait for changes, hosts and events: the others find one
_JOIN_SECONDS = 5.0
_MOST_HEAD = 32 * 1024


class ApiServer:
    """The application on both sockets; both listen from the construction on and answer from ``start`` on.

    ``tcp`` is (address, port) on loopback, or None. ``channel_timeout`` is seconds after which a silent connection is
    closed. Raises InvalidInput for sockets that cannot be had.
    """

    def __init__(self, app: Wsgi, unix_path: Path, tcp: tuple[str, int] | None, *, channel_timeout: int = 30) -> None:
        self._stopped = False
        self._unix = UnixListener(unix_path)
        self._listeners: list[_Listener] = []
        self.tcp_address: tuple[str, int] | None = None
        try:
            if tcp is not None:
                listener = listen_tcp(tcp)
                self.tcp_address = listener.getsockname()[:2]
                self._listeners.append(_Listener("api-tcp", app, listener, channel_timeout))
        except BaseException:
            self._unix.close()
            raise
        self._listeners.append(_Listener("api-unix", _through_unix(app), self._unix.socket, channel_timeout))

    def start(self) -> None:
        """Answer requests, in daemon threads."""
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # a queue of one request is no news
        for listener in self._listeners:
            listener.start()
        log.info("API at unix:%s%s", self._unix.path,
                 " and http://{}:{}".format(*self.tcp_address) if self.tcp_address else "")  # fmt: skip

    def stop(self) -> None:
        """Answer no more; requests under way get a few seconds. The unix socket is removed."""
        if self._stopped:
            return
        self._stopped = True
        for listener in self._listeners:
            listener.ask_to_stop()
        for listener in self._listeners:
            listener.join()
        self._unix.close()


class _ProblemTask(ErrorTask):  # type: ignore[misc]  # waitress has no types
    """Errors that waitress itself finds in a request (too large, no HTTP) in the form of all the others."""

    def execute(self) -> None:
        error = self.request.error
        status = HTTPStatus(error.code)
        what = f"the request is refused: {error.body}"
        if status is HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            problem = Problem("body", what, f"at most {MAX_BODY} bytes; send it in parts")
        else:
            problem = Problem("request", what, "send HTTP/1.1 (RFC 9112), with a head of at most "
                              f"{_MOST_HEAD} bytes")  # fmt: skip
        body = json.dumps(problem_document(status, "http", problem.what, [problem])).encode()
        self.status = f"{status.value} {status.phrase}"
        self.response_headers.append(("Content-Type", MEDIA_TYPE))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class _Channel(HTTPChannel):  # type: ignore[misc]
    error_task_class = _ProblemTask
    request: Any

    def handle_close(self) -> None:
        if self.request is not None:  # half a request, whose temporary file waitress would forget
            self.request.close()
            self.request = None
        super().handle_close()


class _Listener:
    """One socket, the loop that reads it, and the threads that answer."""

    def __init__(self, name: str, app: Wsgi, listener: socket.socket, channel_timeout: int) -> None:
        self._stopping = threading.Event()
        self._asked = threading.Event()  # whoever stops it has done with the trigger
        self._map: dict[int, Any] = {}
        self._server = create_server(
            self._marked(app),
            map=self._map,
            sockets=[listener],
            threads=_THREADS,
            connection_limit=200,
            channel_timeout=channel_timeout,
            cleanup_interval=max(1, channel_timeout // 4),
            max_request_header_size=_MOST_HEAD,
            max_request_body_size=MAX_BODY + 1,  # waitress refuses what is equal, too
            # A whole answer goes to a temporary file: a client that does not read holds no thread.
            outbuf_high_watermark=1 << 30,
            channel_request_lookahead=1,  # to notice clients that went away while they wait
            log_socket_errors=False,
            ident=None,
        )
        self._server.channel_class = _Channel
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def ask_to_stop(self) -> None:
        self._stopping.set()
        self._server.pull_trigger()
        self._asked.set()

    def join(self) -> None:
        if self._thread.ident is None:  # never started
            self._close()
        else:
            self._thread.join(_JOIN_SECONDS + 2)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                # select() cannot have descriptors above 1023, which a controller of many hosts has
                wasyncore.loop(timeout=1.0, use_poll=True, map=self._map, count=1)
            except Exception:
                log.exception("%s stumbled", self._thread.name)
                self._stopping.wait(0.5)
        self._asked.wait()
        self._close()

    def _close(self) -> None:
        self._server.task_dispatcher.shutdown(timeout=_JOIN_SECONDS)
        for channel in list(self._server.active_channels.values()):
            channel.handle_close()  # close_all alone leaves the temporary files of answers open
        if self._server.task_dispatcher.threads:
            # Who answers still would write to the trigger, whose descriptor could be another file's by then.
            wasyncore.dispatcher.close(self._server)
        else:
            wasyncore.close_all(self._map, ignore_all=True)

    def _marked(self, app: Wsgi) -> Wsgi:
        def marked(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            environ[STOPPING] = self._stopping.is_set
            return app(environ, start_response)

        return marked


def _through_unix(app: Wsgi) -> Wsgi:
    def marked(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ[UNIX] = True
        return app(environ, start_response)

    return marked
