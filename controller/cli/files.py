"""Files of documents: read, checked as a whole, and every problem named by file and line."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from controller.errors import InvalidInput, Problem
from controller.model.documents import MAX_BYTES, Document, dump_spec, load_objects, load_yaml

_SUFFIXES = (".yaml", ".yml", ".json")


def read_files(names: Sequence[str]) -> list[Document]:
    """The documents of these files, folders (their .yaml, .yml and .json files) and ``-`` (standard input).

    Raises InvalidInput with the problems of all files.
    """
    documents: list[Document] = []
    problems: list[Problem] = []
    for name in names:
        try:
            for file in _files(name):
                documents += _load(*file)
        except InvalidInput as error:
            problems += error.problems
    problems += _doubles(documents)
    if problems:
        raise InvalidInput(problems)
    return documents


def as_object(document: Document) -> dict[str, Any]:
    """A document as the API takes it."""
    found = {"kind": document.kind, "name": document.name, **dump_spec(document.spec)}
    return found if document.generation is None else {**found, "generation": document.generation}


def title(document: Document) -> str:
    """How messages call it: ``Network web``."""
    return f"{document.kind} {document.name}"


def _files(name: str) -> list[tuple[str, str]]:
    """(source, text) of each file that is meant."""
    if name == "-":
        return [("stdin", _decode("stdin", sys.stdin.buffer.read(MAX_BYTES + 1)))]
    path = Path(name)
    if not path.is_dir():
        return [(name, _text(path))]
    found = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES and file.is_file())
    if not found:
        raise InvalidInput([Problem(name, "holds no file that can be applied", f"put {', '.join(_SUFFIXES)} there")])
    return [(str(file), _text(file)) for file in found]


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InvalidInput(
            [Problem(str(path), f"cannot be read: {error.strerror}", "name a file that may be read")]
        ) from None
    return _decode(str(path), data)


def _decode(source: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InvalidInput([Problem(f"{source}:{line}", "is not UTF-8", "save it as UTF-8")]) from None


def _load(source: str, text: str) -> list[Document]:
    if not source.endswith(".json"):
        return load_yaml(text, source)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidInput(
            [Problem(f"{source}:{error.lineno}", f"is no JSON: {error.msg}", "mend it there, or write YAML")]
        ) from None
    except RecursionError:
        raise InvalidInput([Problem(source, "is nested too deeply", "a document has few levels")]) from None
    return load_objects(value if isinstance(value, list) else [value], source)


def _doubles(documents: Sequence[Document]) -> list[Problem]:
    """Objects that stand in two files; within one file loading found them already."""
    problems = []
    seen: dict[str, str] = {}
    for document in documents:
        first = seen.setdefault(title(document), document.where)
        if first != document.where:
            problems.append(Problem(document.where, f"{title(document)} stands at {first} already", "keep one of them"))
    return problems
