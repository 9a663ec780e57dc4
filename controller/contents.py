"""Whether flows on a switch still do what their cookies stand for.

A cookie is a hash of what a flow is to do, and ``ovs-ofctl mod-flows`` changes what it does and leaves the cookie. A
switch describes a flow its own way, with fields in another order and registers in pairs, so its bytes are not those
that it was sent: each flow is decoded once, and from then on known by the bytes that were found right, on whatever
host.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from controller.errors import OpenFlowError
from controller.openflow.decode import scan_contents
from controller.openflow.decode_flow import decode_flow_desc
from controller.pipeline.cookies import is_own
from controller.pipeline.pipeline import Entry

Identity = tuple[int, int]

_MOST = 1 << 18  # flows that are known, some 100 bytes each; past that they are learned anew


class Contents:
    """What flows look like that are right, for all switches. Reading is for a thread beside the loop, or several."""

    def __init__(self) -> None:
        self._right: dict[Identity, int] = {}

    def read(self, body: bytes, wanted: Mapping[Identity, Entry]) -> tuple[set[Identity], set[Identity]]:
        """Ours among the flows of a flow-description reply, and those of them that are not what is wanted by that
        identity. Raises OpenFlowError."""
        found: set[Identity] = set()
        wrong: set[Identity] = set()
        for table, cookie, start, end, content in scan_contents(body):
            if not is_own(cookie):
                continue
            identity = table, cookie
            found.add(identity)
            entry = wanted.get(identity)
            if entry is None or self._right.get(identity) == content:
                continue
            if _does(body[start:end], entry):
                self._know(identity, content)
            else:
                wrong.add(identity)
        return found, wrong

    def _know(self, identity: Identity, content: int) -> None:
        if len(self._right) >= _MOST:
            self._right.clear()
        self._right[identity] = content


def _does(description: bytes, entry: Entry) -> bool:
    """Whether a flow, as a switch describes it, is this one."""
    try:
        [flow] = decode_flow_desc(description)
    except OpenFlowError:
        return False  # what nobody can read is none of ours
    return replace(flow, duration_s=0.0, packets=0, bytes=0) == entry.described()
