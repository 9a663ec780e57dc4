"""What the docs show of the quickstart's lab is what the commands say there."""

from __future__ import annotations

import pytest
from e2e_fleet import lab_name
from labkit import Lab
from labkit.tour import masked, take


@pytest.mark.lab
def test_the_pages_show_what_their_commands_say() -> None:
    with Lab(lab_name("t"), hosts=2) as lab:
        for page, now in take(lab).items():
            assert page.read_text() == now, "run: scripts/lab tour --write, and read what it says now"


def test_only_what_differs_between_runs_is_masked() -> None:
    first = "h1    up  172.31.3.1   f1ee000000000001  3.1.0  151    3      -\n"
    again = "h1    up  172.31.13.1  f1ee000000000001  3.1.0  97     3      -\n"
    assert masked(first) == masked(again)
    for other in (first.replace("up", "down"), first.replace(" 3  ", " 2  "), first.replace(".1 ", ".2 ")):
        assert masked(other) != masked(first)
    assert masked("as of change 13\ndropped: on h2") == masked("as of change 9\ndropped: on h2")
    assert masked("dropped: on h2") != masked("dropped: on h1")
