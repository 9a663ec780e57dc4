"""The hook that reports a host's vNICs from inside its libvirt: the script, and what the controller tells it.

It is for hosts to whose libvirt the controller has no connection. It writes into the host's own OVSDB, which the
controller watches already: nothing listens for it, and it needs no secret. See topology/hook.sh, and
topology/hook_reports.py for what it writes.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from importlib.resources import files

from controller.model.network import NetworkSpec
from topology.network_xml import profile_id

MAX_PUBLISHED = 32_768
"""Characters. The script goes through them while a guest starts."""


def hook_script(bridge: str, refuse: bool) -> str:
    """The script for a host with this integration bridge. ``refuse``: turn away a vNIC whose network or portgroup the
    controller does not know."""
    text = files("topology").joinpath("hook.sh").read_text(encoding="utf-8")
    settings = {"BRIDGE=br-int": f"BRIDGE={shlex.quote(bridge)}", "REFUSE=no": f"REFUSE={'refuse' if refuse else 'no'}"}
    lines = [settings.get(line, line) for line in text.splitlines()]
    return "\n".join(lines).replace("remove Bridge BRIDGE", f"remove Bridge {bridge}") + "\n"


def published(networks: Mapping[str, NetworkSpec]) -> str | None:
    """What a vNIC may name, as the script reads it: ``NET:PG NET:PG ...``. None when that would be too long, and the
    script lets everything pass."""
    text = " ".join(
        profile_id(name, group) for name, spec in sorted(networks.items()) for group in spec.portgroup_names()
    )
    return text if len(text) <= MAX_PUBLISHED else None
