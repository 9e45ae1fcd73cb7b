from __future__ import annotations

import io
import time

import pytest
import torch

from holdfast.train.monitor import Monitor


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run(waits: list[float], out: io.StringIO, epochs: int = 3) -> str:
    monitor = Monitor(
        epochs=epochs, steps_per_epoch=1, device=torch.device("cpu"), out=out, remedy="cache=ram"
    )
    for epoch, wait in enumerate(waits):
        monitor.start_epoch(epoch)
        time.sleep(0.01)
        monitor.step(torch.zeros(3), images=4, wait=wait * (time.perf_counter() - monitor._began))
        monitor.report(monitor.end_epoch(), "")
    return out.getvalue()


def test_a_run_that_waits_for_data_says_so_once_and_what_to_do() -> None:
    text = run([0.9, 0.5, 0.5], io.StringIO())
    assert text.count("data-bound") == 1
    assert "of this epoch was spent waiting for images; cache=ram would shorten it" in text
    assert text.index("data-bound") > text.index("epoch 2/3")  # the first epoch fills caches


@pytest.mark.parametrize("waits", [[0.9, 0.1, 0.1], [0.0, 0.0]])
def test_a_run_that_hardly_waits_says_nothing(waits: list[float]) -> None:
    assert "data-bound" not in run(waits, io.StringIO())


def test_a_single_epoch_is_told_too_and_the_live_line_shows_the_wait() -> None:
    text = run([0.6], Terminal(), epochs=1)
    assert "data-bound" in text
    live = text.split("\r")[1]
    assert "data-wait " in live
