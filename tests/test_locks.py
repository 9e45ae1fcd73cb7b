"""A lock is held by one process, and by none that was killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from holdfast.errors import SettingsError
from holdfast.locks import Held, sole
from holdfast.runs import RunLock

HOLDER = """
import sys
from pathlib import Path
from holdfast.locks import sole
with sole(Path(sys.argv[1])):
    print("held", flush=True)
    input()
"""


@contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_one_process_at_a_time_holds_a_lock_and_a_killed_one_none(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with holder(path) as other:
        with pytest.raises(Held, match=f"process {other.pid} on "), sole(path):
            pass
        other.kill()
        other.wait()
        with sole(path):
            assert path.read_text().startswith("process ")
    with sole(path):
        pass  # again


def test_a_folder_that_cannot_be_written_is_no_reason_to_stop(tmp_path: Path) -> None:
    with sole(tmp_path / "gone" / ".lock"):
        pass


def test_a_run_folder_is_refused_while_another_process_trains_in_it(tmp_path: Path) -> None:
    with holder(tmp_path / ".lock"), RunLock() as lock:
        with pytest.raises(SettingsError, match=r"Another process trains in .*\(process \d+ on ") as caught:
            lock.hold(tmp_path)
        assert "holdfast watch" in (caught.value.hint or "")
    with RunLock() as lock:
        lock.hold(tmp_path)
        lock.hold(tmp_path)  # as a run that goes on does
