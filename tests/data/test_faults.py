"""Images that go bad while a run is under way: replaced, named, and the same for any way of loading."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from holdfast.data import files
from holdfast.data.batch import Batch
from holdfast.data.eval_samples import EvalSamples
from holdfast.data.files import DriveGone, Late, TimedFiles
from holdfast.data.index import Index
from holdfast.data.loader import EvalLoader, TrainLoader
from holdfast.data.reader import EvalReader, TrainReader
from holdfast.data.samples import TrainSamples
from holdfast.errors import DataError

COUNT = 9


@pytest.fixture
def index(painted: Callable[..., Index]) -> Index:
    sizes = [(48, 64), (64, 48), (64, 64), (40, 80), (96, 72), (50, 51), (33, 90), (64, 20), (90, 90)]
    return painted([(size, [(number % 3, (4, 4, 18, 28))]) for number, size in enumerate(sizes)])


def samples(index: Index, *, timeout: float = 0.0, **changes: object) -> TrainSamples:
    options: dict[str, object] = {"imgsz": 64, "seed": 3, "epochs": 10, "mixup": 0.5, "cutmix": 0.3}
    read = TrainReader(index, side=64, timeout=timeout)
    return TrainSamples(index, read=read, **{**options, **changes})  # type: ignore[arg-type]


def content(batch: Batch) -> tuple[bytes, ...]:
    return tuple(t.contiguous().numpy().tobytes() for t in (batch.images, *batch.targets[:3], batch.indices))


def run(
    source: TrainSamples, *, epoch: int = 0, start: int = 0, **options: int
) -> tuple[list[Batch], list[str]]:
    said: list[str] = []
    with TrainLoader(source, batch=2, say=said.append, **{"workers": 0, **options}) as loader:
        return list(loader.epoch(epoch, start)), said


def vanish(path: Path) -> None:
    path.unlink()


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def not_a_file(path: Path) -> None:
    path.unlink()
    path.mkdir()


def not_finite(path: Path) -> None:
    pixels = np.full((96, 72), np.nan, np.float32)
    pixels[::2] = np.inf
    Image.fromarray(pixels).save(path, format="TIFF")


def other_size(path: Path) -> None:
    assert cv2.imwrite(str(path), np.zeros((20, 30, 3), np.uint8))


GOES_BAD = {
    "no such image file": vanish,
    "damaged or cut short": damage,
    "cannot be opened": not_a_file,
    "32-bit floats": not_finite,
    "is now 30 x 20 pixels, and was 72 x 96": other_size,
}


@pytest.mark.parametrize("reason", GOES_BAD)
@pytest.mark.parametrize("mosaic", [0.0, 1.0])
def test_an_image_that_goes_bad_is_replaced_and_named_once(index: Index, reason: str, mosaic: float) -> None:
    source = samples(index, mosaic=mosaic)
    GOES_BAD[reason](Path(index.path(4)))
    batches, said = run(source)
    shown = [number for batch in batches for number in batch.indices.tolist()]
    order = source.order(0, batch=2).tolist()
    after = order[(order.index(4) + 1) % COUNT]
    assert shown == [after if number == 4 else number for number in order]
    assert [path for batch in batches for path in batch.paths] == [index.path(number) for number in shown]
    (line,) = said
    assert "004.png" in line
    assert reason in line
    assert list(source.faults.reasons) == [4]
    again, said = run(source, epoch=1)  # tried again, and not said again
    assert 4 not in [number for batch in again for number in batch.indices.tolist()]
    assert said == []


@pytest.mark.parametrize("ahead", [1, 3])
@pytest.mark.parametrize("workers", [0, 1, 4])
def test_replacements_do_not_depend_on_workers_prefetch_or_resumption(
    index: Index, workers: int, ahead: int
) -> None:
    for number in (1, 4, 6):
        Path(index.path(number)).unlink()
    for epoch in (0, 1):
        expected = [content(batch) for batch in run(samples(index), epoch=epoch)[0]]
        found, said = run(samples(index), epoch=epoch, workers=workers, ahead=ahead)
        assert [content(batch) for batch in found] == expected
        assert len(said) == 3
        resumed, _ = run(samples(index), epoch=epoch, start=2, workers=workers, ahead=ahead)
        assert [content(batch) for batch in resumed] == expected[2:]


def test_a_sample_does_not_depend_on_what_was_found_before(index: Index) -> None:
    for number in (0, 2, 5):
        Path(index.path(number)).unlink()
    knows = samples(index)
    for _ in range(2):
        for number in range(COUNT):
            fresh, known = samples(index).get(0, number), knows.get(0, number)
            assert fresh.index == known.index
            assert np.array_equal(fresh.image, known.image)
            assert np.array_equal(fresh.boxes, known.boxes)


def test_samples_without_the_image_stay_as_they_were(index: Index) -> None:
    before = [samples(index, mosaic=0.0, cutmix=0.0).get(0, number).image.copy() for number in range(COUNT)]
    Path(index.path(4)).unlink()
    for number in range(COUNT):
        after = samples(index, mosaic=0.0, cutmix=0.0).get(0, number).image
        assert np.array_equal(before[number], after) == (number != 4)


def test_an_image_that_comes_back_is_used_from_the_next_epoch_on(index: Index, tmp_path: Path) -> None:
    source, path = samples(index, mosaic=0.0), Path(index.path(4))
    path.rename(tmp_path / "away")
    assert 4 not in [n for batch in run(source)[0] for n in batch.indices.tolist()]
    (tmp_path / "away").rename(path)
    assert 4 in [n for batch in run(source, epoch=1)[0] for n in batch.indices.tolist()]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_set_of_which_most_is_gone_is_an_error(index: Index, workers: int) -> None:
    for number in range(5):
        Path(index.path(number)).unlink()
    with pytest.raises(DataError, match="5 images cannot be read any more, the last of them") as caught:
        run(samples(index), workers=workers)
    assert "--resume" in str(caught.value)


def test_many_faults_are_counted_instead_of_named(painted: Callable[..., Index]) -> None:
    index = painted([((16, 16), [])] * 130 + [((16, 16), [(0, (1, 1, 9, 9))])])
    for number in range(60):
        Path(index.path(number)).unlink()
    source = samples(index, mosaic=0.0, cutmix=0.0)
    for number in range(60):
        source.get(0, number)
    lines = source.faults.fresh()
    assert len(lines) == 51
    assert lines[-1] == "10 more images cannot be read, 60 in all"
    assert source.faults.fresh() == []


# --- left out on purpose


@pytest.mark.parametrize("workers", [0, 3])
def test_images_are_left_out_from_the_epoch_that_was_named(index: Index, workers: int) -> None:
    plain, source = samples(index), samples(index)
    source.leave_out([4, 7], start=1)
    assert source.left_out == [(4, 1), (7, 1)]
    same = [content(batch) for batch in run(plain)[0]]
    assert [content(batch) for batch in run(source, workers=workers)[0]] == same
    batches, said = run(source, epoch=1, workers=workers)
    assert not {4, 7} & {number for batch in batches for number in batch.indices.tolist()}
    assert said == []  # whoever leaves images out says so
    restored = samples(index)
    for number, start in source.left_out:
        restored.leave_out([number], start=start)
    assert [content(batch) for batch in run(restored, epoch=1)[0]] == [content(batch) for batch in batches]


def test_images_that_are_left_out_are_no_partners_either(index: Index) -> None:
    source = samples(index, mosaic_tiles="9", copy_paste=0.5, copy_paste_mode="mixup")
    source.leave_out([2], start=0)
    Path(index.path(2)).unlink()  # reading it would be a fault
    run(source)
    assert not source.faults.reasons


def test_an_image_left_out_twice_keeps_the_earlier_start(index: Index) -> None:
    source = samples(index)
    source.leave_out([3], start=2)
    source.leave_out([3, 5], start=4)
    assert source.left_out == [(3, 2), (5, 4)]


def test_leaving_all_images_out_is_an_error(index: Index) -> None:
    source = samples(index)
    source.leave_out(range(COUNT), start=0)
    with pytest.raises(DataError, match="none of 9 images can be used"):
        source.get(0, 0)


# --- reads that hang


@contextmanager
def pipes_in_place_of(*paths: str) -> Iterator[None]:
    """Opening a named pipe that nobody writes to hangs, as a dead network drive does."""
    for path in paths:
        Path(path).unlink()
        os.mkfifo(path)
    try:
        yield
    finally:
        for path in paths:  # lets the readers that hang open it; then they see its end
            os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))
        wait_until(lambda: not any(t.name.startswith("holdfast") for t in threading.enumerate()))


def wait_until(true: Callable[[], bool]) -> None:
    for _ in range(1000):
        if true():
            return
        time.sleep(0.02)
    raise AssertionError("waited for too long")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_read_that_hangs_is_given_up_and_the_image_replaced(index: Index, workers: int) -> None:
    with pipes_in_place_of(index.path(4)):
        source = samples(index, timeout=0.3)
        batches, said = run(source, workers=workers)
        assert len(batches) == 5
        (line,) = said
        assert "004.png: reading did not end in 0.3 s" in line
        again, said = run(source, epoch=1, workers=workers)  # not tried again
        assert said == []
        assert source.pictures.read.files.hung == 1
    Path(index.path(4)).unlink()
    for epoch, made in enumerate((batches, again)):
        expected = run(samples(index), epoch=epoch)[0]
        assert [content(batch) for batch in made] == [content(batch) for batch in expected]


def test_a_drive_on_which_all_reads_hang_is_an_error(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MOST_LOST", 3)
    reading = TimedFiles(0.5)
    with pipes_in_place_of(*map(index.path, (1, 2, 3))):
        for number in (1, 2, 2, 3):
            with pytest.raises(Late):
                reading.read(index.path(number))
        with pytest.raises(DriveGone, match="3 reads hang at the same time"):
            reading.read(index.path(5))
    assert reading.read(index.path(5)) == Path(index.path(5)).read_bytes()  # it answers again
    reading.close()


def test_a_folder_that_comes_back_in_time_is_waited_for(index: Index, tmp_path: Path) -> None:
    images = Path(index.path(0)).parent
    content_of = Path(index.path(0)).read_bytes()
    images.rename(tmp_path / "away")
    back = threading.Timer(0.3, lambda: (tmp_path / "away").rename(images))
    back.start()
    reading = TimedFiles(30)
    assert reading.read(index.path(0)) == content_of
    back.join()
    reading.close()


def test_a_folder_that_stays_away_is_an_error_in_the_end(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MOST_LOST", 2)
    Path(index.path(0)).parent.rename(tmp_path / "away")
    reading = TimedFiles(0.05)
    with pytest.raises(DataError, match="no such image file"):
        reading.read(index.path(0))
    with pytest.raises(DriveGone, match="the folder of 2 images in a row is not there"):
        reading.read(index.path(1))
    reading.close()


def test_a_worker_that_hangs_is_left_behind_and_replaced(index: Index) -> None:
    source = samples(index, timeout=0.3, mosaic=0.0, cutmix=0.0)
    second = source.order(0, batch=1)[1]
    with pipes_in_place_of(index.path(second)), TrainLoader(source, batch=1, workers=1) as loader:
        batches = loader.epoch(0)
        made = [content(next(batches))]
        (hangs,) = loader._maker._workers._threads
        wait_until(lambda: bool(hangs._reading))
        made += [content(batch) for batch in batches]
        (other,) = loader._maker._workers._threads
        assert other is not hangs
        assert hangs.is_alive()
    Path(index.path(second)).unlink()
    still = samples(index, mosaic=0.0, cutmix=0.0)
    with TrainLoader(still, batch=1, workers=0) as plain:
        assert made == [content(batch) for batch in plain.epoch(0)]


def test_closing_does_not_wait_for_a_read_that_hangs(index: Index) -> None:
    source = samples(index, timeout=600.0, mosaic=0.0, cutmix=0.0)
    second = source.order(0, batch=1)[1]
    with pipes_in_place_of(index.path(second)):
        loader = TrainLoader(source, batch=1, workers=1)
        for _ in loader.epoch(0):
            break
        wait_until(lambda: any(thread._reading for thread in loader._maker._workers._threads))
        loader.close()


# --- evaluation


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_shows_gray_for_what_cannot_be_read_and_names_it(index: Index, workers: int) -> None:
    path = Path(index.path(4))
    whole = path.read_bytes()
    path.unlink()
    shown = EvalSamples(index, imgsz=64, batch=2, read=EvalReader(index, side=64))
    with EvalLoader(shown, batch=2, workers=workers) as loader:
        found = {}
        for batch in loader:
            for at, why in batch.unread.items():
                found[int(batch.indices[at])] = why
                assert (batch.images[at] == 114).all()
                assert not (batch.targets.image == at).any()
        assert list(found) == [4]
        assert "004.png: no such image file" in found[4]
        path.write_bytes(whole)  # each evaluation tries again
        assert not any(batch.unread for batch in loader)
