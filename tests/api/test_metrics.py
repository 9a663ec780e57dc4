"""What Prometheus reads: its format to the letter, every series bounded, and every metric on its page."""

from __future__ import annotations

import math
import os
import re
import resource
import time
from pathlib import Path

import pytest

from controller.api.exposition import MEDIA_TYPE, Metric, exposition
from controller.api.metrics import METRICS
from tests.api.fake_fleet import Served
from tests.api.http_talk import ask
from tests.api.prometheus_text import Family, read

IMPORTED = time.time()
PAGE = Path(__file__).parents[2] / "docs/metrics.md"


def scrape(served: Served) -> dict[str, Family]:
    answer = ask(served.port, "GET", "/metrics")
    assert (answer.status, answer.headers["content-type"]) == (200, MEDIA_TYPE)
    return read(answer.body.decode())


def test_texts_and_numbers_come_through_as_they_are() -> None:
    odd = 'a "b"\\ \n{c="d",} é'
    gauge = Metric("some_gauge", "gauge", "one \\ two\nthree", ("first", "second"))
    spread = Metric("some_spread", "histogram", "sizes")
    samples = [gauge.at(0.1, odd, ""), *spread.spread({0.5: 1, math.inf: 3}, 2.25), gauge.at(-(2**40), "x", odd)]
    found = read("".join(exposition(samples)))
    assert [*found] == ["some_gauge", "some_spread"], "one metric's series stand together"
    assert found["some_gauge"].about == r"one \\ two\nthree"
    assert found["some_gauge"].value(first=odd, second="") == 0.1
    assert found["some_gauge"].value(first="x", second=odd) == -(2**40)
    assert found["some_spread"].samples == {("_bucket", (("le", "0.5"),)): 1, ("_bucket", (("le", "+Inf"),)): 3,
                                            ("_sum", ()): 2.25, ("_count", ()): 3}  # fmt: skip


@pytest.mark.parametrize("name", ["Big", "9lives", "with-hyphen", "", "a\nb"])
def test_what_prometheus_would_not_take_as_a_name_is_no_metric(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name"):
        Metric(name, "gauge", "about")


def test_requests_are_counted_by_operation_and_status_however_many_paths_are_tried(served: Served) -> None:
    for name in ("one", "two", "three"):
        assert ask(served.port, "GET", f"/api/v1/networks/{name}").status == 404
        assert ask(served.port, "GET", f"/{name}").status == 404
        assert ask(served.port, "DELETE", f"/api/v1/networks/{name}").status == 403
    requests = scrape(served)["fleetswitch_http_requests_total"]
    assert requests.value(operation="getNetwork", status="404") == 3
    assert requests.value(operation="deleteNetwork", status="403") == 3
    assert requests.value(operation="none", status="404") == 3
    assert len(requests.samples) == 3
    assert scrape(served)["fleetswitch_http_requests_total"].value(operation="metrics", status="200") == 1


def test_the_process_is_told_by_what_the_system_says_of_it(served: Served) -> None:
    found = scrape(served)
    assert abs(found["process_open_fds"].value() - len(os.listdir("/proc/self/fd"))) < 10
    assert found["process_max_fds"].value() == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert abs(found["process_threads"].value() - len(os.listdir("/proc/self/task"))) < 10
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    assert 0.5 < found["process_resident_memory_bytes"].value() / (int(status["VmRSS"].split()[0]) * 1024) < 2
    assert IMPORTED - 3600 < found["process_start_time_seconds"].value() < IMPORTED + 1
    assert 0 < found["process_cpu_seconds_total"].value() <= sum(os.times()[:2]) + 0.1


def test_the_page_tells_of_every_metric_what_it_tells_of_itself() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \| (.*?) \|$", PAGE.read_text(), re.MULTILINE)
    known = [(one.name, one.kind, ", ".join(one.labels), one.about) for one in METRICS]
    table = "\n".join(f"| `{name}` | {kind} | {labels} | {about} |" for name, kind, labels, about in known)
    assert [tuple(row) for row in rows] == known, f"the table of {PAGE.name} should be\n{table}"


def test_names_say_units_and_counters_as_prometheus_wants_them() -> None:
    assert len({one.name for one in METRICS}) == len(METRICS)
    assert all(one.name.endswith("_total") == (one.kind == "counter") for one in METRICS)
