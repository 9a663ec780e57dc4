"""Bounded reading of bytes that a peer sent: what is malformed raises OpenFlowError, and every loop moves forward."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import wraps
from typing import ParamSpec, TypeVar

from controller.errors import OpenFlowError, PipelineError

P = ParamSpec("P")
R = TypeVar("R")
_TLV = struct.Struct("!HH")


def need(condition: bool, what: str) -> None:
    """Raises OpenFlowError unless the condition holds."""
    if not condition:
        raise OpenFlowError(what, where="OpenFlow message")


def strict(decoder: Callable[P, R]) -> Callable[P, R]:
    """Makes a decoder raise OpenFlowError for whatever its input does to it."""

    @wraps(decoder)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return decoder(*args, **kwargs)
        except (struct.error, ValueError, IndexError, OverflowError, PipelineError) as error:
            raise OpenFlowError(f"malformed: {error}", where=f"{decoder.__name__}") from error

    return checked


def tlvs(data: bytes, start: int, end: int, *, padded: bool, what: str) -> Iterator[tuple[int, int, int]]:
    """Type, offset of the element (its 4-byte header included) and end of each element of a list.

    ``padded`` lists round every element up to 8 bytes; the rounding may be missing behind the last one.
    """
    need(end <= len(data), f"{what} runs out of the message")
    while start < end:
        need(end - start >= 4, f"{what}: {end - start} bytes are left over")
        kind, size = _TLV.unpack_from(data, start)
        need(4 <= size <= end - start, f"{what}: element of length {size} where {end - start} bytes are left")
        yield kind, start, start + size
        start += (size + 7) // 8 * 8 if padded else size
