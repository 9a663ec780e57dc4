"""Threads share few arenas of the C library's memory."""

from __future__ import annotations

import subprocess
import sys

_TOLD = """
import ctypes, sys, threading
from controller import heap
if sys.argv[1] == "shared":
    heap.share()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
together = threading.Barrier(8)
def take():
    together.wait()
    libc.malloc(1000)
    together.wait()
threads = [threading.Thread(target=take) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc.malloc_stats()
"""


def test_threads_share_two_arenas() -> None:
    assert _arenas("shared") <= 2 < _arenas("apart")


def _arenas(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", _TOLD, how], capture_output=True, text=True, check=True)
    return done.stderr.count("Arena ")
