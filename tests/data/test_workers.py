from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable

import pytest

from holdfast.data.index import Index
from holdfast.data.loader import TrainLoader
from holdfast.data.samples import TrainSamples
from holdfast.data.workers import WorkerLost, Workers


@pytest.fixture
def index(painted: Callable[..., Index]) -> Index:
    return painted([((48, 64), [(number % 3, (4, 4, 20, 28))]) for number in range(12)])


def kill(thread: threading.Thread) -> None:
    """Has a thread end at its next step, whatever it does."""
    number = ctypes.c_ulong(thread.ident or 0)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(number, ctypes.py_object(SystemExit))


def workers_now() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "holdfast-data"]


def test_threads_that_are_killed_are_replaced_and_no_sample_changes(index: Index) -> None:
    source, said = TrainSamples(index, imgsz=64, seed=1, epochs=9), []
    with TrainLoader(source, batch=3, workers=0) as plain:
        expected = [[batch.images.numpy().tobytes() for batch in plain.epoch(e)] for e in range(4)]
    with TrainLoader(source, batch=3, workers=2, say=said.append) as loader:
        made: list[list[bytes]] = []
        known: set[threading.Thread] = set()
        killed: set[threading.Thread] = set()
        for epoch in range(4):
            made.append([])
            for batch in loader.epoch(epoch):
                made[-1].append(batch.images.numpy().tobytes())
                for thread in known - killed:  # each once, and not while it starts
                    kill(thread)
                    killed.add(thread)
                known.update(workers_now())
        assert made == expected
        while any(thread.is_alive() for thread in killed):
            loader._maker._workers.submit(lambda: None)  # wakes those that were hit while they waited
        list(loader.epoch(4))
        assert len(workers_now()) == 2
    assert any("a loader worker ended (SystemExit)" in line for line in said)
    assert len(said) == len(set(said))
    assert not workers_now()


def test_work_of_a_thread_that_ends_breaks_its_promise() -> None:
    workers: Workers[int] = Workers(1)
    workers.tend()

    def leave() -> int:
        raise SystemExit

    with pytest.raises(WorkerLost, match="SystemExit"):
        workers.submit(leave).result()
    after = workers.submit(lambda: 7)
    while not workers.tend():
        pass  # the thread is at its end
    assert after.result() == 7
    workers.close()


def test_work_that_fails_once_is_done_again(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    source, said = TrainSamples(index, imgsz=64, seed=1, epochs=9), []
    expected = [batch.images.numpy().tobytes() for batch in TrainLoader(source, batch=3, workers=0).epoch(0)]
    get, failed = source.get, threading.Event()

    def unlucky(*where: int, **options: object) -> object:
        if threading.current_thread() is threading.main_thread():
            assert failed.wait(30)  # leaves the first sample to the worker
        elif not failed.is_set():
            failed.set()
            raise MemoryError("no room")
        return get(*where, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(source, "get", unlucky)
    with TrainLoader(source, batch=3, workers=1, say=said.append) as loader:
        assert [batch.images.numpy().tobytes() for batch in loader.epoch(0)] == expected
    text = "a loader worker did not bring a sample to its end (MemoryError: no room); it is made again"
    assert said == [text]


def test_closing_drops_work_that_nobody_has_begun() -> None:
    workers: Workers[int] = Workers(1)
    workers.tend()
    go, begun = threading.Event(), threading.Event()

    def wait() -> int:
        begun.set()
        assert go.wait(30)
        return 1

    first = workers.submit(wait)
    assert begun.wait(30)
    second = workers.submit(lambda: 2)
    closing = threading.Thread(target=workers.close)
    closing.start()
    go.set()
    closing.join()
    assert first.result() == 1
    assert second.cancelled() or second.result() == 2
    workers.close()
