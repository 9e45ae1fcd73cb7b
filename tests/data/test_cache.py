from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pytest

from holdfast.data import storing
from holdfast.data.cache import DiskStore, MemoryStore, cost, file_name, fingerprint
from holdfast.data.eval_samples import EvalSamples
from holdfast.data.image import read_image
from holdfast.data.index import Index
from holdfast.data.loader import EvalLoader, TrainLoader
from holdfast.data.neighbours import WINDOW, Neighbours
from holdfast.data.reader import EvalReader, Recent, TrainReader, eval_rooms, least_divisor, train_rooms
from holdfast.data.samples import TrainSamples
from holdfast.data.storing import Opened, free_memory, open_store

SIDE = 64
Kind = Literal["off", "ram", "disk"]


@pytest.fixture
def index(painted: Callable[..., Index]) -> Index:
    sizes = [(48, 64), (130, 97), (64, 64), (40, 80), (260, 300), (50, 51), (33, 90), (128, 40)]
    return painted([(size, [(number % 3, (4, 4, 20, 28))]) for number, size in enumerate(sizes)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cached"


def opened(
    index: Index, cache: Kind, use: Literal["train", "val"], folder: Path, budget: float = 1
) -> Opened:
    return open_store(cache, index, use=use, side=SIDE, budget=budget, folder=folder)


def trained_on(index: Index, cache: Kind, folder: Path, workers: int, epochs: int = 2) -> list[bytes]:
    read = TrainReader(index, side=SIDE, store=opened(index, cache, "train", folder).store)
    samples = TrainSamples(index, imgsz=SIDE, seed=3, epochs=9, mixup=0.5, degrees=5.0, read=read)
    with TrainLoader(samples, batch=3, workers=workers) as loader:
        return [
            tensor.contiguous().numpy().tobytes()
            for epoch in range(epochs)
            for batch in loader.epoch(epoch)
            for tensor in (batch.images, *batch.targets[:3])
        ]


@pytest.mark.parametrize("workers", [0, 1, 4])
@pytest.mark.parametrize("cache", ["off", "ram", "disk"])
def test_no_cache_and_no_number_of_workers_changes_a_sample(
    index: Index, tmp_path: Path, cache: Kind, workers: int
) -> None:
    plain = trained_on(index, "off", tmp_path, 0)
    for _ in range(2):  # the second time the file is there
        assert trained_on(index, cache, tmp_path / "images", workers) == plain


@pytest.mark.parametrize("cache", ["off", "ram", "disk"])
def test_no_cache_changes_an_evaluation(index: Index, tmp_path: Path, cache: Kind) -> None:
    read = EvalReader(index, side=SIDE, store=opened(index, cache, "val", tmp_path).store)
    with EvalLoader(EvalSamples(index, imgsz=SIDE, batch=3, read=read), batch=3, workers=2) as loader:
        for _ in range(2):
            for batch in loader:
                for at, i in enumerate(batch.indices.tolist()):
                    image = read_image(index.path(i))
                    ratio = SIDE / max(image.shape[:2])
                    height, width = (max(round(side * ratio), 1) for side in image.shape[:2])
                    method = cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR
                    assert batch.letterboxes is not None
                    box = batch.letterboxes[at]
                    expected = cv2.resize(image, (width, height), interpolation=method)
                    mine = batch.images[at].permute(1, 2, 0).numpy()
                    part = mine[box.top : box.top + height, box.left : box.left + width]
                    assert np.array_equal(part, expected)


def test_images_are_kept_no_larger_than_training_needs(index: Index) -> None:
    assert [least_divisor(480, long, 640) for long in (64, 640, 1279, 1280, 2559, 2560, 6000)] == [
        1, 1, 1, 2, 2, 4, 8]  # fmt: skip
    read = TrainReader(index, side=SIDE)
    for i, room in enumerate(train_rooms(index.sizes, SIDE).tolist()):
        pixels, scale_x, scale_y = read(i, 1)
        long = int(index.sizes[i].max())
        assert min(long, SIDE) <= max(pixels.shape) < max(2 * SIDE, long // 2 + 2)
        assert pixels.nbytes <= room
        expected = (index.sizes[i][0] * scale_y, index.sizes[i][1] * scale_x)
        assert pixels.shape[:2] == pytest.approx(expected)
    fits = EvalReader(index, side=SIDE)
    for i, room in enumerate(eval_rooms(index.sizes, SIDE).tolist()):
        assert fits(i).nbytes <= room


def test_a_budget_keeps_the_first_images_and_says_so(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms = train_rooms(index.sizes, SIDE)
    monkeypatch.setattr(storing, "free_memory", lambda: 2 * cost(rooms[:3]) + 200)
    part = opened(index, "ram", "train", tmp_path, budget=0.5)
    assert part.store is not None
    assert part.store.kept in (2, 3)
    assert part.note.startswith(f"ram: {part.store.kept} of 8 train images, as all would take ")
    assert "cache_budget=0.5" in part.note
    pixels = np.ones((4, 4, 3), np.uint8)
    part.store.put(7, (pixels, 1.0, 1.0))
    assert part.store.get(7) is None
    monkeypatch.setattr(storing, "free_memory", lambda: 2**31)
    whole = opened(index, "ram", "train", tmp_path, budget=0.5)
    assert whole.note == "ram: all 8 train images, 0 MiB of 2.0 GiB free memory, one copy for all workers"
    assert opened(index, "off", "train", tmp_path).note == ""
    assert 0 < free_memory() < 2**60


def _child(address: str, rooms: list[int], limit: int, answer: multiprocessing.Queue[int]) -> None:
    store = MemoryStore.join(address, np.array(rooms), limit)
    read = store.get(1)
    assert read is not None
    store.put(2, (np.full((4, 5, 3), 9, np.uint8), 0.5, 0.5))
    answer.put(int(read[0].sum()))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="memory is shared between processes on Linux")
def test_processes_of_a_machine_share_one_copy() -> None:
    rooms = np.array([100, 300, 60], np.int64)
    store = MemoryStore(rooms, 10**6)
    store.put(1, (np.full((10, 10, 3), 7, np.uint8), 1.0, 1.0))
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    assert store.address is not None
    child = context.Process(target=_child, args=(store.address, rooms.tolist(), 10**6, answer))
    child.start()
    assert answer.get(timeout=60) == 7 * 300
    child.join()
    found = store.get(2)
    assert found is not None
    assert (found[0] == 9).all()
    assert found[1:] == (0.5, 0.5)
    assert store.held == 360
    store.close()
    assert store.get(1) is None


def test_kept_images_cannot_be_drawn_on() -> None:
    store = MemoryStore(np.array([48], np.int64), 10**6)
    pixels, _, _ = store.put(0, (np.ones((4, 4, 3), np.uint8), 1.0, 1.0))
    with pytest.raises(ValueError, match="read-only"):
        pixels[0] = 0


def test_a_file_is_found_again_and_read_only_where_it_is_whole(index: Index, folder: Path) -> None:
    trained_on(index, "disk", folder, 2)
    (path,) = folder.iterdir()
    assert path.name == file_name(index, "train", SIDE)
    again = opened(index, "disk", "train", folder)
    assert isinstance(again.store, DiskStore)
    assert "8 there already" in again.note
    content = bytearray(path.read_bytes())
    content[int(again.store.starts[5]) + 10] ^= 1
    path.write_bytes(content)
    assert again.store.get(5) is None
    assert again.store.get(4) is not None
    assert trained_on(index, "disk", folder, 1) == trained_on(index, "off", folder, 0)
    assert opened(index, "disk", "train", folder).store.get(5) is not None  # type: ignore[union-attr]


@pytest.mark.parametrize("content", [b"", b"holdfast", b"\0" * 5000])
def test_a_damaged_file_is_made_anew(index: Index, folder: Path, content: bytes) -> None:
    path = folder / file_name(index, "train", SIDE)
    folder.mkdir()
    path.write_bytes(content)
    store = opened(index, "disk", "train", folder).store
    assert isinstance(store, DiskStore)
    assert store.found == 0
    assert trained_on(index, "disk", folder, 1) == trained_on(index, "off", folder, 0)
    assert [file.name for file in folder.iterdir()] == [path.name]


def test_changed_images_are_read_again(index: Index, folder: Path) -> None:
    trained_on(index, "disk", folder, 0)
    before = fingerprint(index, "train", SIDE)
    image = read_image(index.path(2))
    cv2.imwrite(index.path(2), 255 - image)
    assert fingerprint(index, "train", SIDE) != before
    assert trained_on(index, "disk", folder, 0) == trained_on(index, "off", folder, 0)
    assert len(list(folder.iterdir())) == 1


def test_a_folder_that_cannot_be_written_is_said(index: Index, folder: Path) -> None:
    folder.touch()
    none = opened(index, "disk", "train", folder / "images")
    assert none.store is None
    assert none.note.startswith("off for train images: ")
    none.close()


def test_recent_images_are_forgotten_oldest_first() -> None:
    recent = Recent(images=3, limit=100)
    for number in range(5):
        recent.put(number, (np.zeros((2, 5, 3), np.uint8), 1.0, 1.0))
    assert [number for number in range(5) if recent.get(number) is not None] == [2, 3, 4]
    recent.put(9, (np.zeros((6, 5, 3), np.uint8), 1.0, 1.0))
    assert [number for number in range(10) if recent.get(number) is not None] == [9]


def test_partners_come_shortly_before_the_sample_and_each_image_is_decoded_once(
    painted: Callable[..., Index], monkeypatch: pytest.MonkeyPatch
) -> None:
    near = Neighbours(1000, seed=1)
    order = near.order(4)
    for position in (0, 5, 400, 999):
        partners = near.pick(4, int(order[position]), np.array([0.0, 0.5, 0.999]))
        start = max(position - WINDOW + 1, 0)
        assert set(partners) <= set(order[start : start + WINDOW].tolist())
    assert near.pick(4, 7, np.array([0.3])) == Neighbours(1000, seed=1).pick(4, 7, np.array([0.3]))
    index = painted([((20, 20), [])] * 40)
    reads: list[str] = []
    lock = threading.Lock()
    from holdfast.data import reader

    plain = reader.read_reduced

    def counted(content: bytes, divisor: int, *, name: str) -> tuple[np.ndarray, float, float]:
        with lock:
            reads.append(name)
        return plain(content, divisor, name=name)

    monkeypatch.setattr(reader, "read_reduced", counted)
    samples = TrainSamples(index, imgsz=32, epochs=9)
    with TrainLoader(samples, batch=4, workers=0) as loader:
        assert len(list(loader.epoch(0))) == 10
    assert sorted(reads) == sorted(index.paths)
