"""The translation of our matches and actions into os-ken's is that of the codec's tests."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "openflow"))
