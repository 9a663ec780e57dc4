"""Places for requests that read a switch: one that hangs keeps its readers waiting, and nobody else."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

from controller.api.problems import Refused

MOST_READING = 8  # in all
MOST_OF_ONE = 3  # of one host


class Readers:
    """Counts who reads which host; every thread of the server may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reading: Counter[str] = Counter()

    @contextmanager
    def reading(self, host: str) -> Iterator[None]:
        """A place while the block runs. Raises Refused, at once, when there is none."""
        with self._lock:
            if self._reading[host] >= MOST_OF_ONE:
                raise _busy(f"{self._reading[host]} requests wait for {host} already")
            if self._reading.total() >= MOST_READING:
                raise _busy(f"{MOST_READING} requests wait for hosts already")
            self._reading[host] += 1
        try:
            yield
        finally:
            with self._lock:
                self._reading[host] -= 1
                if not self._reading[host]:
                    del self._reading[host]


def _busy(what: str) -> Refused:
    return Refused(HTTPStatus.SERVICE_UNAVAILABLE, "busy", what, "ask again later; see how hosts stand: GET /hosts")
