from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from controller.cli import main
from tests.api.fake_fleet import Served

Run = Callable[..., Result]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    running = Served(tmp_path)
    yield running
    running.close()


@pytest.fixture
def run(served: Served) -> Run:
    """Runs the command line against the served fleet."""

    def invoke(*words: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(
            main, ["--api", f"unix:{served.socket}", *words], input=stdin, prog_name="fleetswitch"
        )

    return invoke
