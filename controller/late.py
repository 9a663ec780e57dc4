"""Modules of libraries that are loaded when somebody uses them: os-ken imports every version of OpenFlow, BGP and zebra
for what we need of it, and those are 10 MiB that nothing looks at."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

LATE = frozenset(
    {
        *(f"os_ken.ofproto.ofproto_v1_{minor}_parser" for minor in (0, 2, 3, 4, 5)),
        *(f"os_ken.lib.packet.{name}" for name in ("bgp", "openflow", "zebra")),
    }
)

_LOADING = threading.RLock()


class _LateLoader(Loader):
    """Leaves a module empty until it is asked for a name. importlib's LazyLoader does not do: os-ken lists what its
    modules have (dir), which loads them."""

    def __init__(self, real: Loader) -> None:
        self._real = real

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._real.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        begun: list[str] = []

        def first(name: str) -> Any:
            if name.startswith("__"):  # what anybody asks of any module
                raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
            with _LOADING:  # another thread waits; this one may come again, from what is being loaded
                if not begun:
                    begun.append(name)
                    self._real.exec_module(module)
                    del vars(module)["__getattr__"]
            if name not in vars(module):
                raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
            return vars(module)[name]

        vars(module)["__getattr__"] = first


class _Late(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in LATE:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _LateLoader(spec.loader)
        return spec


def install() -> None:
    """For imports from now on."""
    if not any(isinstance(finder, _Late) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Late())
