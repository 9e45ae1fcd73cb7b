"""health.jsonl: what is written comes back, resumed runs drop what is done again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from holdfast.health.log import NAME, belonging, read
from holdfast.health.records import Breakdown, Epoch, Event, Facts, Finding, History, Record, Window, to_row
from holdfast.runs import JsonLog

RECORDS = (
    Facts(model="gelan-t", epochs=3, lr0=0.01, object_side=31.5),
    Window(epoch=1, step=2, done=2, steps=5, time=1e9, losses={"box": 1.5}),
    Event(what="skip", text="left out: Bäume", epoch=1, step=3, time=1e9, facts={"layers": ["a", "b"]}),
    Epoch(epoch=1, step=5, losses={"box": 1.25}, rates=(0.01, 0.1), layers={"head.box": 2.5}, rss=2**32 + 1),
    Breakdown(
        weights=1, gradients=2, state=3, average=4, images=5, activations=6, validation=7, other=8, peak=9
    ),
    Finding(rule="data-wait", level="warning", text="t", evidence={"x": [1, 2.5]}, gain=3, epoch=1),
    Event(what="skip", text="later", epoch=2, step=7, time=1e9),
    Epoch(epoch=2, step=10, losses={"box": 1.0}),
    Finding(rule="overfit", level="warning", text="t", epoch=2),
)


def written(folder: Path, records: Sequence[Record] = RECORDS) -> Path:
    log = JsonLog(folder / NAME)
    for record in records:
        log.append(to_row(record))
    return log.path


def plain(records: object) -> str:
    return repr(records).replace("(1, 2.5)", "[1, 2.5]").replace("('a', 'b')", "['a', 'b']")


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    assert plain(read(written(tmp_path))) == plain(list(RECORDS))


def test_numbers_that_are_not_finite_are_null(tmp_path: Path) -> None:
    path = written(tmp_path, [Epoch(epoch=1, losses={"box": math.nan, "cls": 1.0}, norm=math.inf)])
    assert "NaN" not in path.read_text()
    (epoch,) = read(path)
    assert isinstance(epoch, Epoch)
    assert epoch.losses == {"box": None, "cls": 1.0}
    assert epoch.loss is None
    assert epoch.norm is None


def test_a_resumed_run_drops_what_it_will_do_again(tmp_path: Path) -> None:
    records = read(written(tmp_path))
    kept = belonging(records, epoch=1, step=8)  # after epoch 1 and three steps of the next
    assert plain(kept) == plain(list(RECORDS[:7]))
    assert belonging(records, epoch=0, step=0) == []


def test_lines_that_are_cut_or_unknown_are_skipped(tmp_path: Path) -> None:
    path = written(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-9] + b'\n{"kind": "later version"}\n{"kind": "epoch"}\n[1]\n\x00\xff\n')
    assert plain(read(path)) == plain(list(RECORDS[:-1]))


def test_a_history_has_each_epoch_once_and_the_latest_facts() -> None:
    run = History.of([*RECORDS, Facts(model="gelan-s"), Epoch(epoch=2, step=10, rss=7)])
    assert run.facts.model == "gelan-s"
    assert [(epoch.epoch, epoch.rss) for epoch in run.epochs] == [(1, 2**32 + 1), (2, 7)]
    assert len(run.events) == 2
    assert run.breakdown is not None
