"""All that a lab has on the machine, to tell that nothing of it stays."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from labkit.state import ROOT


def traces(name: str) -> list[str]:
    """All that a lab of this name has on the machine, as text; other labs' things do not count."""
    found = [f"dir {ROOT / name}"] if (ROOT / name).exists() else []
    if Path("/run/netns").exists():
        found += [f"netns {path.name}" for path in Path("/run/netns").iterdir() if path.name.startswith(f"{name}-")]
    found += [f"link {path.name}" for path in Path("/sys/class/net").iterdir() if path.name == f"{name}ctl"]
    found += [
        f"mount {line}"
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if f"/{name}/" in line or f"/{name}-" in line
    ]
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if f"{ROOT}/{name}/" in command:
                found.append(f"process {entry.name} {command[:100]}")
    return found


@contextmanager
def nothing_left(name: str) -> Iterator[None]:
    assert traces(name) == []
    yield
    assert traces(name) == []
