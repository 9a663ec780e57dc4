"""The route ``/metrics``: the controller and its hosts, what was asked, and how the process does."""

from __future__ import annotations

import os
import resource
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from flask import Flask, Response, request
from flask.typing import ResponseReturnValue

from controller.api import metrics as m
from controller.api.endpoints import Endpoint
from controller.api.exposition import MEDIA_TYPE, Sample, exposition
from controller.api.operations import Operations
from controller.api.queries import read_query

Call = Callable[[Coroutine[Any, Any, Any]], Any]


class MetricsRoutes:
    """The view over ``Operations.metrics``, and the requests to ``app`` counted."""

    def __init__(self, call: Call, operations: Operations, app: Flask) -> None:
        self._call = call
        self._operations = operations
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        app.after_request(self._count)

    def endpoints(self) -> list[Endpoint]:
        about = "Numbers for Prometheus, in its text format"
        return [Endpoint("GET", "/metrics", "metrics", about, self.metrics, "Any", media=("text/plain",))]

    def metrics(self) -> ResponseReturnValue:
        read_query(())
        samples: list[Sample] = self._call(self._operations.metrics())
        with self._lock:
            requests = sorted(self._requests.items())
        samples += [m.REQUESTS.at(count, operation, str(status)) for (operation, status), count in requests]
        return Response("".join(exposition([*samples, *_process()])), content_type=MEDIA_TYPE)

    def _count(self, response: Response) -> Response:
        with self._lock:
            self._requests[request.endpoint or "none", response.status_code] += 1
        return response


def _process() -> Iterator[Sample]:
    """Of this process (proc(5)), by the names that Prometheus's own clients use."""
    with open("/proc/self/stat", encoding="ascii", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()  # the name of the program may hold anything
    user, system, threads, start, pages = (int(fields[number - 3]) for number in (14, 15, 20, 22, 24))
    ticks = os.sysconf("SC_CLK_TCK")
    yield m.MEMORY.at(pages * os.sysconf("SC_PAGE_SIZE"))
    yield m.CPU.at((user + system) / ticks)
    yield m.START.at(time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + start / ticks)
    yield m.DESCRIPTORS.at(len(os.listdir("/proc/self/fd")) - 1)  # one is for this look
    yield m.MOST_DESCRIPTORS.at(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    yield m.THREADS.at(threads)
