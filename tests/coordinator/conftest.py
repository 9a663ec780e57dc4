"""Real ovsdb-servers and switches made of bytes are those of the tests of other rooms."""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = Path(__file__).parent.parent
sys.path[:0] = [str(TESTS / room) for room in ("store", "provisioning", "openflow", "hook")]
