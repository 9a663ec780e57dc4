"""Where one JSON-RPC message ends in a stream of bytes (RFC 7047 section 4: objects follow each other, unseparated).

python-ovs walks the stream a character at a time (3.4 MB/s) and loses a multibyte character that two reads split.
Here a regular expression finds the closing brace in the bytes, where no part of a UTF-8 sequence can look like a brace
or a quote, and the standard library parses what lies between.
"""

from __future__ import annotations

import json
import re
from typing import Any

# Everything up to the next brace, or up to a string that does not end in what has arrived.
_PLAIN = re.compile(rb'[^"{}]*+(?:"(?:[^"\\]++|\\.)*+"[^"{}]*+)*+', re.DOTALL)
_IN_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_SPACE = re.compile(rb"[ \t\r\n]*+")
_QUOTE, _OPEN, _CLOSE = b'"{}'


class FramingError(Exception):
    """The peer sent what is no JSON-RPC message, or too long a one; the text says what."""


class Framer:
    """Cuts a stream into JSON objects. Every byte is looked at a bounded number of times, however it is split."""

    def __init__(self, limit: int) -> None:
        """``limit``: the longest message that is accepted, in bytes."""
        self._limit = limit
        self._buffer = bytearray()
        self._position = 0
        self._depth = 0
        self._in_string = False

    def feed(self, data: bytes) -> None:
        """Adds bytes as they were read."""
        self._buffer += data

    def next(self) -> dict[str, Any] | None:
        """The next whole message, None when more bytes are needed. Raises FramingError; then the stream is lost."""
        end = self._find_end()
        if end is None:
            if len(self._buffer) > self._limit:
                raise FramingError(f"sent a message longer than {self._limit} bytes")
            return None
        if end > self._limit:
            raise FramingError(f"sent a message of {end} bytes, longer than {self._limit}")
        text = bytes(self._buffer[:end])
        del self._buffer[:end]
        self._position = 0
        try:
            message = json.loads(text.decode())
        except (ValueError, RecursionError) as error:
            raise FramingError(f"sent invalid JSON: {error}") from error
        if not isinstance(message, dict):
            raise FramingError("sent JSON that is no object")
        return message

    def _find_end(self) -> int | None:
        buffer, position = self._buffer, self._position
        if not self._depth:
            position = _end(_SPACE, buffer, position)
            if position < len(buffer) and buffer[position] != _OPEN:
                raise FramingError(f"does not speak JSON-RPC: sent {bytes(buffer[position : position + 24])!r}")
        while True:
            if self._in_string:
                position = _end(_IN_STRING, buffer, position)
                if position == len(buffer) or buffer[position] != _QUOTE:
                    break
                self._in_string = False
                position += 1
            position = _end(_PLAIN, buffer, position)
            if position == len(buffer):
                break
            byte = buffer[position]
            position += 1
            if byte == _QUOTE:
                self._in_string = True
            elif byte == _OPEN:
                self._depth += 1
            else:
                self._depth -= 1
                if not self._depth:
                    return position
        self._position = position
        return None


def _end(pattern: re.Pattern[bytes], buffer: bytearray, position: int) -> int:
    match = pattern.match(buffer, position)
    return match.end() if match else position
