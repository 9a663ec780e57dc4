"""A log that whoever connects cannot fill."""

from __future__ import annotations

import logging
import time


class Sparse:
    """Lets ten lines a minute through; what it swallowed is counted in the next one."""

    def __init__(self, log: logging.Logger, per_minute: int = 10) -> None:
        self._log = log
        self._per_minute = per_minute
        self._since = float("-inf")
        self._said = 0
        self._swallowed = 0

    def info(self, text: str, *args: object) -> None:
        self._say(logging.INFO, text, *args)

    def warning(self, text: str, *args: object) -> None:
        self._say(logging.WARNING, text, *args)

    def error(self, text: str, *args: object) -> None:
        self._say(logging.ERROR, text, *args)

    def _say(self, level: int, text: str, *args: object) -> None:
        now = time.monotonic()
        if now - self._since >= 60:
            self._since, self._said = now, 0
        if self._said >= self._per_minute:
            self._swallowed += 1
            return
        self._said += 1
        if self._swallowed:
            text, args, self._swallowed = text + " (%d lines before it left out)", (*args, self._swallowed), 0
        self._log.log(level, text, *args)
