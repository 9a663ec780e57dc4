"""YAML documents in, validated objects out; every problem with its file, line and field."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from controller.errors import InvalidInput, Problem
from controller.model.fields import ObjectName, ProfilePart, Spec
from controller.model.kinds import KINDS, PROFILE_NAMED

MAX_BYTES = 4 * 1024 * 1024
MAX_NODES = 200_000  # aliases of aliases grow without bound in few bytes

_RESERVED = ("kind", "name", "generation", "status")
_NAMES: Mapping[bool, TypeAdapter[str]] = {False: TypeAdapter(ObjectName), True: TypeAdapter(ProfilePart)}

_ABOUT_YAML = "write FIELD: VALUE lines, lists as [a, b], and texts that hold signs in quotes"

_Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """One object that is wanted. ``generation`` is what its writer had read, or None when the writer does not care."""

    kind: str
    name: str
    spec: Spec
    generation: int | None = None
    where: str = ""


def load_yaml(text: str, source: str) -> list[Document]:
    """The documents of a YAML stream; ``source`` is how errors call it (a file's name).

    Raises InvalidInput with every problem of every document.
    """
    if len(text) > MAX_BYTES:
        raise InvalidInput([Problem(source, f"{len(text)} bytes are too many", f"at most {MAX_BYTES}; split it")])
    problems: list[Problem] = []
    documents: list[Document] = []
    reader = _Reader(source)
    try:
        loader = yaml.SafeLoader(text)
        while loader.check_node():
            node = loader.get_node()
            item = reader.value(loader, node) if node is not None else None
            if item is not None:  # nothing stands between two lines of ---
                _read(item, reader.lines, source, documents, problems)
            reader.lines = {}
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise InvalidInput([Problem(f"{source}:{line}", f"is no YAML: {error.problem}", _ABOUT_YAML)]) from None
    except yaml.YAMLError as error:
        raise InvalidInput([Problem(source, f"is no YAML: {error}", _ABOUT_YAML)]) from None
    except RecursionError:
        raise InvalidInput([Problem(source, "is nested too deeply", "a document has few levels")]) from None
    _refuse_doubles(documents, problems)
    if not documents and not problems:
        problems.append(Problem(source, "holds no document", "write kind: and name: and the object's fields"))
    if problems:
        raise InvalidInput(problems)
    return documents


def load_objects(objects: Sequence[object], source: str = "body") -> list[Document]:
    """The same for objects that were parsed already (a REST body). Raises InvalidInput."""
    problems: list[Problem] = []
    documents: list[Document] = []
    for number, item in enumerate(objects):
        _read(item, {}, source if len(objects) == 1 else f"{source}[{number}]", documents, problems)
    _refuse_doubles(documents, problems)
    if problems:
        raise InvalidInput(problems)
    return documents


def read_spec(kind: str, name: str, spec: Mapping[str, Any]) -> Spec:
    """A spec as it stands in the store. Raises InvalidInput when somebody wrote nonsense there."""
    try:
        return KINDS[kind].model_validate(spec)
    except ValidationError as error:
        raise InvalidInput([_problem(f"{kind} {name}", KINDS[kind], item) for item in error.errors()]) from None


def dump_spec(spec: Spec) -> dict[str, Any]:
    """What the operator wrote, without defaults, as plain JSON values."""
    return spec.model_dump(mode="json", exclude_defaults=True)


class _Reader:
    """Builds plain values from YAML nodes and remembers the line of each."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._count = 0
        self.lines: dict[_Path, int] = {}

    def value(self, loader: yaml.SafeLoader, node: yaml.Node, path: _Path = ()) -> Any:
        self._count += 1
        if self._count > MAX_NODES:
            raise InvalidInput([Problem(self._source, "holds too many values", f"at most {MAX_NODES}; split it")])
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(loader, node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(loader, item, (*path, number)) for number, item in enumerate(node.value)]
        try:
            return loader.construct_object(node)
        except (ValueError, LookupError, AttributeError):  # what PyYAML lets out for tags such as !!int ''
            raise InvalidInput([self._at(node, f"is no value: {node.value!r:.60}", "put it in quotes")]) from None

    def _mapping(self, loader: yaml.SafeLoader, node: yaml.MappingNode, path: _Path) -> dict[Any, Any]:
        result: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = self.value(loader, key_node, (*path, f"({len(result)})"))
            if isinstance(key, (dict, list)):
                raise InvalidInput([self._at(key_node, "uses a list or mapping as a key", "write a name")])
            if key in result:
                raise InvalidInput([self._at(key_node, f"names {key!r} a second time", "keep one of them")])
            self.lines[(*path, key)] = key_node.start_mark.line + 1
            result[key] = self.value(loader, value_node, (*path, key))
        return result

    def _at(self, node: yaml.Node, what: str, remedy: str = "") -> Problem:
        return Problem(f"{self._source}:{node.start_mark.line + 1}", what, remedy)


def _read(
    item: object, lines: Mapping[_Path, int], source: str, documents: list[Document], problems: list[Problem]
) -> None:
    """Append the Document that ``item`` is, or its problems."""
    place = f"{source}:{lines[()]}" if lines else source
    if not isinstance(item, dict):
        problems.append(Problem(place, f"is no object but {item!r:.60}", "write kind: and name: and the fields"))
        return
    kind = item.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        guess = difflib.get_close_matches(str(kind).capitalize(), KINDS, 1)
        remedy = f"did you mean {guess[0]}?" if guess else f"one of: {', '.join(KINDS)}"
        problems.append(Problem(_line(place, source, lines, ("kind",)), f"kind {kind!r} is not known", remedy))
        return
    name = item.get("name")
    try:
        if not isinstance(name, str):
            raise TypeError
        _NAMES[kind in PROFILE_NAMED].validate_python(name)
    except TypeError:
        problems.append(
            Problem(_line(place, source, lines, ("name",)), f"name {name!r} is no text", "put it in quotes")
        )
        return
    except ValidationError as error:
        problems.append(Problem(_line(place, source, lines, ("name",)) + f": {kind}: name", *_words(error.errors()[0])))
        return
    generation = item.get("generation")
    if generation is not None and (not isinstance(generation, int) or isinstance(generation, bool) or generation < 0):
        problems.append(Problem(place, f"{kind} {name}: generation {generation!r} is no count", "leave it out"))
        return
    fields = {key: value for key, value in item.items() if key not in _RESERVED}
    try:
        spec = KINDS[kind].model_validate(fields)
    except ValidationError as error:
        for detail in error.errors():
            line = _line(place, source, lines, detail["loc"])
            problems.append(_problem(f"{line}: {kind} {name}", KINDS[kind], detail))
        return
    documents.append(Document(kind, name, spec, generation, place))


def _line(place: str, source: str, lines: Mapping[_Path, int], path: Sequence[str | int]) -> str:
    """``file:line`` of the deepest part of the path that the text has."""
    for length in range(len(path), 0, -1):
        if (found := lines.get(tuple(path[:length]))) is not None:
            return f"{source}:{found}"
    return place


def _problem(where: str, model: type[Spec], detail: Any) -> Problem:
    path = ".".join(str(part) for part in detail["loc"] if part != "[key]")
    what, remedy = _words(detail, model)
    return Problem(f"{where}: {path}" if path else where, what, remedy)


def _words(detail: Any, model: type[Spec] | None = None) -> tuple[str, str]:
    """pydantic's finding in the operator's words: what is wrong, and the remedy."""
    given = detail.get("input")
    match detail["type"]:
        case "missing":
            return "is missing", "every such object needs it"
        case "extra_forbidden":
            known = list(model.model_fields) if model is not None and len(detail["loc"]) == 1 else []
            guess = difflib.get_close_matches(str(detail["loc"][-1]), known, 1)
            remedy = (
                f"did you mean {guess[0]}?" if guess else f"known are: {', '.join(known)}" if known else "leave it out"
            )
            return "is not known", remedy
        case "value_error":
            text = str(detail["ctx"]["error"])
            what, _, remedy = text.rpartition("; ")  # the value, which comes before, may hold one
            return (what, remedy) if what else (remedy, "")
        case "literal_error":
            return f"{given!r} is not allowed", f"one of: {detail['ctx']['expected']}"
        case _:
            return f"{given!r:.60} is not possible", re.sub("^Input", "it", detail["msg"])


def _refuse_doubles(documents: Sequence[Document], problems: list[Problem]) -> None:
    seen: dict[tuple[str, str], str] = {}
    for document in documents:
        first = seen.setdefault((document.kind, document.name), document.where)
        if first != document.where:
            problems.append(Problem(document.where, f"{document.kind} {document.name} stands at {first} already",
                                    "keep one of them"))  # fmt: skip
