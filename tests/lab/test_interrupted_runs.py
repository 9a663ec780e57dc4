"""A run of these tests that is ended leaves nothing behind, however it is ended."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from labkit import wait_for
from labkit.procs import Process, end, matching

REPOSITORY = Path(__file__).parents[2]
PATIENCE = 60.0  # seconds: for what takes six on an idle machine

# A test that waits beside what a test may leave: a server in a session of its own.
WAITS = """
import asyncio
from pathlib import Path
from controller.store import PrivateServer

def test_it_waits():
    async def main():
        server = PrivateServer(Path(__file__).parent / "state")
        await server.start()
        try:
            Path("waits").touch()
            await asyncio.sleep(600)
        finally:
            Path("ends").touch()
            await asyncio.sleep(0.5)
            await server.stop()

    asyncio.run(main())
"""


@contextlib.contextmanager
def run_of_tests(folder: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """pytest on a tree with our conftest.py and that one test."""
    (folder / "tests").mkdir(parents=True)
    shutil.copy(REPOSITORY / "setup.cfg", folder)
    shutil.copy(REPOSITORY / "tests/conftest.py", folder / "tests")
    (folder / "tests/test_waits.py").write_text(WAITS)
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "xdist", *words]
    ours = os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "scripts")))
    environment = {**os.environ, "PYTHONPATH": ours, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    with (folder / "said").open("w") as said:
        run = subprocess.Popen(argv, cwd=folder, env=environment, stdout=said, stderr=said)
    try:
        yield run
    finally:
        run.kill()
        run.wait()
        end(left_of(folder))


def wait_for_file(path: Path) -> None:
    wait_for(str(path), path.exists, PATIENCE)


def left_of(folder: Path) -> list[Process]:
    """What runs on files of this folder."""
    return matching("left", lambda words: any(str(folder) in word for word in words))


def test_sigterm_ends_it_as_ctrl_c_does_and_a_second_does_not_cut_that_short(tmp_path: Path) -> None:
    with run_of_tests(tmp_path) as run:
        wait_for_file(tmp_path / "waits")
        run.terminate()
        wait_for_file(tmp_path / "ends")
        run.terminate()
        assert run.wait(PATIENCE) == pytest.ExitCode.INTERRUPTED, (tmp_path / "said").read_text()
        assert left_of(tmp_path) == []


@pytest.mark.parametrize(("word", "goes_on"), [("nohup", True), ("env --default-signal=HUP", False)])
def test_a_terminal_that_is_closed_ends_what_was_not_begun_with_nohup(word: str, goes_on: bool) -> None:
    program = (
        "import os; from labkit.program import interruptible; interruptible(); os.kill(os.getpid(), 1); print('on')"
    )
    argv = [*word.split(), sys.executable, "-c", program]
    done = subprocess.run(argv, cwd=REPOSITORY / "scripts", capture_output=True, text=True, timeout=PATIENCE)
    assert (done.stdout == "on\n") == goes_on, done.stderr


def test_workers_tear_down_when_who_gives_them_work_is_ended_or_killed(tmp_path: Path) -> None:
    with run_of_tests(tmp_path / "a", "-n", "1") as ended, run_of_tests(tmp_path / "b", "-n", "1") as killed:
        for folder in ("a", "b"):
            wait_for_file(tmp_path / folder / "waits")
        ended.terminate()
        killed.kill()
        wait_for("nothing is left", lambda: not left_of(tmp_path), PATIENCE)
        assert ended.wait(PATIENCE) == pytest.ExitCode.INTERRUPTED, (tmp_path / "a/said").read_text()
        assert (tmp_path / "a/ends").exists()
        assert (tmp_path / "b/ends").exists()
