"""The page to try the API at ``/api``: three files, which make from ``/openapi.json`` all that they show."""

from __future__ import annotations

from functools import partial
from importlib.resources import files

from flask import Response
from flask.typing import ResponseReturnValue

from controller.api.endpoints import Endpoint
from controller.api.queries import read_query

# Its own files and its own API; a drawing is shown as an image of what was answered, in which nothing runs.
POLICY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}
FILES = {
    "/api": ("index.html", "text/html", "tryApi", "A page to try the API"),
    "/api/page.js": ("page.js", "text/javascript", "tryApiScript", "What that page does"),
    "/api/page.css": ("page.css", "text/css", "tryApiStyle", "How that page looks"),
}


def page_endpoints() -> list[Endpoint]:
    """The page's routes."""
    return [
        Endpoint("GET", path, name, about, partial(_file, file, media), "Any", media=(media,))
        for path, (file, media, name, about) in FILES.items()
    ]


def _file(name: str, media: str) -> ResponseReturnValue:
    read_query(())
    text = (files("controller.api") / "page" / name).read_text(encoding="utf-8")
    return Response(text, content_type=f"{media}; charset=utf-8", headers=POLICY)
