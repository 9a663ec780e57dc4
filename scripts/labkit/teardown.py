"""Take a lab away, whatever state it is in: half made, already gone, with its processes killed."""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path

from . import netns as ns
from . import procs
from .run import LabError, run
from .segment import control_interface
from .state import LabState, StateFile, locked_root


def take_down(state: StateFile) -> bool:
    """End the lab's processes, then its namespaces, links and files. Returns False when there was nothing.

    Only what the state file records is touched; without a readable one, only the directory goes (nothing was made yet:
    the file is written before the first namespace).
    """
    if not state.dir.exists():
        return False
    with contextlib.suppress(LabError):
        state.load()
    lab = state.now
    _end_processes(state, lab)
    _remove_network(lab)
    with locked_root():
        _remove_tree(state)
    return True


def _end_processes(state: StateFile, lab: LabState) -> None:
    """What was recorded (the controller before the hosts), then what lives in the lab's namespaces, QEMU for one."""
    recorded = state.processes()
    procs.end([process for process in recorded if process.what == "controller"])
    procs.end(_store_server(state))
    procs.end(recorded)
    spaces = [ns.path(name) for name in lab.namespaces]
    for _ in range(3):  # a process that was being started may appear after the first look
        if not (left := procs.inside(spaces)):
            return
        procs.end(left, grace=0.5)
    raise LabError("processes keep appearing in the lab's namespaces: " + ", ".join(p.what for p in left))


def _store_server(state: StateFile) -> list[procs.Process]:
    """The controller's private ovsdb-server, which outlives a controller that was killed."""
    found = []
    for pidfile in (state.dir / "controller").glob("state/**/ovsdb-server.pid"):
        with contextlib.suppress(OSError, ValueError, LabError):  # it ended meanwhile
            pid = int(pidfile.read_text())
            if str(pidfile.parent) in Path(f"/proc/{pid}/cmdline").read_text(errors="replace"):
                found.append(procs.Process.of("store", pid))
    return found


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
