"""What os-ken imports and nobody uses is not loaded, and is there for whoever does use it."""

from __future__ import annotations

import subprocess
import sys

from controller.late import LATE

_TOLD = """
import sys
import controller.daemon
from controller.late import LATE
assert LATE <= sys.modules.keys()
loaded = [name for name in LATE if "__getattr__" not in vars(sys.modules[name])]
assert not loaded, loaded
from os_ken.lib.packet import bgp
assert bgp.BGPKeepAlive().serialize()[18] == 4
from os_ken.ofproto import ofproto_v1_3_parser
assert ofproto_v1_3_parser.OFPHello
"""


def test_what_nobody_uses_is_loaded_by_its_first_use() -> None:
    assert LATE
    done = subprocess.run([sys.executable, "-c", _TOLD], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
