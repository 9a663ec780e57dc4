"""Whose a flow is, by the top byte of its cookie."""

from __future__ import annotations

from controller.errors import InvalidInput, Problem

_OWN = 0xF5
_LEARNED = 0xF6
_SHIFT = 56
OWNER_BITS = 0xFF << _SHIFT
_PORT = 0xFFFF
_ARRIVAL = _LEARNED << _SHIFT | 1 << 32  # above every segment's number
ARRIVALS = (_ARRIVAL, ~_PORT & 0xFFFFFFFFFFFFFFFF)  # cookie and mask of all arrivals
_FULL = (1 << 64) - 1


def own_cookie(digest: bytes) -> int:
    """Cookie of one of our flows: 7 bytes of a hash of its content."""
    return _OWN << _SHIFT | int.from_bytes(digest, "big")


def learned_cookie(segment: int, ofport: int = 0) -> int:
    """Cookie of the flows that a switch learns by itself in a segment; behind a vNIC, with its OpenFlow port. Whoever
    learns with a cookie of its own has a limit of its own."""
    return _LEARNED << _SHIFT | ofport << 40 | segment


def learned_of(cookie: int) -> tuple[int, int]:
    """Segment, and OpenFlow port of the learning vNIC (0: an uplink), of a learned cookie that is no arrival's."""
    return cookie & (1 << 32) - 1, cookie >> 40 & _PORT


def behind_port(ofport: int) -> tuple[int, int]:
    """Cookie and mask of all that a switch learns behind a vNIC, in whatever segment."""
    return learned_cookie(0, ofport), _FULL << 32 & _FULL


def next_hop_cookie(segment: int, pool: int) -> int:
    """Cookie of the flows that a switch learns of machines outside, to which it sends what is for elsewhere. Each of
    four ``pool`` has a limit of its own."""
    return _LEARNED << _SHIFT | pool << 34 | 1 << 33 | segment


def arrival_cookie(ofport: int) -> int:
    """Cookie of the flow that a switch learns when a guest that was copied to this OpenFlow port sends from there."""
    return _ARRIVAL | ofport


def arrived_port(cookie: int) -> int | None:
    """The OpenFlow port of an arrival's cookie; None when it is another cookie."""
    return cookie & _PORT if cookie & ~_PORT == _ARRIVAL else None


def is_own(cookie: int) -> bool:
    return cookie >> _SHIFT == _OWN


def is_learned(cookie: int) -> bool:
    return cookie >> _SHIFT == _LEARNED


def read_cookie(text: str) -> int:
    """A cookie as it is written, ``0x…`` or decimal. Raises InvalidInput."""
    try:
        cookie = int(text, 0)
    except ValueError:
        cookie = -1
    if not 0 <= cookie <= _FULL:
        raise InvalidInput([Problem("cookie", f"{text!r:.40} is no cookie", "write 0x and up to 16 hex digits")])
    return cookie
