"""Samples made by processes: the same bytes, whatever happens to the processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from holdfast.data import helpers
from holdfast.data.batch import Batch
from holdfast.data.index import Index
from holdfast.data.loader import TrainLoader
from holdfast.data.reader import TrainReader
from holdfast.data.samples import TrainSamples
from holdfast.data.storing import open_store

pytestmark = pytest.mark.skipif(not helpers.POSSIBLE, reason="nameless files in memory are Linux's")


@pytest.fixture
def index(painted: Callable[..., Index]) -> Index:
    sizes = [(48, 64), (64, 48), (64, 64), (40, 80), (96, 72), (50, 51), (33, 90), (64, 20), (90, 90)]
    return painted([(size, [(number % 3, (4, 4, 18, 28))]) for number, size in enumerate(sizes)])


def samples(index: Index, *, timeout: float = 0.0) -> TrainSamples:
    store = open_store("ram", index, use="train", side=64, budget=0.5, folder=Path()).store
    read = TrainReader(index, side=64, store=store, timeout=timeout)
    return TrainSamples(
        index, imgsz=64, seed=3, epochs=10, mixup=0.5, multi_scale=0.5, degrees=9.0, read=read
    )


def content(batch: Batch) -> tuple[bytes, ...]:
    return tuple(t.contiguous().numpy().tobytes() for t in (batch.images, *batch.targets[:3], batch.indices))


def expected(index: Index, epoch: int) -> list[tuple[bytes, ...]]:
    with TrainLoader(samples(index), batch=2, workers=0) as plain:
        return [content(batch) for batch in plain.epoch(epoch)]


def run(loader: TrainLoader, epoch: int) -> list[tuple[bytes, ...]]:
    """All batches, with some made by a process, which must have started."""
    made = []
    for batch in loader.epoch(epoch):
        made.append(content(batch))
        wait_until(lambda: loader._maker._workers._jobs.empty())  # left to the workers
    return made


def wait_until(true: Callable[[], bool]) -> None:
    for _ in range(1500):
        if true():
            return
        time.sleep(0.02)
    raise AssertionError("waited for too long")


def children() -> list[psutil.Process]:
    return [p for p in psutil.Process().children() if "helpers" in " ".join(p.cmdline())]


@pytest.mark.parametrize(("workers", "ahead"), [(0, 1), (1, 1), (4, 3)])
def test_processes_make_the_same_bytes_as_threads(index: Index, workers: int, ahead: int) -> None:
    with TrainLoader(
        samples(index), batch=2, workers=workers, ahead=ahead, processes=True
    ) as loader:
        for epoch in (0, 1):
            assert run(loader, epoch) == expected(index, epoch)
        assert bool(children()) == bool(workers)
    assert not children()


def test_processes_that_are_killed_are_replaced_and_no_sample_changes(index: Index) -> None:
    said: list[str] = []
    with TrainLoader(samples(index), batch=2, workers=2, say=said.append, processes=True) as loader:
        run(loader, 0)
        killed = children()
        for child in killed:
            child.send_signal(signal.SIGKILL)
        assert run(loader, 1) == expected(index, 1)
        assert run(loader, 2) == expected(index, 2)
        assert children()
        assert not {child.pid for child in children()} & {child.pid for child in killed}
    text = "its process was ended by signal 9"
    assert [text in line for line in said] == [True]


def test_a_worker_that_loses_too_many_processes_goes_on_without(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helpers, "MOST_STARTS", 1)
    said: list[str] = []
    with TrainLoader(samples(index), batch=2, workers=1, say=said.append, processes=True) as loader:
        run(loader, 0)
        for child in children():
            child.kill()
        assert run(loader, 1) == expected(index, 1)
        assert run(loader, 2) == expected(index, 2)
        assert not children()
    assert any("1 of its processes were lost, it goes on without" in line for line in said)


def test_faults_and_images_left_out_are_the_same_in_processes(index: Index) -> None:
    Path(index.path(4)).unlink()
    plain, source, said = samples(index), samples(index), []
    with (
        TrainLoader(plain, batch=2, workers=0) as one,
        TrainLoader(source, batch=2, workers=2, say=said.append, processes=True) as loader,
    ):
        for epoch in range(3):
            assert run(loader, epoch) == [content(batch) for batch in one.epoch(epoch)]
            for each in (plain, source):
                each.leave_out([epoch], start=epoch + 1)
    assert len(said) == 1
    assert "004.png: no such image file" in said[0]
    assert list(source.faults.reasons) == [4]


PARENT = """
import sys
sys.path[:0] = sys.argv[2:]
from pathlib import Path
from holdfast.data.index import build_index
from holdfast.data.loader import TrainLoader
from holdfast.data.samples import TrainSamples
index = build_index([Path(sys.argv[1])], names={0: "red", 1: "green", 2: "blue"})
loader = TrainLoader(TrainSamples(index, imgsz=64, epochs=9), batch=2, workers=2, processes=True)
for epoch in range(100000):
    for batch in loader.epoch(epoch):
        pass
    print(epoch, flush=True)
"""


def test_processes_end_with_their_parent_and_a_script_needs_no_guard(index: Index, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(PARENT)
    source = str(Path(helpers.__file__).parents[2])
    command = [sys.executable, str(script), str(Path(index.path(0)).parent), source]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: len(psutil.Process(parent.pid).children()) == 2)
        assert parent.stdout is not None
        assert parent.stdout.readline().strip() == "0"
        ours = psutil.Process(parent.pid).children()
    finally:
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
        parent.stdout.close()
    wait_until(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in ours))


def test_the_kind_of_workers_is_chosen_and_said(index: Index) -> None:
    whole = open_store("ram", index, use="train", side=64, budget=0.5, folder=Path()).store
    assert helpers.choose_kind("auto", workers=2, store=whole)[0]
    assert not helpers.choose_kind("auto", workers=1, store=whole)[0]
    assert helpers.choose_kind("auto", workers=2, store=None) == (False, "2 threads")
    assert helpers.choose_kind("threads", workers=1, store=whole) == (False, "1 thread, as asked")
    chosen, why = helpers.choose_kind("processes", workers=2, store=None)
    assert chosen
    assert "each decodes for itself" in why
    assert not helpers.choose_kind("processes", workers=0, store=whole)[0]


def test_reads_that_hang_are_given_up_in_processes_too(index: Index) -> None:
    os.unlink(index.path(4))
    os.mkfifo(index.path(4))
    said: list[str] = []
    source = samples(index, timeout=0.5)
    with TrainLoader(source, batch=2, workers=2, say=said.append, processes=True) as loader:
        made = [run(loader, epoch) for epoch in (0, 1)]
    os.close(os.open(index.path(4), os.O_RDWR | os.O_NONBLOCK))  # ends reads of this process
    assert len(said) == 1
    assert "004.png: reading did not end in 0.5 s" in said[0]
    os.unlink(index.path(4))
    assert made == [expected(index, epoch) for epoch in (0, 1)]
