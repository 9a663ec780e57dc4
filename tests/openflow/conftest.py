"""A private Open vSwitch for the tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from openflow_vswitch import Vswitch, running


@pytest.fixture(scope="session")
def vswitch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vswitch]:
    with running(tmp_path_factory.mktemp("ovs")) as switch:
        yield switch
