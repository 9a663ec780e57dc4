"""Request bodies: bytes from anybody in, validated documents out."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any, NoReturn

import yaml
from flask import request

from controller.api.guard import UNIX
from controller.api.problems import Refused
from controller.errors import InvalidInput, Problem
from controller.model.documents import MAX_NODES, Document, load_objects, load_yaml
from controller.model.kinds import KINDS

MAX_BODY = 8 * 1024 * 1024
MAX_YAML = 1024 * 1024  # PyYAML reads 0.2 MB a second (measured), and no other thread computes meanwhile
MAX_DEPTH = 32

JSON_TYPES = ("application/json",)
YAML_TYPES = ("application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml")
XML_TYPES = ("application/xml", "text/xml")
PLAIN = "text/plain"  # any web page may send it without asking: through the unix socket only


def read_documents() -> list[Document]:
    """The documents of the current request: a JSON object or list of objects, or a YAML stream.

    Raises Refused for what is neither, InvalidInput for what is wrong in it.
    """
    return _read(_objects)


def read_document(kind: str, name: str) -> Document:
    """The one document of a request for this object; a JSON body may leave out what the path says."""

    def complete(value: Any) -> list[Any]:
        return [{"kind": kind, "name": name, **value}] if isinstance(value, dict) else _objects(value)

    found = _read(complete)
    if len(found) != 1 or (found[0].kind, found[0].name) != (kind, name):
        given = ", ".join(f"{document.kind} {document.name}" for document in found[:8])
        raise InvalidInput([Problem("body", f"holds {given}", f"the path names {kind} {name}, and it alone")])
    return found[0]


def read_xml_text() -> str:
    """The XML of the current request, as it was sent. Raises Refused for another type, and for what is not UTF-8."""
    _check_media(XML_TYPES)
    return _text()


def read_targets() -> list[tuple[str, str]]:
    """Kind and name of each object of a JSON body; its other fields are no matter. Raises Refused, InvalidInput."""
    _check_media(JSON_TYPES)
    targets: list[tuple[str, str]] = []
    problems: list[Problem] = []
    for number, item in enumerate(_objects(_parse_json(_text()))):
        kind, name = (item.get("kind"), item.get("name")) if isinstance(item, dict) else (None, None)
        if isinstance(kind, str) and kind in KINDS and isinstance(name, str) and name:
            targets.append((kind, name))
        else:
            problems.append(
                Problem(f"body[{number}]", "names no object", f"kind (one of: {', '.join(KINDS)}) and name")
            )
    if problems:
        raise InvalidInput(problems)
    return list(dict.fromkeys(targets))


def _read(objects_of: Callable[[Any], list[Any]]) -> list[Document]:
    plain = (PLAIN,) if request.environ.get(UNIX) else ()
    if _check_media((*JSON_TYPES, *YAML_TYPES, *plain)) in JSON_TYPES:
        return load_objects(objects_of(_parse_json(_text())))
    return _parse_yaml(_text())


def _check_media(known: Sequence[str]) -> str:
    media = request.mimetype
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "media-type", "the body is compressed", "send it as it is",
                      "Content-Encoding")  # fmt: skip
    if media not in known:
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "media-type", f"content type {media!r:.80} is not understood",
                      f"send one of: {', '.join(known)}", "Content-Type")  # fmt: skip
    return media


def _objects(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _text() -> str:
    data = request.get_data(cache=False)  # refuses what is larger than MAX_BODY
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        _malformed(f"is not UTF-8 at byte {error.start}")


def _parse_yaml(text: str) -> list[Document]:
    if len(text) > MAX_YAML:
        raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large", f"{len(text)} characters of YAML are too many",
                      f"at most {MAX_YAML}; send JSON, as the command line does, or parts", "body")  # fmt: skip
    try:
        return load_yaml(text, "body")
    except InvalidInput as error:
        if _is_yaml(text):
            raise
        _malformed(error.problems[0].what, error.problems[0].where)


def _is_yaml(text: str) -> bool:
    try:
        for _ in yaml.compose_all(text, yaml.SafeLoader):  # not parse: 20,000 brackets keep it busy for 20 s
            pass
    except (yaml.YAMLError, RecursionError):
        return False
    return True


def _parse_json(text: str) -> Any:
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        _malformed(f"is no JSON: {error.msg}", f"body:{error.lineno}")
    except RecursionError:
        _malformed("is nested too deeply")
    except ValueError as error:
        _malformed(f"is no JSON: {error}")
    _check_size(value)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        double = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"an object names {double!r:.80} a second time")
    return found


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def _check_size(value: Any) -> None:
    count = 0
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            item
            for holder in level
            if isinstance(holder, (dict, list))
            for item in (holder.values() if isinstance(holder, dict) else holder)
        ]
        count += len(level)
        if count > MAX_NODES:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large", "the body holds too many values",
                          f"at most {MAX_NODES}; send it in parts", "body")  # fmt: skip
    if level:
        _malformed("is nested too deeply")


def _malformed(what: str, where: str = "body") -> NoReturn:
    raise Refused(HTTPStatus.BAD_REQUEST, "malformed", what, "send one JSON object, a list of them, or YAML", where)
