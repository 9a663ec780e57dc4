"""What was dropped because a guest asked more than its share: counted, and told to the operator once."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from controller.services.askers import Vnic

log = logging.getLogger(__name__)

DHCP, DNS = "DHCP", "DNS"
SERVICES = (DHCP, DNS)
MOST = 256  # guests that are remembered
FORGET_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Dropped:
    """What a vNIC asked in vain; ``last`` is seconds since 1970."""

    service: str
    vnic: Vnic
    count: int
    last: float


class Excess:
    """Of all services. The guest that has been quiet for longest is forgotten first."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._found: dict[tuple[str, str], Dropped] = {}  # the latest stands last
        self.total: Counter[str] = Counter()
        """Of each service, since the start."""

    def note(self, service: str, vnic: Vnic) -> None:
        """Something that a vNIC asked was dropped."""
        now, key = self._clock(), (service, vnic.port)
        self.total[service] += 1
        old = self._found.pop(key, None)
        if old is None or old.last < now - FORGET_SECONDS:
            old = Dropped(service, vnic, 0, now)
            # Where all that are remembered are recent, it may be one that was told before, and was forgotten since.
            if len(self._found) < MOST or next(iter(self._found.values())).last < now - FORGET_SECONDS:
                log.warning("%s: Port %s asks %s more than its share; what is too much is dropped",
                            vnic.host, vnic.port, service)  # fmt: skip
        self._found[key] = replace(old, vnic=vnic, count=old.count + 1, last=now)
        if len(self._found) > MOST:
            del self._found[next(iter(self._found))]

    def recent(self) -> list[Dropped]:
        """Those of the last hour, the latest first."""
        oldest = self._clock() - FORGET_SECONDS
        return [each for each in reversed(self._found.values()) if each.last >= oldest]
