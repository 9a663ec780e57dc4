"""Who is meant in a large fleet: it is looked up on the controller's loop, which nobody else has meanwhile."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from controller.model.port import PortStatus, port_name
from controller.tracing.places import Places


class Counting(dict[str, PortStatus]):
    """Counts the rows that it is asked for."""

    rows = 0

    def _counted(self, found: Iterable[Any]) -> Iterator[Any]:
        for each in found:
            self.rows += 1
            yield each

    def values(self) -> Any:
        return self._counted(super().values())

    def items(self) -> Any:
        return self._counted(super().items())

    def __iter__(self) -> Iterator[str]:
        return self._counted(super().__iter__())

    def get(self, key: str, default: Any = None) -> Any:
        self.rows += 1
        return super().get(key, default)


def vnics(count: int) -> Counting:
    found = Counting()
    for number in range(count):
        uuid, mac = f"00000000-0000-4000-8000-{number // 2:012}", f"52:54:00:00:{number >> 8:02x}:{number & 255:02x}"
        found[port_name(uuid, mac)] = PortStatus(
            vm_uuid=uuid, vm=f"vm{number // 2}", mac=mac, host=f"kvm{number % 4}", ofport=number, network="web",
            state="active",
        )  # fmt: skip
    return found


def test_in_a_fleet_of_any_size_each_row_is_looked_at_a_few_times() -> None:
    found = vnics(400)
    places = Places({}, found)
    source, target = places.pair("vm7", "vm199")
    assert (source.called, target.called) == ("vm7 (52:54:00:00:00:0e)", "vm199 (52:54:00:00:01:8e)")
    assert places.at("kvm3", 399) == places.pair("vm7", "52:54:00:00:01:8f")[1]
    assert places.at("kvm3", 398) is None
    assert found.rows < 40 * len(found)
