"""Who may ask: this machine's own programs, never a web page from elsewhere.

A page that the operator has open in a browser can send requests to 127.0.0.1. Three things stop it: names that are not
this machine's are refused (DNS rebinding), a foreign ``Origin`` is refused, and bodies need a content type that no
HTML form can send (Fetch standard, "CORS-safelisted request-header"). There are no CORS headers to allow anything.
"""

from __future__ import annotations

import ipaddress
from http import HTTPStatus

from flask import Response, request

from controller.api.problems import Refused
from controller.recorder import ASKED_THROUGH

# Set by the server for what comes through the unix socket, which no browser reaches and whose file mode says who may.
# Request headers cannot set it: in WSGI they all start with HTTP_.
UNIX = "fleetswitch.unix"

_READING = frozenset({"GET", "HEAD", "OPTIONS"})


def check_request() -> None:
    """Raise Refused for a request of a page that is not ours, or sent to a name that is not this machine's."""
    ASKED_THROUGH.set(through())
    if not request.environ.get(UNIX):
        _check_host(request.environ.get("HTTP_HOST", ""))
        if request.method not in _READING:
            # There are no tokens yet, and any user of this machine can connect.
            raise Refused(
                HTTPStatus.FORBIDDEN,
                "read-only",
                "nothing can be changed over TCP",
                "use the unix socket, whose file mode says who may",
            )
    origin = request.headers.get("Origin")
    if origin is not None and origin != f"{request.scheme}://{request.environ.get('HTTP_HOST', '')}":
        raise Refused(HTTPStatus.FORBIDDEN, "origin", f"a page of {origin!r:.80} may not ask this controller",
                      "use the command line, or ask from no page", "Origin")  # fmt: skip
    if request.method not in _READING and request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
        raise Refused(HTTPStatus.FORBIDDEN, "origin", "a page of another site may not change anything here",
                      "use the command line, or ask from no page", "Sec-Fetch-Site")  # fmt: skip


def through() -> str:
    """The way that the current request came, in words."""
    return "unix socket" if request.environ.get(UNIX) else "TCP"


def protect(response: Response) -> Response:
    """Headers of every answer: state is never cached, never guessed to be HTML, never framed."""
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
    return response


def _check_host(header: str) -> None:
    # A port is no matter: an ssh tunnel may have another. An address cannot be rebound, only names can.
    host = header.rpartition("]")[0].removeprefix("[") if header.startswith("[") else header.partition(":")[0]
    try:
        known = ipaddress.ip_address(host).is_loopback
    except ValueError:
        known = host.lower() == "localhost"
    if not known:
        raise Refused(HTTPStatus.MISDIRECTED_REQUEST, "host", f"{header!r:.80} is not a name of this controller",
                      "ask for localhost or 127.0.0.1", "Host")  # fmt: skip
