"""A network's XML held against libvirt's RELAX NG schema, by libvirt itself: no other library has to be there for it.

What libvirt asks beyond its schema (no MTU in mode bridge, no VLAN without Open vSwitch) is about networks of one host,
and no matter here.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from topology.xml_reader import shown

_PROGRAM = Path(__file__).with_name("network_validator.py")
_SECONDS = 10.0
_AT_ONCE = threading.BoundedSemaphore(2)
_LONGEST = 300

_FROM_XML = 5  # virErrorDomain: the schema's own errors, and those of whoever looks for the schema
_WRONG = frozenset({35, 92})  # virErrorNumber: XML_DETAIL, XML_INVALID_SCHEMA


@dataclass(frozen=True, slots=True)
class SchemaAnswer:
    """``refusal`` is the schema's word against the XML. ``unchecked`` is why nobody held it against the schema."""

    refusal: str = ""
    unchecked: str = ""


def check_schema(xml: str) -> SchemaAnswer:
    """Ask libvirt. Takes some 50 ms, in any thread; never raises."""
    with _AT_ONCE:
        try:
            done = subprocess.run([sys.executable, "-I", str(_PROGRAM)], input=xml.encode(), capture_output=True,
                                  timeout=_SECONDS, check=True)  # fmt: skip
            answer = json.loads(done.stdout)
            code, domain, message = int(answer["code"]), int(answer["domain"]), str(answer["message"])
        except subprocess.TimeoutExpired:
            return SchemaAnswer(unchecked=f"libvirt did not answer in {_SECONDS:.0f} s")
        except (subprocess.SubprocessError, OSError, ValueError, KeyError, TypeError) as error:
            return SchemaAnswer(unchecked=shown(f"libvirt could not be asked: {error}", _LONGEST))
    text = shown(" ".join(message.split()), _LONGEST)
    if code in _WRONG:
        return SchemaAnswer(refusal=text)
    return SchemaAnswer(unchecked=text) if domain == _FROM_XML else SchemaAnswer()
