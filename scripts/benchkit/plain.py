"""A bridge that only does NORMAL, beside the one that is run by fleetswitch, on the same hosts."""

from __future__ import annotations

import re

OURS, PLAIN = "br-int", "br-norm"


def without_uplinks(fleet: str) -> str:
    """The hosts' documents without uplinks: their interfaces are the plain bridges'."""
    return re.sub(r"uplinks:\n(  .*\n)+", "", fleet)
