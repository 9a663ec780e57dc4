"""XML that came from a host: read with bounds, and without anything that XML can do beyond elements and attributes.

Who may write to a libvirtd, or runs one, chooses these bytes. So there is a bound for size, depth and number of
elements, and a document type declaration is refused: with it go internal entities (which grow a kilobyte into
gigabytes) and external ones (which read files).
"""

from __future__ import annotations

import re
import uuid as uuids
from collections.abc import Callable
from typing import TypeVar
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from controller.errors import LibvirtError

MAX_CHARACTERS = 1 << 20
"""Of one document. A domain with 32 vNICs and a hundred disks has 100,000."""
MAX_ELEMENTS = 50_000
MAX_DEPTH = 64
MAX_TEXT = 255
"""Of one name or identifier taken from a document."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
T = TypeVar("T")


def read_xml(text: str, root: str, where: str) -> Element:
    """The tree of ``text``, whose root must be the element ``root`` (``{uri}name`` in a namespace).

    Raises LibvirtError at ``where``, whatever the text is.
    """
    if len(text) > MAX_CHARACTERS:
        raise LibvirtError(f"XML of {len(text)} characters, more than {MAX_CHARACTERS}", where=where)
    builder = TreeBuilder()
    parser = expat.ParserCreate(namespace_separator="}")
    depth = elements = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth, elements
        depth += 1
        elements += 1
        if depth > MAX_DEPTH or elements > MAX_ELEMENTS:
            raise LibvirtError(f"XML deeper than {MAX_DEPTH} or of more than {MAX_ELEMENTS} elements", where=where)
        builder.start(_qualified(tag), {_qualified(name): value for name, value in attributes.items()})

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(_qualified(tag))

    def doctype(*_: object) -> None:
        raise LibvirtError("XML with a document type declaration, which libvirt never writes", where=where)

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(text, True)
    except (expat.ExpatError, UnicodeError, LookupError) as error:
        raise LibvirtError(f"malformed XML: {error}", where=where) from None
    tree = builder.close()
    if tree.tag != root:
        raise LibvirtError(f"XML of a <{shown(tree.tag)}>, not of a <{root}>", where=where)
    return tree


def read_identified(text: str, root: str, host: str) -> tuple[Element, str, str, str]:
    """A domain or a network of libvirt's: its tree, its place for errors, its name and its UUID.

    Raises LibvirtError that names ``host`` (empty: none) and what it is.
    """
    place = f"host {host}, {root}" if host else root
    tree = read_xml(text, root, place)
    name = text_value(tree.findtext("name"), "name", place)
    if name is None:
        raise LibvirtError("it has no name", where=place)
    place = f"{place} {name}"
    uuid = parsed(tree.findtext("uuid"), parse_uuid, "uuid", place)
    if uuid is None:
        raise LibvirtError("it has no uuid", where=place)
    return tree, place, name, uuid


def parse_uuid(text: str) -> str:
    """The 36 characters in lower case. libvirt also takes a UUID without hyphens. Raises ValueError."""
    return str(uuids.UUID(text.strip()))


def shown(value: str, longest: int = 80) -> str:
    """``value`` fit for a message or a log line: bounded, and without control characters."""
    text = _CONTROL.sub("?", value[: longest + 1])
    return text if len(text) <= longest else text[: longest - 3] + "..."


def text_value(value: str | None, what: str, where: str) -> str | None:
    """A name or identifier: None when absent or empty. Raises LibvirtError when too long or with control characters."""
    if not value:
        return None
    if len(value) > MAX_TEXT or _CONTROL.search(value):
        raise LibvirtError(f"{what} {shown(value)!r} is too long or holds control characters", where=where)
    return value


def parsed(value: str | None, convert: Callable[[str], T], what: str, where: str) -> T | None:
    """``convert(value)``, None when absent; its ValueError becomes a LibvirtError that names ``what`` and the value."""
    if value is None:
        return None
    try:
        return convert(value)
    except ValueError:
        raise LibvirtError(f"{what} {shown(value)!r} is not valid", where=where) from None


def _qualified(name: str) -> str:
    return "{" + name if "}" in name else name
