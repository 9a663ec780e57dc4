from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.fake_fleet import Served


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    running = Served(tmp_path)
    yield running
    running.close()
