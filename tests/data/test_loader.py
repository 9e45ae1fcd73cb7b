from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch

from holdfast.data.eval_samples import EvalSamples
from holdfast.data.index import Index
from holdfast.data.loader import EvalLoader, TrainLoader
from holdfast.data.samples import TrainSamples


@pytest.fixture
def index(painted: Callable[..., Index]) -> Index:
    sizes = [(48, 64), (64, 48), (64, 64), (40, 80), (96, 72), (50, 51), (33, 90)]
    return painted([(size, [(number % 3, (4, 4, 20, 28))]) for number, size in enumerate(sizes)])


def samples(index: Index, **changes: object) -> TrainSamples:
    options: dict[str, object] = {
        "imgsz": 64,
        "seed": 3,
        "epochs": 10,
        "mixup": 0.5,
        "degrees": 5.0,
        "scale": 0.5,
    }
    return TrainSamples(index, **{**options, **changes})  # type: ignore[arg-type]


def content(batch: object) -> tuple[bytes, ...]:
    return tuple(t.contiguous().numpy().tobytes() for t in (batch.images, *batch.targets[:3], batch.indices))  # type: ignore[attr-defined]


@pytest.mark.parametrize("ahead", [1, 2, 7])
@pytest.mark.parametrize("workers", [0, 1, 4])
def test_batches_are_byte_identical_for_any_number_of_workers_and_any_prefetch(
    index: Index, workers: int, ahead: int
) -> None:
    with (
        TrainLoader(samples(index), batch=2, workers=0) as plain,
        TrainLoader(samples(index), batch=2, workers=workers, ahead=ahead) as other,
    ):
        for epoch in (0, 1):
            ours, theirs = list(plain.epoch(epoch)), list(other.epoch(epoch))
            assert len(ours) == len(theirs) == len(plain) == 4
            assert [content(batch) for batch in ours] == [content(batch) for batch in theirs]


def test_a_prefetch_of_nothing_is_refused(index: Index) -> None:
    with pytest.raises(ValueError, match="ahead must be 1 or more, got 0"):
        TrainLoader(samples(index), batch=2, workers=1, ahead=0)


def test_a_sample_does_not_depend_on_the_batch(index: Index) -> None:
    alone = samples(index).get(2, 4)
    with TrainLoader(samples(index), batch=7, workers=2) as loader:
        (batch,) = loader.epoch(2)
    at = batch.indices.tolist().index(4)
    assert np.array_equal(batch.images[at].permute(1, 2, 0).numpy(), alone.image)
    assert np.array_equal(batch.targets.boxes[batch.targets.image == at].numpy(), alone.boxes)


def test_who_waits_for_a_batch_makes_samples_of_it(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    source, helped, here = samples(index), threading.Event(), threading.current_thread()
    get = source.get

    def slow_in_workers(*where: int, **options: object) -> object:
        if threading.current_thread() is here:
            helped.set()
        else:
            assert helped.wait(30)  # would end in an error if nobody helped
        return get(*where, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(source, "get", slow_in_workers)
    with TrainLoader(source, batch=7, workers=1) as loader:
        assert [sorted(batch.indices.tolist()) for batch in loader.epoch(0)] == [list(range(7))]


def test_every_image_comes_once_per_epoch_and_the_order_changes(index: Index) -> None:
    with TrainLoader(samples(index), batch=2, workers=0) as loader:
        orders = [[i for batch in loader.epoch(epoch) for i in batch.indices.tolist()] for epoch in range(3)]
    assert all(sorted(order) == list(range(7)) for order in orders)
    assert len({tuple(order) for order in orders}) > 1


def test_resuming_in_the_middle_gives_the_remaining_batches(index: Index) -> None:
    with TrainLoader(samples(index), batch=2, workers=1) as loader:
        whole = [content(batch) for batch in loader.epoch(1)]
        assert [content(batch) for batch in loader.epoch(1, start=2)] == whole[2:]
        assert list(loader.epoch(1, start=4)) == []


def test_images_are_uint8_channels_last_without_a_copy(index: Index) -> None:
    with TrainLoader(samples(index), batch=4, workers=1) as loader:
        first, last = loader.epoch(0)
    assert first.images.shape == (4, 3, 64, 64)
    assert last.images.shape == (3, 3, 64, 64)  # the last batch may be short
    assert first.images.dtype == torch.uint8
    assert first.images.is_contiguous(memory_format=torch.channels_last)
    assert first.targets.image.tolist() == sorted(first.targets.image.tolist())
    assert first.targets.boxes.dtype == torch.float32
    assert len(first.paths) == 4
    assert first.letterboxes is None


def test_background_only_batches_have_empty_targets(painted: Callable[..., Index]) -> None:
    index = painted([((64, 64), []), ((64, 64), []), ((64, 64), [(0, (1, 1, 9, 9))])])
    with TrainLoader(samples(index, mosaic=0.0), batch=1, workers=0) as loader:
        shapes = {tuple(batch.targets.boxes.shape) for batch in loader.epoch(0)}
    assert (0, 4) in shapes


@pytest.mark.parametrize("workers", [0, 2])
def test_unexpected_errors_come_back_as_they_are(
    index: Index, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = samples(index)
    monkeypatch.setattr(broken, "get", lambda *_args, **_options: 1 / 0)
    with TrainLoader(broken, batch=2, workers=workers) as loader, pytest.raises(ZeroDivisionError) as caught:
        list(loader.epoch(0))
    if hasattr(caught.value, "__notes__"):
        assert ".png" in caught.value.__notes__[0]


def test_leaving_early_and_closing_ends_all_threads(index: Index) -> None:
    before = threading.active_count()
    loader = TrainLoader(samples(index), batch=1, workers=3)
    for _ in loader.epoch(0):
        break
    assert len(list(loader.epoch(1))) == 7  # still usable
    assert before < threading.active_count() <= before + 3
    loader.close()
    assert threading.active_count() == before
    loader.close()


@pytest.mark.parametrize("ahead", [1, 2, 4])
def test_no_more_batches_are_made_ahead_than_asked_for(
    index: Index, ahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = samples(index)
    made: list[int] = []
    get = source.get
    monkeypatch.setattr(source, "get", lambda epoch, i, **options: made.append(i) or get(epoch, i, **options))
    with TrainLoader(source, batch=1, workers=1, ahead=ahead) as loader:
        batches = loader.epoch(0)
        next(batches)
        loader._maker._workers.submit(int).result()  # type: ignore[arg-type] # what was started is done
        assert len(made) == 1 + ahead


# --- close_mosaic


@pytest.mark.parametrize(
    ("epochs", "close", "on"),
    [
        (5, 0, [True, True, True, True, True]),  # 0 = never off
        (5, 2, [True, True, True, False, False]),
        (5, 5, [False] * 5),
        (5, 15, [False] * 5),  # more than there are: off from the start
    ],
)
def test_mosaic_is_off_in_the_last_epochs(index: Index, epochs: int, close: int, on: list[bool]) -> None:
    source = samples(index, epochs=epochs, close_mosaic=close)
    assert [source.mosaic_on(epoch) for epoch in range(epochs)] == on


def test_closed_epochs_show_single_images(index: Index) -> None:
    closed = samples(index, epochs=4, close_mosaic=4, mixup=1.0)
    never = samples(index, epochs=4, mosaic=0.0, mixup=1.0)
    for epoch in range(4):
        assert np.array_equal(closed.get(epoch, 0).image, never.get(epoch, 0).image)
        assert len(closed.get(epoch, 0).boxes) <= 1


def test_a_resume_after_the_mosaic_was_closed_keeps_it_closed(index: Index) -> None:
    straight, resumed = samples(index, close_mosaic=3), samples(index, close_mosaic=3)
    straight.get(0, 0)
    assert np.array_equal(straight.get(9, 0).image, resumed.get(9, 0).image)


# --- evaluation


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_shows_each_image_once_with_the_way_back(index: Index, workers: int) -> None:
    with EvalLoader(EvalSamples(index, imgsz=64, batch=3), batch=3, workers=workers) as loader:
        assert len(loader) == 3
        for _ in range(2):  # repeatedly
            seen = []
            for batch in loader:
                seen += batch.indices.tolist()
                assert batch.letterboxes is not None
                assert batch.images.shape[2] % 32 == batch.images.shape[3] % 32 == 0
                for at, (i, box) in enumerate(zip(batch.indices.tolist(), batch.letterboxes, strict=True)):
                    mine = batch.targets.boxes[batch.targets.image == at]
                    assert np.allclose(box.to_original(mine).numpy(), index.labels(i)[1], atol=1e-3)
            assert sorted(seen) == list(range(7))


def test_rectangles_are_sorted_by_aspect_and_squares_keep_the_order(index: Index) -> None:
    rect = EvalSamples(index, imgsz=64, batch=3)
    ratios = (index.sizes[:, 0] / index.sizes[:, 1])[rect.order]
    assert (np.diff(ratios) >= 0).all()
    square = EvalSamples(index, imgsz=64, batch=3, rect=False)
    assert square.order.tolist() == list(range(7))
    assert square.shapes == [(64, 64)] * 3


def test_evaluation_enlarges_small_images_to_the_size(painted: Callable[..., Index]) -> None:
    index = painted([((24, 32), [(1, (8, 8, 16, 16))])])
    sample = EvalSamples(index, imgsz=64, batch=1).get(0)
    assert sample.image.shape == (64, 96, 3)  # 48 -> 1.5 + 0.5 strides, 64 -> 2 + 0.5 strides
    assert sample.boxes.tolist() == [[32, 24, 48, 40]]
    assert (sample.image[26:38, 34:46] == (0, 255, 0)).all()


@pytest.mark.parametrize("parts", [2, 3, 4])
@pytest.mark.parametrize("rect", [False, True])
def test_the_parts_of_a_batch_make_it_up_byte_by_byte(index: Index, parts: int, rect: bool) -> None:
    drawn = samples(index, rect=rect, multi_scale=0.5)
    with TrainLoader(drawn, batch=5, workers=0) as whole:
        expected = list(whole.epoch(1))
        assert [whole.images(number) for number in range(2)] == [5, 2]
    loaders = [TrainLoader(drawn, batch=5, workers=1, part=p, parts=parts) for p in range(parts)]
    sliced = [list(loader.epoch(1)) for loader in loaders]
    for loader in loaders:
        loader.close()
    for batch, *own in zip(expected, *sliced, strict=True):
        counts = [len(part.indices) for part in own]
        assert max(counts) - min(counts) <= 1  # two images for four parts: two get none
        assert all(part.images.shape[1:] == batch.images.shape[1:] for part in own)
        assert torch.equal(torch.cat([part.images for part in own]), batch.images)
        assert torch.equal(torch.cat([part.indices for part in own]), batch.indices)
        assert torch.equal(torch.cat([part.targets.boxes for part in own]), batch.targets.boxes)
        assert torch.equal(torch.cat([part.targets.classes for part in own]), batch.targets.classes)
        assert [path for part in own for path in part.paths] == batch.paths


def test_parts_of_an_evaluation_are_every_nth_of_the_same_batches(index: Index) -> None:
    shown = EvalSamples(index, imgsz=64, rect=True, batch=2)
    with EvalLoader(shown, batch=2, workers=0) as whole:
        expected = [content(batch) for batch in whole]
    for part in range(5):
        with EvalLoader(shown, batch=2, workers=1, part=part, parts=5) as loader:
            own = [content(batch) for batch in loader]
            assert own == expected[part::5]  # four batches: the last part has none
            assert len(loader) == len(own)
