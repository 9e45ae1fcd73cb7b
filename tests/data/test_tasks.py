"""What labels hold reaches the loss: outlines, keypoints, corners and classes, through every augmentation."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from holdfast.data.crops import EvalCrops, TrainCrops, middle, random_part
from holdfast.data.dataset_file import read_dataset_file
from holdfast.data.eval_samples import EvalSamples
from holdfast.data.index import Index
from holdfast.data.loader import EvalLoader, TrainLoader
from holdfast.data.samples import TrainSamples
from holdfast.data.shapes import KEYPOINTS, write_demo
from holdfast.data.splits import split_index
from holdfast.errors import DataError
from holdfast.geometry.rotated import rotated_corners, rotated_hull
from holdfast.geometry.targets import BOXES, Needs

MASKS = Needs(mask_stride=4)
POINTS = Needs(keypoints=True)
TURNED = Needs(rotated=True)
WHOLE = Needs(whole=True)


def demo(folder: Path, needs: Needs, images: int = 10, labels: Needs | None = None) -> Index:
    """Training images drawn for one kind of model and opened for the same or another one."""
    data = write_demo(folder, images=images, needs=needs if labels is None else labels)
    return split_index(read_dataset_file(data), "train", needs=needs, single_cls=False, workers=0)


def loader(index: Index, needs: Needs, **options: float) -> TrainLoader:
    samples = TrainSamples(index, imgsz=128, epochs=4, flip_index=range(KEYPOINTS), **options)  # type: ignore[arg-type]
    return TrainLoader(samples, batch=4, workers=2, needs=needs)


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("options", [{}, {"mosaic": 0.0}, {"degrees": 20.0, "mixup": 1.0, "flipud": 0.5}])
def test_masks_cover_what_the_boxes_say(tmp_path: Path, options: dict[str, float], hidden: bool) -> None:
    needs = MASKS._replace(hidden=hidden)
    with loader(demo(tmp_path, MASKS), needs, **options) as batches:
        for batch in batches.epoch(0):
            masks = batch.targets.masks
            assert masks is not None
            layers = masks.shape[1]
            assert (layers > 1) == (hidden and "mixup" in options)
            assert (masks.shape, masks.dtype) == ((len(batch.images), layers, 32, 32), torch.int16)
            first = torch.searchsorted(batch.targets.image, batch.targets.image)
            number = torch.arange(len(first)) - first + 1
            for image, own, box in zip(
                batch.targets.image.tolist(), number.tolist(), batch.targets.boxes / 4, strict=True
            ):
                _, y, x = (masks[image] == own).nonzero().unbind(1)
                if len(x):
                    around = torch.stack((x.min(), y.min(), x.max() + 1, y.max() + 1))
                    assert (around[:2] >= box[:2] - 1).all()
                    assert (around[2:] <= box[2:] + 1).all()
            assert len(masks.unique()) > 1


@pytest.mark.parametrize("options", [{"mosaic": 0.0}, {"degrees": 20.0, "flipud": 0.5, "hsv_v": 0.0}])
def test_keypoints_lie_on_their_marks(tmp_path: Path, options: dict[str, float]) -> None:
    seen = right = 0
    with loader(demo(tmp_path, POINTS, images=40), POINTS, scale=0.2, **options) as batches:
        for batch in batches.epoch(0):
            points = batch.targets.keypoints
            assert points is not None
            assert points.shape == (len(batch.targets.boxes), KEYPOINTS, 3)
            images = batch.images.float().mean(1)
            big = (batch.targets.boxes[:, 2:] - batch.targets.boxes[:, :2]).amin(1) > 30
            for mark, bright in ((1, True), (2, False)):
                wanted = big & (points[:, mark, 2] > 0)
                x, y = points[wanted, mark, :2].long().clamp(0, 127).unbind(1)
                level = images[batch.targets.image[wanted], y, x]
                seen += len(level)
                right += int(((level > 140) == bright).sum())
    assert seen > 20
    assert right > 0.9 * seen


@pytest.mark.parametrize("options", [{"mosaic": 0.0}, {"degrees": 20.0, "shear": 5.0}])
def test_rotated_boxes_lie_around_their_objects(tmp_path: Path, options: dict[str, float]) -> None:
    with loader(demo(tmp_path, TURNED), TURNED, **options) as batches:
        for batch in batches.epoch(0):
            rotated = batch.targets.rotated
            assert rotated is not None
            assert rotated.shape == (len(batch.targets.boxes), 5)
            assert (rotated[:, 2] >= rotated[:, 3]).all()
            hulls = rotated_hull(rotated)
            size = (batch.targets.boxes[:, 2:] - batch.targets.boxes[:, :2]).amax(1, keepdim=True)
            whole = ((hulls >= 0) & (hulls <= 128)).all(1)
            assert ((hulls - batch.targets.boxes).abs() <= 0.05 * size + 1)[whole].all()
            assert rotated_corners(rotated).isfinite().all()


def test_validation_has_the_same_fields(tmp_path: Path) -> None:
    for needs in (MASKS, POINTS, TURNED):
        index = demo(tmp_path / str(needs), needs)
        samples = EvalSamples(index, imgsz=96, batch=3)
        with EvalLoader(samples, batch=3, workers=0, needs=needs) as batches:
            for batch in batches:
                got = batch.targets
                assert (got.masks is not None) == bool(needs.mask_stride)
                assert (got.keypoints is not None) == needs.keypoints
                assert (got.rotated is not None) == needs.rotated
                if got.masks is not None:
                    assert got.masks.shape[1:] == (1, batch.images.shape[2] // 4, batch.images.shape[3] // 4)


@pytest.mark.parametrize(
    ("needs", "labels", "text"),
    [
        (MASKS, BOXES, "no outlines, only boxes"),
        (POINTS, BOXES, "no kpt_shape"),
        (WHOLE, BOXES, "classifies whole images"),
        (BOXES, WHOLE, "one folder per class and no boxes"),
    ],
)
def test_labels_that_lack_what_the_model_needs_are_refused(
    tmp_path: Path, needs: Needs, labels: Needs, text: str
) -> None:
    with pytest.raises(DataError, match=text) as error:
        demo(tmp_path, needs, labels=labels)
    assert str(tmp_path) in str(error.value)
    assert error.value.hint


def test_a_few_objects_without_outline_are_taken_for_their_boxes_and_counted(tmp_path: Path) -> None:
    data = write_demo(tmp_path, images=10, needs=MASKS)
    path = next(path for path in sorted((tmp_path / "labels/train").glob("*.txt")) if path.stat().st_size)
    path.write_text("0 0.5 0.5 0.2 0.2\n", encoding="utf-8")
    index = split_index(read_dataset_file(data), "train", needs=MASKS, single_cls=False, workers=0)
    assert re.match(r"1 of \d+ train objects have no outline; their box is taken for it", index.notes[-1])
    assert f"{path.stem}." in index.notes[-1]  # the image to look at


def test_objects_without_a_labelled_keypoint_are_counted_and_a_set_of_none_is_refused(tmp_path: Path) -> None:
    data = write_demo(tmp_path, images=10, needs=POINTS)
    paths = [path for path in sorted((tmp_path / "labels/train").glob("*.txt")) if path.stat().st_size]
    paths[1].write_text("0 0.5 0.5 0.2 0.2\n", encoding="utf-8")

    def index() -> Index:
        return split_index(read_dataset_file(data), "train", needs=POINTS, single_cls=False, workers=0)

    assert re.match(r"1 of \d+ train objects have no labelled keypoint; they teach", index().notes[-1])
    assert f"{paths[1].stem}." in index().notes[-1]
    for path in paths:
        path.write_text("0 0.5 0.5 0.2 0.2\n", encoding="utf-8")
    with pytest.raises(DataError, match="train labels have no labelled keypoints, only boxes"):
        index()


def test_class_folders_are_a_data_set(tmp_path: Path) -> None:
    index = demo(tmp_path, WHOLE, images=20)
    assert list(index.names.values()) == ["disc", "square", "triangle"]
    assert len(index) == len(index.classes) == 16
    for number in range(len(index)):
        assert Path(index.path(number)).parent.name == index.names[int(index.classes[number])]


@pytest.mark.parametrize("named", ["", "names: [triangle, disc, square, star]\n"])
def test_class_folders_may_be_named_in_a_data_file(tmp_path: Path, named: str) -> None:
    write_demo(tmp_path / "set", images=20, needs=WHOLE)
    (tmp_path / "data.yaml").write_text(f"path: set\ntrain: train\nval: val\n{named}")
    data = read_dataset_file(tmp_path / "data.yaml")
    assert data.class_folders
    index = split_index(data, "val", needs=WHOLE, single_cls=False, workers=0)
    order = ["triangle", "disc", "square", "star"] if named else ["disc", "square", "triangle"]
    assert list(index.names.values()) == order
    assert len(index) == 4
    for number in range(len(index)):
        assert Path(index.path(number)).parent.name == index.names[int(index.classes[number])]


@pytest.mark.parametrize("case", ["labels", "images beside", "other names"])
def test_folders_of_a_detection_set_are_no_classes(tmp_path: Path, case: str) -> None:
    write_demo(tmp_path, images=20, needs=WHOLE)
    names = "names: [a, b]\n" if case == "other names" else "names: [disc, square, triangle]\n"
    (tmp_path / "data.yaml").write_text(f"train: train\n{names}")
    picture = sorted((tmp_path / "train" / "disc").iterdir())[0]
    if case == "labels":
        picture.with_suffix(".txt").write_text("0 0.5 0.5 0.1 0.1\n")
    if case == "images beside":
        picture.rename(tmp_path / "train" / picture.name)
    assert not read_dataset_file(tmp_path / "data.yaml").class_folders


def test_a_class_that_training_does_not_know_is_refused(tmp_path: Path) -> None:
    data = read_dataset_file(write_demo(tmp_path, images=20, needs=WHOLE))
    (tmp_path / "val" / "star").mkdir()
    with pytest.raises(DataError, match="is no class of the training images"):
        split_index(data, "val", needs=WHOLE, single_cls=False, workers=0)


def test_a_missing_split_is_told_in_words_of_the_data_set(tmp_path: Path) -> None:
    folder = write_demo(tmp_path / "classes", images=20, needs=WHOLE)
    with pytest.raises(DataError, match=r"has no 'test' folder \(it has train, val\)\. Move some images"):
        split_index(read_dataset_file(folder), "test", needs=WHOLE, single_cls=False, workers=0)
    with pytest.raises(DataError, match="If its folders are classes, move them to .*train"):
        read_dataset_file(folder / "train")
    data = write_demo(tmp_path / "boxes", images=2)
    data.write_text(data.read_text().replace("images/val", "images/vla"))
    with pytest.raises(DataError, match="val: 'images/vla' does not exist"):
        split_index(read_dataset_file(data), "val", single_cls=False, workers=0)


def test_crops_depend_on_nothing_but_their_place_and_fill_the_input(tmp_path: Path) -> None:
    index = demo(tmp_path, WHOLE, images=20)

    def batches(workers: int) -> list[bytes]:
        samples = TrainCrops(index, imgsz=64, epochs=4, autoaugment="randaugment", erasing=0.5)
        with TrainLoader(samples, batch=5, workers=workers) as made:
            found = list(made.epoch(1))
        for batch in found:
            assert batch.targets.image.tolist() == list(range(len(batch.images)))
            assert torch.equal(batch.targets.classes, torch.from_numpy(index.classes)[batch.indices].long())
        return [batch.images.contiguous().numpy().tobytes() for batch in found]

    assert batches(0) == batches(3)


def test_a_random_part_lies_inside_and_has_its_area() -> None:
    random = np.random.default_rng(0)
    for height, width in ((60, 100), (10, 400), (300, 20)):
        for _ in range(50):
            x, y, w, h = random_part(random.random(40), height, width, 0.5)
            assert min(x, y) >= 0
            assert x + w <= width + 1e-6
            assert y + h <= height + 1e-6
            if max(height, width) < 2 * min(height, width):
                assert w * h >= 0.5 * height * width - 1e-6


def test_erasing_covers_a_rectangle_and_changes_nothing_else(tmp_path: Path) -> None:
    index = demo(tmp_path, WHOLE, images=40)

    def images(erasing: float) -> torch.Tensor:
        with TrainLoader(TrainCrops(index, imgsz=64, epochs=4, erasing=erasing), batch=32, workers=0) as made:
            return torch.cat([batch.images for batch in made.epoch(0)])

    plain, some, all_ = images(0.0), images(0.5), images(1.0)
    covered = (all_ != plain).any(1)
    assert (all_ * covered.unsqueeze(1) == 0).all()
    shares = covered.flatten(1).float().mean(1)
    assert shares.min() > 0.015  # what was black already is not seen to change
    assert shares.max() < 0.35
    kept = (some == plain).flatten(1).all(1)
    assert 5 < int(kept.sum()) < 27
    assert torch.equal(some[~kept], all_[~kept])


def test_evaluation_shows_the_middle(tmp_path: Path) -> None:
    image = np.zeros((40, 100, 3), np.uint8)
    image[:, 30:70] = 255
    assert middle(image, np.empty((40, 40, 3), np.uint8)).min() == 255
    assert middle(image, np.empty((80, 80, 3), np.uint8))[:, 1:-1].min() > 200
    index = demo(tmp_path, WHOLE, images=20)
    with EvalLoader(EvalCrops(index, imgsz=64, rect=False, batch=5), batch=5, workers=0) as batches:
        for batch in batches:
            assert batch.images.shape[2:] == (64, 64)
            assert len(batch.targets.classes) == len(batch.images)
