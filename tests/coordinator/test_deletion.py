"""Deleting what somebody else has changed meanwhile, by force, or only to see."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from coordinated import Fleet, coordinated, documents
from ovsdb_servers import run

from controller.errors import Conflict
from controller.model.documents import Document
from controller.store.rows import Put

HOST = "{{kind: Host, name: kvm1, ovsdb: 'tcp:192.0.2.1:6640', libvirt: 'qemu+tcp://192.0.2.1/system', lldp: {}}}"


async def changed_twice(fleet: Fleet) -> None:
    await fleet.apply(HOST.format("true"))
    await fleet.apply(HOST.format("false"))
    assert fleet.store.rows("Host")["kvm1"].generation == 2


def read_at(generation: int) -> list[Document]:
    return [replace(document, generation=generation) for document in documents(HOST.format("true"))]


def test_a_writer_that_has_read_an_older_generation_deletes_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with coordinated(tmp_path) as fleet:
            await changed_twice(fleet)
            for force in (False, True):
                for dry_run in (True, False):
                    with pytest.raises(Conflict, match="generation 1 was read, but it has generation 2 now"):
                        await fleet.operations.delete([("Host", "kvm1")], 1, force, dry_run)
            assert not fleet.store.rows("Host")["kvm1"].deleting
            await fleet.operations.delete([("Host", "kvm1")], 2, False, True)
            assert not fleet.store.rows("Host")["kvm1"].deleting
            await fleet.operations.delete([("Host", "kvm1")], 2, False, False)
            assert fleet.store.rows("Host")["kvm1"].deleting

    run(main())


def test_a_dry_run_is_refused_as_the_change_would_be(tmp_path: Path) -> None:
    async def main() -> None:
        async with coordinated(tmp_path) as fleet:
            await changed_twice(fleet)
            for generation in (0, 1):
                with pytest.raises(Conflict):
                    await fleet.operations.apply(read_at(generation), dry_run=True)
            await fleet.operations.apply(read_at(2), dry_run=True)
            assert fleet.store.rows("Host")["kvm1"].generation == 2

    run(main())


def test_force_that_was_refused_or_taken_back_leaves_no_trace(tmp_path: Path) -> None:
    """Whoever deletes the host later without force has its libvirt waited for."""

    async def main() -> None:
        async with coordinated(tmp_path) as fleet:
            await changed_twice(fleet)
            # Somebody is quicker than the deletion, after it was checked.
            commit = fleet.store.commit

            async def too_late(*writes: object, **how: object) -> list[int]:
                fleet.store.commit = commit  # type: ignore[method-assign]
                await commit([Put("Host", "kvm1", {"ovsdb": "tcp:192.0.2.1:6640"})])
                return await commit(*writes, **how)  # type: ignore[arg-type]

            fleet.store.commit = too_late  # type: ignore[assignment,method-assign]
            with pytest.raises(Conflict):
                await fleet.operations.delete([("Host", "kvm1")], 2, True, False)
            assert fleet.coordinator.driver._forced == set()

    run(main())
