"""Take a lab away, whatever state it is in: half made, already gone, with its processes killed."""

from __future__ import annotations

import os
import shutil
import time
from itertools import pairwise
from pathlib import Path

from . import netns as ns
from . import procs
from .run import LabError, run
from .segment import control_interface
from .state import LabState, StateFile, locked_root


def take_down(state: StateFile) -> bool:
    """End the lab's processes, then its namespaces, links and files. Returns False when there was nothing.

    Only what the state file records is touched. Where that cannot be read, it is what has the lab's name: namespaces
    called PREFIX-..., the processes in them, and PREFIXctl.
    """
    if not state.dir.exists():
        return False
    if os.geteuid() != 0:
        raise LabError(f"lab {state.now.prefix!r}: taking it away needs root")
    try:
        lab = state.load()
    except LabError:
        lab = state.now = LabState(state.now.prefix, namespaces=_named_after(state.now.prefix))
    _end_processes(state, lab)
    _remove_network(lab)
    with locked_root():
        _remove_tree(state)
    return True


def _named_after(prefix: str) -> list[str]:
    """The namespaces whose name begins as those of this lab do; no other lab's does."""
    return sorted(path.name for path in ns.NETNS_DIR.glob(f"{prefix}-*"))


def _end_processes(state: StateFile, lab: LabState) -> None:
    """The controller before the hosts, what was recorded, then what lives in the lab's namespaces, QEMU for one."""
    recorded = state.processes()
    procs.end(_controllers(state))
    procs.end(_store_servers(state))
    procs.end(recorded)
    spaces = [ns.path(name) for name in lab.namespaces]
    for _ in range(3):  # a process that was being started may appear after the first look
        if not (left := [*_controllers(state), *_store_servers(state), *procs.inside(spaces)]):
            return
        procs.end(left, grace=0.5)
    raise LabError("processes of the lab keep appearing: " + ", ".join(p.what for p in left))


def _controllers(state: StateFile) -> list[procs.Process]:
    """Controllers on this lab's state, by their words: one whose start was interrupted is written down nowhere."""
    folder = str(state.dir / "controller/state")
    return procs.matching("controller", lambda words: ("--state-dir", folder) in pairwise(words))


def _store_servers(state: StateFile) -> list[procs.Process]:
    """The controller's private ovsdb-server, which outlives a controller that was killed."""
    folder = f"{state.dir}/controller/state/"
    return procs.matching(
        "store", lambda words: Path(words[0]).name == "ovsdb-server" and any(folder in word for word in words)
    )


def _remove_network(lab: LabState) -> None:
    """Delete the namespaces; their interfaces go with them, the root's end of the veth pair by name."""
    control = control_interface(lab.prefix)
    if run(["ip", "link", "show", control], check=False).returncode == 0:
        run(["ip", "link", "del", control], check=False)
    there = [name for name in lab.namespaces if ns.exists(name)]
    run(
        ["ip", "-force", "-batch", "-"],
        input="".join(f"netns del {name}\n" for name in there),
        check=False,
        timeout=120.0,
    )
    if left := [name for name in there if ns.exists(name)]:
        raise LabError(f"namespaces that could not be removed: {' '.join(left)}")


def _remove_tree(state: StateFile) -> None:
    """Remove the run directory; the last mounts on it fade with their namespace, so a busy directory is tried again."""
    deadline = time.monotonic() + 5.0
    while True:
        try:
            shutil.rmtree(state.dir)
            return
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
