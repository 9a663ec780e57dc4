"""How soon something is looked at again."""

from __future__ import annotations

from controller.pace import Pace


def test_the_pause_grows_while_it_goes_on_and_is_short_again_after_a_quiet_while() -> None:
    now = 100.0
    pace = Pace(0.05, 5.0, lambda: now)
    pauses = []
    for _ in range(10):
        pace.plan()
        pauses.append(round(pace.left(), 2))
        now += pace.left()
        assert pace.left() == 0
        pace.done()
    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]
    now += 21.0
    pace.plan()
    assert round(pace.left(), 2) == 0.05
