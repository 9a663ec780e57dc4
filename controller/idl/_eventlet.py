"""Imports python-ovs without eventlet.

python-ovs's poller imports eventlet wherever it is installed, and os-ken installs it: 0.3 seconds, a deprecation
warning at every start, and nothing that is used here.
"""

import sys

_missing = object()
_before = sys.modules.get("eventlet", _missing)
sys.modules["eventlet"] = None  # type: ignore[assignment]
try:
    import ovs.poller  # noqa: F401
finally:
    if _before is _missing:
        del sys.modules["eventlet"]
    else:
        sys.modules["eventlet"] = _before  # type: ignore[assignment]
