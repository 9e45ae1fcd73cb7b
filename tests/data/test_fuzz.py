"""Whatever bytes stand in labels and data.yaml: no exception but the documented one, and nothing that hurts a
loss gets through.

The fast tests try some hundred inputs; the slow ones 50,000 over all readers together.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.data.annotation import Labels, Rules
from holdfast.data.coco_json import coco_labels, read_coco
from holdfast.data.dataset_file import read_dataset_file
from holdfast.data.index import build_index
from holdfast.data.labels import read_rows
from holdfast.data.problems import REMEDIES, Problems
from holdfast.data.voc_xml import read_voc
from holdfast.errors import DataError

FEW, MANY = 200, 10_000
KINDS = (
    Rules(2, names=("cat", "dog")),
    Rules(1, single_class=True, names=("object",)),
    Rules(2, keypoints=(2, 3), names=("cat", "dog")),
    Rules(2, keypoints=(3, 2), names=("cat", "dog")),
    Rules(2, oriented=True, names=("cat", "dog")),
)
SIZE = (48, 64)


def check(labels: Labels, rules: Rules) -> None:
    """What a loss relies on."""
    count = len(labels.classes)
    assert labels.boxes.shape == (count, 4)
    assert labels.lengths.shape == (count,)
    assert labels.lengths.sum() == len(labels.points)
    assert (labels.keypoints is None) == (rules.keypoints is None)
    assert (labels.corners is None) == (not rules.oriented)
    assert all(fault.reason in REMEDIES for fault in labels.faults)
    for array in (labels.boxes, labels.points, labels.keypoints, labels.corners):
        assert array is None or np.isfinite(array).all()
    if not count:
        return
    assert labels.classes.min() >= 0
    assert labels.classes.max() < rules.classes
    half = labels.boxes[:, 2:] / 2
    assert half.min() > 0
    assert (labels.boxes[:, :2] - half).min() >= -1e-6
    assert (labels.boxes[:, :2] + half).max() <= 1 + 1e-6
    if len(labels.points):
        assert labels.points.min() >= 0
        assert labels.points.max() <= 1
    if labels.keypoints is not None and rules.keypoints is not None:
        assert labels.keypoints.shape == (count, rules.keypoints[0], 3)
        assert labels.keypoints.min() >= 0
        assert labels.keypoints[..., :2].max() <= 1
        assert set(np.unique(labels.keypoints[..., 2]).tolist()) <= {0, 1, 2}
    if labels.corners is not None:
        assert labels.corners.shape == (count, 4, 2)
        assert np.abs(labels.corners).max() <= 2.0 + 1e-6 or rules.names == ()


# Text: bytes, characters of numbers, and rows of nearly good numbers

NUMBERS = st.one_of(
    st.floats(-0.1, 1.1).map(lambda value: f"{value:.4f}"),
    st.sampled_from(
        ["0", "1", "2", "0.5", "0,5", "nan", "inf", "-1", "1e400", "1e-9", "300", "1.0", "x", ""]
    ),
)
ROWS = st.lists(
    st.tuples(
        st.sampled_from([4, 5, 6, 7, 8, 9, 10, 11, 13]), st.lists(NUMBERS, min_size=13, max_size=13)
    ).map(lambda pair: " ".join(pair[1][: pair[0]])),
    max_size=5,
).map("\n".join)
TEXT = st.one_of(
    st.binary(max_size=200),
    st.text("0123456789.,;-+e \t\r\nnaif\0", max_size=150).map(str.encode),
    ROWS.map(str.encode),
    ROWS.map(lambda text: text.encode("utf-16")),
)


def read_text(data: bytes, rules: Rules) -> None:
    check(read_rows(data, rules), rules)


# XML: bytes, and trees of the right words in any order

WORDS = st.sampled_from(
    [
        "cat",
        "dog",
        "cow",
        "1",
        "20",
        "30",
        "-5",
        "1e9",
        "nan",
        "",
        "The VOC2007 Database",
        "&lt;",
        "&x;",
        "<!-- -->",
    ]
)
TAGS = st.sampled_from(
    [
        "object",
        "name",
        "bndbox",
        "xmin",
        "ymin",
        "xmax",
        "ymax",
        "size",
        "width",
        "height",
        "difficult",
        "source",
        "database",
        "annotation",
    ]
)
TREES: st.SearchStrategy[str] = st.recursive(
    WORDS,
    lambda inner: st.tuples(TAGS, st.lists(inner, max_size=5)).map(
        lambda pair: f"<{pair[0]}>{''.join(pair[1])}</{pair[0]}>"
    ),
    max_leaves=20,
)
OBJECTS = st.lists(st.tuples(WORDS, st.lists(WORDS, min_size=4, max_size=4)), max_size=4).map(
    lambda items: "".join(
        f"<object><name>{name}</name><bndbox><xmin>{b[0]}</xmin><ymin>{b[1]}</ymin>"
        f"<xmax>{b[2]}</xmax><ymax>{b[3]}</ymax></bndbox></object>"
        for name, b in items
    )
)
XML = st.one_of(
    st.binary(max_size=200),
    TREES.map(str.encode),
    st.one_of(TREES, OBJECTS).map(lambda text: f"<annotation>{text}</annotation>".encode()),
    OBJECTS.map(lambda text: f"<!DOCTYPE x [{text[:9]}]><annotation>{text}</annotation>".encode()),
)


def read_xml(data: bytes, rules: Rules) -> None:
    check(read_voc(data, SIZE, rules), rules)


# COCO json: any json, the right keys with any values, and damaged text

VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-5, 70),
        st.sampled_from(
            [10**30, -1, 0.5, float("nan"), float("inf"), "1.png", "cat", "", "\0", "\ud800", "0o0"]
        ),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=8), st.dictionaries(st.sampled_from(["id", "counts", "size", "x"]), inner)
    ),
    max_leaves=12,
)
PLACES = st.lists(st.floats(-10, 80), min_size=0, max_size=10)
MASKS = st.one_of(
    st.fixed_dictionaries({"size": st.just([48, 64]), "counts": st.lists(st.integers(0, 3072), max_size=4)}),
    st.fixed_dictionaries({"size": st.just([48, 64]), "counts": st.text(max_size=20)}),
)


def record(**keys: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Each key with a fitting value most of the time, with any value or not at all otherwise."""
    return st.fixed_dictionaries(
        {}, optional={key: st.one_of(good, good, good, VALUES) for key, good in keys.items()}
    )


COCO = st.fixed_dictionaries(
    {},
    optional={
        "annotations": st.lists(
            record(
                id=st.integers(0, 3),
                image_id=st.integers(0, 1),
                category_id=st.integers(0, 2),
                bbox=st.lists(st.floats(-10, 80), min_size=4, max_size=4),
                segmentation=st.one_of(st.lists(PLACES, max_size=3), MASKS),
                keypoints=PLACES,
                iscrowd=st.integers(0, 1),
            ),
            max_size=4,
        ),
        "images": st.lists(
            record(
                id=st.integers(0, 1),
                file_name=st.just("1.png"),
                height=st.sampled_from([48, 24, 0]),
                width=st.sampled_from([64, 32, 0]),
            ),
            max_size=2,
        ),
        "categories": st.lists(
            record(id=st.integers(0, 2), name=st.sampled_from(["cat", "dog"])), max_size=3
        ),
        "info": VALUES,
    },
)
JSON = st.one_of(
    st.binary(max_size=100),
    VALUES.map(lambda value: json.dumps(value).encode()),
    COCO.map(lambda value: json.dumps(value).encode()),
    COCO.map(lambda value: json.dumps(value).encode()),
    st.tuples(COCO, st.integers(0, 400)).map(lambda pair: json.dumps(pair[0]).encode()[: pair[1]]),
)


def read_json(path: Path, data: bytes, rules: Rules) -> None:
    path.write_bytes(data)
    try:
        found = read_coco(path, (), rules.names, Problems())
    except DataError as error:
        assert "\n" not in str(error)  # noqa: PT017
        return
    for image in found.values():
        if image is not None:
            check(coco_labels(image, SIZE, rules), rules._replace(names=()))


# Yaml: bytes, and words of data.yaml in any order

PIECES = st.sampled_from(
    [
        *[
            "train",
            "val",
            "names",
            "nc",
            "path",
            "kpt_shape",
            "flip_idx",
            "images",
            "cat",
            "null",
            "~",
            "images/val",
            "x.json",
        ],
        *[
            "[",
            "]",
            "{",
            "}",
            "?",
            "|",
            ">",
            "#",
            "%",
            "@",
            "`",
            "'",
            '"',
            "<<",
            "0",
            "1",
            "-1",
            ".inf",
            "1e3",
            "0x1F",
            "2020-01-01",
            "2020-99-99",
            "&a",
            "*a",
        ],
        *(": ", ": ", "\n", "\n", "\n  ", "- ", ", ", "\t", "[2, 3]", "[1, 0]", "9" * 5000),
        *("!!str ", "!!python/name:x ", "\x00", "\ufeff", "\u00e9"),
    ]
)
YAML = st.one_of(
    st.binary(max_size=100),
    st.lists(PIECES, max_size=40).map(lambda parts: "".join(parts).encode()),
    st.lists(PIECES, max_size=20).map(
        lambda parts: ("names: [cat]\ntrain: images/val\n" + "".join(parts)).encode()
    ),
)


def read_yaml(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    try:
        found = read_dataset_file(path)
        assert list(found.names) == list(range(len(found.names)))
        for split in ("train", "val", "test"):
            found.split(split)
    except DataError as error:
        assert "\n" not in str(error)  # noqa: PT017


# The whole way: files as they are, through the scan

FILES = st.tuples(st.sampled_from(["txt", "xml", "TXT"]), st.one_of(TEXT, XML))


def read_files(root: Path, name: str, data: bytes, rules: Rules) -> None:
    """Builds the index of an image with these labels, and of one with good labels beside it."""
    label = root / f"a.{name}"
    label.write_bytes(data)
    names = dict(enumerate(rules.names))
    index = build_index(
        [root],
        names=names,
        single_cls=rules.single_class,
        keypoints=rules.keypoints,
        oriented=rules.oriented,
        workers=0,
    )
    label.unlink()
    assert 1 <= len(index) <= 2
    for image in range(len(index)):
        objects = index.objects(image)
        assert objects.starts[-1] == len(objects.points)
        assert len(objects) == len(objects.boxes) == len(objects.starts) - 1
    assert all(line for line in index.problems.lines())


def run(test: Callable[..., None], examples: int, **inputs: st.SearchStrategy[Any]) -> None:
    settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )(given(**inputs)(test))()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for path in (tmp_path / "a.png", tmp_path / "b.png", tmp_path / "images" / "val" / "1.png"):
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), np.zeros((*SIZE, 3), np.uint8))
    (tmp_path / "b.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    return tmp_path


AMOUNTS = pytest.mark.parametrize("examples", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
ANY_KIND = st.sampled_from(KINDS)


@AMOUNTS
def test_text_labels(examples: int) -> None:
    run(lambda data, rules: read_text(data, rules), examples, data=TEXT, rules=ANY_KIND)


@AMOUNTS
def test_xml_labels(examples: int) -> None:
    run(lambda data, rules: read_xml(data, rules), examples, data=XML, rules=ANY_KIND)


@AMOUNTS
def test_coco_json(root: Path, examples: int) -> None:
    path = root / "some.json"
    run(lambda data, rules: read_json(path, data, rules), examples, data=JSON, rules=ANY_KIND)


@AMOUNTS
def test_yaml(root: Path, examples: int) -> None:
    run(lambda data: read_yaml(root / "data.yaml", data), examples, data=YAML)


@AMOUNTS
def test_files(root: Path, examples: int) -> None:
    folder = root / "set"
    folder.mkdir()
    for name in ("a.png", "b.png", "b.txt"):
        (root / name).rename(folder / name)
    run(
        lambda file, rules: read_files(folder, *file, rules),
        examples,
        file=FILES,
        rules=ANY_KIND,
    )
