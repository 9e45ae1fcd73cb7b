"""What a run shows on terminals, in pipes and log files, and what it records."""

from __future__ import annotations

import io
import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from histories import HEALTHY
from holdfast.errors import Stopped
from holdfast.health.log import NAME, read
from holdfast.health.records import Epoch, Event, Facts, Finding, History, Window
from holdfast.train import monitor as module
from holdfast.train.gauge import breakdown
from holdfast.train.layers import LayerNorms, non_finite_layers
from holdfast.train.monitor import Monitor, Told
from holdfast.train.recorder import Recorder
from terminals import terminal

CPU = torch.device("cpu")


def recorder(folder: Path, *, said: list[str] | None = None, **facts: Any) -> Recorder:
    return Recorder(
        folder, Facts(epochs=3, threads=2, cores=2, **facts), epoch=0, step=0,
        say=[].append if said is None else said.append,
    )  # fmt: skip


def shown(folder: Path, out: io.StringIO, *, epochs: int, steps: int, **more: Any) -> Monitor:
    return Monitor(
        epochs=epochs, steps_per_epoch=steps, device=CPU, out=out, recorder=recorder(folder), **more
    )


def run(monitor: Monitor, waits: list[float], norms: tuple[float, ...] = ()) -> None:
    for epoch, wait in enumerate(waits):
        monitor.start_epoch(epoch, step=epoch)
        time.sleep(0.01)
        share = wait * (time.perf_counter() - monitor._began)
        monitor.step(torch.ones(3), images=4, wait=share, norm=norms[epoch] if norms else None)
        monitor.report(monitor.end_epoch())


def test_a_run_that_waits_for_data_says_so_once_and_what_to_do(tmp_path: Path) -> None:
    out = io.StringIO()
    run(shown(tmp_path, out, epochs=3, steps=1), [0.9, 0.5, 0.5])
    text = out.getvalue()
    assert text.count("data-bound") == 1
    assert "waiting for images; cache=ram (now off) would shorten it (--cache ram)" in text
    assert text.index("data-bound") > text.index("epoch 2/3")  # the first epoch fills caches
    said = [record.rule for record in read(tmp_path / NAME) if isinstance(record, Finding)]
    assert said == ["data-wait"]


@pytest.mark.parametrize("waits", [[0.9, 0.1, 0.1], [0.0, 0.0]])
def test_a_run_that_hardly_waits_says_nothing(waits: list[float], tmp_path: Path) -> None:
    out = io.StringIO()
    run(shown(tmp_path, out, epochs=3, steps=1), waits)
    assert len(out.getvalue().splitlines()) == len(waits)


def test_an_epoch_is_recorded_with_what_was_measured(tmp_path: Path) -> None:
    monitor = shown(tmp_path, io.StringIO(), epochs=2, steps=3, clip_norm=10.0)
    monitor.start_epoch(0)
    monitor.step(torch.tensor([1.0, 2.0, 3.0]), images=4, wait=0.0, norm=8.0)
    monitor.step(None, images=4, wait=0.0, norm=float("nan"))  # left out
    monitor.event("skip", "step 2 left out", skipped=2, layers=["head.box"])
    monitor.step(torch.tensor([2.0, 3.0, 4.0]), images=4, wait=0.0, norm=16.0)
    monitor.report(
        monitor.end_epoch(), metrics={"metrics/mAP50(B)": 0.5}, val_losses=(4.0, 5.0, 6.0), rates=[0.01, 0.1]
    )
    history = History.of(read(tmp_path / NAME))
    (epoch,) = history.epochs
    assert epoch.losses == {"box": 1.5, "cls": 2.5, "dfl": 3.5}
    assert epoch.val_losses == {"box": 4.0, "cls": 5.0, "dfl": 6.0}
    assert (epoch.map50, epoch.rates, epoch.step) == (0.5, (0.01, 0.1), 3)
    assert (epoch.norm, epoch.norm_max, epoch.clipped) == (12.0, 16.0, 0.5)
    assert (epoch.skipped, epoch.faults) == (6, 1)
    assert epoch.rss > 10 * 2**20
    assert epoch.capacity is not None
    assert epoch.rss <= epoch.capacity
    assert epoch.peak is None or epoch.peak > 0.9 * epoch.rss
    (event,) = history.events
    assert (event.what, event.step, event.facts) == ("skip", 2, {"layers": ("head.box",)} | event.facts)


def test_long_epochs_are_recorded_in_windows_and_told_in_log_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RECORDED", 0.0)
    monkeypatch.setattr(module, "PLAIN", 0.0)
    out = io.StringIO()
    monitor = shown(tmp_path, out, epochs=2, steps=3)
    monitor.start_epoch(1, step=3)
    for _ in range(2):
        monitor.step(torch.ones(3), images=4, wait=0.0)
    windows = [record for record in read(tmp_path / NAME) if isinstance(record, Window)]
    assert [(w.epoch, w.step, w.done, w.steps) for w in windows] == [(2, 4, 1, 3), (2, 5, 2, 3)]
    lines = out.getvalue().splitlines()
    assert len(lines) == 2
    told = (
        r"epoch 2/2  2/3  [\d.]+ img/s  00:00 left  box 1.000  cls 1.000  dfl 1.000"
        r"  data-wait 0%  [\d.]+ GiB  ETA 00:00"
    )
    assert re.fullmatch(told, lines[1])
    assert "\x1b" not in out.getvalue()


@pytest.mark.parametrize(("columns", "shared"), [(40, False), (80, False), (160, False), (80, True)])
def test_a_terminal_shows_what_fits(
    columns: int, shared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DRAWN", 0.0)
    with terminal(columns, monkeypatch) as (out, seen):
        with Monitor(
            epochs=2, steps_per_epoch=3, device=CPU, out=out, planned=2**33, shared=shared,
            recorder=recorder(tmp_path),
        ) as monitor:  # fmt: skip
            monitor.start_epoch(0)
            for _ in range(2):
                monitor.step(torch.ones(3), images=4, wait=0.0, rate=0.01)
            print("told [0.3] by a part of the run", file=sys.stdout)
            monitor.say("told by the monitor")
            screen = seen()
            drawn = [line for line in screen if line and not line.startswith("told")]
            assert all(len(line) <= columns for line in drawn)
            assert len(drawn) == (1 if shared else 3)
            assert drawn[0].startswith("epoch 1/2")
            text = "\n".join(drawn)
            assert "2/3" in text
            assert "ETA 0" in text
            assert "box 1.000  cls 1.000  dfl 1.000" in text
            if columns >= 80 and not shared:
                assert "lr 0.01" in text
            assert ("/8.00 GiB" in text) == (columns >= 80 and not shared)
            monitor.end_epoch()
            monitor.validating()
            text = "\n".join(seen())
            assert "validating" in text
            assert "left out" not in text
        assert not [line for line in seen() if "epoch" in line]


def test_a_reader_that_leaves_ends_the_telling_and_not_the_run(tmp_path: Path) -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    run(shown(tmp_path, Broken(), epochs=2, steps=1), [0.0, 0.0])
    closed = io.StringIO()
    monitor = Monitor(epochs=2, steps_per_epoch=1, device=CPU, out=closed)
    closed.close()
    run(monitor, [0.0])
    assert len([record for record in read(tmp_path / NAME) if isinstance(record, Epoch)]) == 2


def test_what_parts_of_a_run_say_is_recorded_even_when_nobody_hears_it(tmp_path: Path) -> None:
    def gone(text: str) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    tell = Told(gone)
    tell("before there is a monitor")
    tell.monitor = shown(tmp_path, io.StringIO(), epochs=1, steps=1)
    tell("out of memory with 8 images at a time")
    assert [record.text for record in read(tmp_path / NAME) if isinstance(record, Event)] == [
        "out of memory with 8 images at a time"
    ]


def test_how_a_run_ended_is_recorded(tmp_path: Path) -> None:
    with Monitor(epochs=1, steps_per_epoch=1, device=CPU, verbose=False, recorder=recorder(tmp_path)):
        pass
    with (
        pytest.raises(Stopped),
        Monitor(epochs=1, steps_per_epoch=1, device=CPU, verbose=False, recorder=recorder(tmp_path)),
    ):
        raise Stopped("Stopped after step 3.", signal=15)
    (event,) = (record for record in read(tmp_path / NAME) if isinstance(record, Event))
    assert (event.what, event.text, event.facts["done"]) == ("end", "Stopped after step 3.", False)


def test_a_disk_that_refuses_records_is_told_once_and_loses_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    said: list[str] = []
    monitor = Monitor(
        epochs=4, steps_per_epoch=1, device=CPU, verbose=False, recorder=recorder(folder, said=said)
    )
    folder.rename(tmp_path / "gone")
    run(monitor, [0.0, 0.0])
    assert len(said) == 1
    assert "health.jsonl cannot be written" in said[0]
    (tmp_path / "gone").rename(folder)
    run(monitor, [0.0, 0.0, 0.0])
    assert [epoch.epoch for epoch in History.of(read(folder / NAME)).epochs] == [1, 2, 3]


def test_a_resumed_run_keeps_its_records_and_says_nothing_twice(tmp_path: Path) -> None:
    first = recorder(tmp_path)
    out = io.StringIO()
    run(Monitor(epochs=3, steps_per_epoch=1, device=CPU, out=out, recorder=first), [0.9, 0.9, 0.9])
    again = Recorder(tmp_path, first.facts, epoch=2, step=2, say=print)
    monitor = Monitor(epochs=3, steps_per_epoch=1, device=CPU, out=out, recorder=again)
    monitor.start_epoch(2, step=2)
    monitor.step(torch.ones(3), images=4, wait=1.0)
    monitor.report(monitor.end_epoch())
    assert out.getvalue().count("data-bound") == 1
    history = History.of(read(tmp_path / NAME))
    assert [epoch.epoch for epoch in history.epochs] == [1, 2, 3]
    assert history.facts.cores == HEALTHY.cores // 4


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4)), nn.Linear(4, 1))


def test_layer_norms_are_those_of_the_step_that_was_asked_for() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    norms = LayerNorms(model, optimizer)

    def step(factor: float) -> None:
        optimizer.zero_grad()
        (factor * model(torch.ones(2, 3))).sum().backward()
        optimizer.step()

    step(1.0)
    assert norms.answer() == {}
    norms.ask()
    step(2.0)
    expected = {name: float(part.weight.grad.norm() ** 2 + part.bias.grad.norm() ** 2) ** 0.5
                for name, part in (("0.0", model[0][0]), ("0.1", model[0][1]))}  # fmt: skip
    step(5.0)
    found = norms.answer()
    assert list(found) == ["0.0", "0.1", "1.weight", "1.bias"]
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-5)


def test_layers_whose_gradient_is_not_finite_are_named() -> None:
    model = net()
    assert non_finite_layers(model) == []
    model(torch.ones(2, 3)).sum().backward()
    assert non_finite_layers(model) == []
    model[0][1].weight.grad[0, 0] = float("inf")
    model[1].bias.grad[0] = float("nan")
    assert non_finite_layers(model) == ["0.1.weight", "1.bias"]


def test_memory_is_accounted_for_by_what_holds_it() -> None:
    model = nn.Linear(1000, 1000, bias=False)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 1000)).sum().backward()
    optimizer.step()
    parts = breakdown(model, optimizer, net(), 5_000, 10_000_000, 40_000_000, 30_000_000)
    one = 4_000_000
    assert (parts.weights, parts.gradients, parts.images) == (one, one, 5_000)
    assert parts.state == pytest.approx(2 * one, abs=100)
    held = parts.weights + parts.state + parts.average + parts.other
    assert held + parts.gradients + parts.images + parts.activations == parts.peak == 40_000_000
    assert held + parts.validation == 30_000_000
