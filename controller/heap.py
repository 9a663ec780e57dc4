"""The C library's memory, which it keeps apart for threads: calls to libvirt have each a thread of their own."""

from __future__ import annotations

import ctypes

_M_ARENA_MAX = -8  # malloc.h
_ARENAS = 2


def share() -> None:
    """Few arenas for all threads, from now on. By itself glibc makes eight for each processor, and each keeps what its
    threads once needed. Where the C library has no such thing, nothing is done."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, _ARENAS)
