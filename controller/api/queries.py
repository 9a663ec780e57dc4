"""Query parameters and conditions of requests: typed, known by name, refused otherwise."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal, NoReturn

from flask import request

from controller.api.problems import Refused

MOST_SECONDS = 600
MOST_ITEMS = 5000
DEFAULT_ITEMS = 500
MOST_COUNT = 10**17 - 1

_FLAGS = {"": True, "1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
GENERATION = r'^(\*|"?[0-9]{1,18}"?)$'  # of If-Match, as the OpenAPI document has it
_GENERATION = re.compile(r'"?(\d{1,18})"?', re.ASCII)
_COUNT = re.compile(r"\d{1,17}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One query parameter, as the routes declare it and the OpenAPI document shows it."""

    name: str
    type: Literal["flag", "seconds", "count", "text"]
    description: str
    choices: tuple[str, ...] = ()
    default: int | None = None
    most: int | None = None
    required: bool = False

    def read(self, text: str) -> bool | float | int | str:
        """The value that the text means. Raises Refused."""
        match self.type:
            case "flag" if text.lower() in _FLAGS:
                return _FLAGS[text.lower()]
            case "seconds" if (seconds := _seconds(text)) is not None:
                return seconds
            case "count" if _COUNT.fullmatch(text) and (self.most is None or int(text) <= self.most):
                return int(text)
            case "text" if not self.choices or text in self.choices:
                return text
        _refuse(self.name, f"{text!r:.80} is not possible", self._remedy())

    def _remedy(self) -> str:
        match self.type:
            case "flag":
                return "1 or 0"
            case "seconds":
                return f"seconds, 0 to {MOST_SECONDS}"
            case "count":
                return "a count" if self.most is None else f"0 to {self.most}"
            case _:
                return f"one of: {', '.join(self.choices)}"


@dataclass(frozen=True, slots=True)
class Query:
    """The parameters of the current request, read."""

    values: Mapping[str, bool | float | int | str] = field(default_factory=dict)

    def flag(self, name: str) -> bool:
        return bool(self.values.get(name, False))

    def number(self, name: str, default: float = 0) -> float:
        return float(self.values.get(name, default))

    def count(self, name: str, default: int) -> int:
        return int(self.values.get(name, default))

    def texts(self) -> dict[str, str]:
        """Those that are filters: every parameter of type text that was given."""
        return {name: value for name, value in self.values.items() if isinstance(value, str)}


def read_query(known: Sequence[Parameter]) -> Query:
    """The current request's query. Raises Refused for a name that is not known, and for a double one."""
    by_name = {parameter.name: parameter for parameter in known}
    values: dict[str, bool | float | int | str] = {}
    for name, texts in request.args.lists():
        if name not in by_name:
            guess = difflib.get_close_matches(name, by_name, 1)
            remedy = f"did you mean {guess[0]}?" if guess else f"known are: {', '.join(by_name) or 'none'}"
            _refuse(f"{name:.80}", "is not known", remedy)
        if len(texts) > 1:
            _refuse(name, "is given twice", "give it once")
        values[name] = by_name[name].read(texts[0])
    for parameter in known:
        if parameter.required and parameter.name not in values:
            _refuse(parameter.name, "is missing", parameter.description)
    return Query(values)


def read_if_match() -> int | None:
    """The generation that the writer had read, from If-Match (RFC 9110, 13.1.1); None when it does not care."""
    text = request.headers.get("If-Match")
    if text is None or text.strip() == "*":
        return None
    if found := _GENERATION.fullmatch(text.strip()):
        return int(found[1])
    raise Refused(HTTPStatus.BAD_REQUEST, "malformed", f"{text!r:.80} is no generation", 'write If-Match: "7"',
                  "If-Match")  # fmt: skip


def select(documents: Iterable[dict[str, Any]], filters: Mapping[str, str]) -> list[dict[str, Any]]:
    """Those whose fields equal all the filters' values, be it what the operator wrote or what was observed."""
    return [item for item in documents if all(_is(item, name, text) for name, text in filters.items())]


def _is(document: Mapping[str, Any], name: str, text: str) -> bool:
    status = document.get("status") or {}
    if name == "vm" and text == status.get("vm_uuid"):
        return True
    return any(_equals(holder.get(name), text) for holder in (document, status))


def _equals(value: object, text: str) -> bool:
    if isinstance(value, Mapping):
        return text == value.get("state") or text in value
    if isinstance(value, (list, tuple)):
        return text in map(_plain, value)
    return value is not None and _plain(value) == text


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _seconds(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and 0 <= value <= MOST_SECONDS else None


def _refuse(name: str, what: str, remedy: str) -> NoReturn:
    raise Refused(HTTPStatus.BAD_REQUEST, "query", f"?{name} {what}", remedy, f"?{name}")
