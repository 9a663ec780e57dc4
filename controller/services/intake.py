"""Questions of guests to one service: answered as they come while few are asked, and in turns when there are many."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from controller.services.askers import Asker, Vnic
from controller.services.budget import Budget
from controller.services.excess import Excess
from controller.services.turns import Turns

log = logging.getLogger(__name__)

T = TypeVar("T")

_MOST, _MOST_EACH = 1024, 32  # that wait
_TICK = 0.01


class Intake(Generic[T]):
    """Everything on the loop. ``rate`` and ``burst`` are questions a second, and at once, of the whole fleet;
    ``answer`` answers one."""

    def __init__(
        self, service: str, rate: float, burst: float, answer: Callable[[Asker, T], None], excess: Excess
    ) -> None:
        self._service = service
        self._answer = answer
        self._excess = excess
        self._budget = Budget(rate, burst)
        self._turns: Turns[Vnic, tuple[Asker, T]] = Turns(_MOST, _MOST_EACH)
        self._wake = asyncio.Event()

    def put(self, asker: Asker, key: Hashable, question: T) -> None:
        """A question. The last one under a key of this asker is answered."""
        if not self._turns and self._budget.spend(None, time.monotonic()):
            self._answer(asker, question)
            return
        dropped = self._turns.put(asker.vnic, (asker, key), (asker, question))
        self._wake.set()
        if dropped is not None:
            self._excess.note(self._service, dropped)

    async def run(self) -> None:
        """Answers what waits. Until it is cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._turns:
                if self._budget.spend(None, time.monotonic()):
                    self._answer_next()
                    await asyncio.sleep(0)  # others have the loop between any two
                else:
                    await asyncio.sleep(_TICK)

    def _answer_next(self) -> None:
        for asker, question in self._turns.take(1).values():
            try:
                self._answer(asker, question)
            except Exception:
                log.exception("%s: a question of %s is not answered", self._service, asker.port)
