from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.data.dataset_file import read_dataset_file
from holdfast.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder `set` with images/{train,val} and a list file; yaml files go beside or into it."""
    for split in ("train", "val"):
        (tmp_path / "set" / "images" / split).mkdir(parents=True)
        (tmp_path / "set" / "images" / split / "a.jpg").write_bytes(b"x")
    (tmp_path / "set" / "val.txt").write_text("images/val/a.jpg\n")
    return tmp_path


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


SPLITS = "train: images/train\nval: images/val\n"
NAMES = "names: [cat, dog]\n"


@pytest.mark.parametrize(
    ("yaml_at", "working_folder", "path_line", "train"),
    [
        ("set/data.yaml", ".", "", "images/train"),  # beside the yaml
        ("set/data.yaml", ".", "path: .", "images/train"),
        ("set/data.yaml", ".", "path:", "images/train"),
        ("data.yaml", ".", "path: set", "images/train"),  # path relative to the yaml
        ("conf/data.yaml", ".", "path: ../set", "images/train"),
        ("conf/data.yaml", ".", "path: set", "images/train"),  # path relative to the working directory
        ("conf/data.yaml", "set", "", "images/train"),  # entry relative to the working directory
        ("conf/data.yaml", ".", "path: {root}/set", "images/train"),  # absolute path
        ("conf/data.yaml", ".", "", "{root}/set/images/train"),  # absolute entry
        ("conf/data.yaml", ".", "path: /nowhere", "{root}/set/images/train"),
        ("set/data.yaml", ".", "", "../images/train"),  # one ../ too many, as some exports write
        ("set/data.yaml", ".", "", "./images/train/"),
        ("set/data.yaml", ".", "path: gone", "images/train"),  # path moved, images still beside the yaml
        ("set/data.yaml", ".", "", "images\\train"),
    ],
)
def test_where_paths_are_looked_for(
    root: Path, monkeypatch: pytest.MonkeyPatch, yaml_at: str, working_folder: str, path_line: str, train: str
) -> None:
    monkeypatch.chdir(root / working_folder)
    text = f"{path_line}\ntrain: {train}\n{NAMES}".replace("{root}", str(root))
    data = read_dataset_file(write(root / yaml_at, text))
    assert data.splits == {"train": [root / "set" / "images" / "train"]}


def test_yaml_folder_comes_before_the_working_directory(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "images" / "train").mkdir(parents=True)
    monkeypatch.chdir(root)
    data = read_dataset_file(write(root / "set" / "data.yaml", SPLITS + NAMES))
    assert data.split("train") == [root / "set" / "images" / "train"]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("val.txt", ["val.txt"]),
        ("images/val/*.jpg", ["images/val/*.jpg"]),
        ("images/**/*.jpg", ["images/**/*.jpg"]),
        ("[images/train, val.txt]", ["images/train", "val.txt"]),
        ("\n  - images/train\n  - images/val", ["images/train", "images/val"]),
        ("images/val/a.jpg", ["images/val/a.jpg"]),
    ],
)
def test_kinds_of_sources(root: Path, entry: str, expected: list[str]) -> None:
    data = read_dataset_file(write(root / "set" / "data.yaml", f"val: {entry}\n{NAMES}"))
    assert data.split("val") == [root / "set" / part for part in expected]


def test_a_folder_with_a_data_yaml_is_enough(root: Path) -> None:
    write(root / "set" / "data.yaml", SPLITS + NAMES)
    assert read_dataset_file(root / "set").path == root / "set" / "data.yaml"
    assert read_dataset_file(root / "set" / "data").path == root / "set" / "data.yaml"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("names: [cat, dog]", {0: "cat", 1: "dog"}),
        ("names:\n  0: cat\n  1: dog", {0: "cat", 1: "dog"}),
        ("names:\n  '0': cat\n  '1': dog", {0: "cat", 1: "dog"}),
        ("names: {1: dog, 0: cat}", {0: "cat", 1: "dog"}),
        ("names: {0: cat, 2: dog}", {0: "cat", 1: "class1", 2: "dog"}),  # gap
        ("names: {0: cat, 2: dog}\nnc: 3", {0: "cat", 1: "class1", 2: "dog"}),
        ("nc: 2", {0: "class0", 1: "class1"}),
        ("names: [no, on, 3, 1.5]", {0: "no", 1: "on", 2: "3", 3: "1.5"}),  # words, not switches
        ("names: [cat]\nnc: 1", {0: "cat"}),
        ("names: ['größe, x', 猫]", {0: "größe, x", 1: "猫"}),
    ],
)
def test_names(root: Path, text: str, names: dict[int, str]) -> None:
    data = read_dataset_file(write(root / "set" / "data.yaml", SPLITS + text + "\n"))
    assert data.names == names
    assert list(data.names) == sorted(data.names)


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16"])
def test_byte_order_marks_are_tolerated(root: Path, codec: str) -> None:
    data = read_dataset_file(write(root / "set" / "data.yaml", (SPLITS + NAMES).encode(codec)))
    assert set(data.splits) == {"train", "val"}


@pytest.mark.parametrize(
    ("text", "reason", "line"),
    [
        (SPLITS + NAMES + "nc: 3\n", "nc is 3, but names lists 2 classes", None),
        (SPLITS, "no class names", None),
        (SPLITS + "nmaes: [cat]\n", "Did you mean 'names'", None),
        (NAMES, "names no images", None),
        (NAMES + "trian: images/train\n", "Did you mean 'train'", None),
        (SPLITS + "names: cat\n", "names is a text", None),
        (SPLITS + "names: {cat: 0}\n", "key 'cat'", None),
        (SPLITS + "nc: many\n", "nc is 'many'", None),
        (SPLITS + NAMES + "imgsz: big\n", "imgsz is 'big'", None),
        (SPLITS + NAMES + "kpt_shape: 17\n", "kpt_shape is 17", None),
        ("", "is empty", None),
        ("- a\n- b\n", "holds a list", None),
        ("just words", "holds a text", None),
        ("train: images\nnames: [cat\nval: x\n", "not valid yaml", 3),
        ("names: [cat]\n\ttrain: x\n", "not valid yaml", 2),
        ("names: !!python/object/apply:os.system ['true']\n", "could run code", 1),
        ("train: x\nnames: !!python/name:os.system\n", "could run code", 2),
        (b"names: [caf\xe9]\n", "not UTF-8", 1),
        ("path: [a]\n" + SPLITS + NAMES, "expected a folder", None),
        (SPLITS + "names: [cat, [dog, cow]]\n", "names holds ['dog', 'cow']", None),
        (SPLITS + "names: {0: cat, 1: {dog: 1}}\n", "names holds {'dog': 1}", None),
        (SPLITS + "names: {-1: cat}\n", "key -1", None),
        (SPLITS + "names: {0: cat, '0': dog}\n", "class 0 twice", None),
        (SPLITS + "names: {0: cat, 3: dog}\nnc: 3\n", "nc is 3, but names lists 4 classes", None),
        (SPLITS + NAMES + "kpt_shape: [2, 3]\nflip_idx: [1, 1]\n", "flip_idx is [1, 1]", None),
        (SPLITS + NAMES + "kpt_shape: [3, 3]\nflip_idx: [1, 2, 0]\n", "in pairs", None),
        (SPLITS + NAMES + "kpt_shape: [2, 3]\nkpt_oks_sigmas: [0.1]\n", "for each of 2", None),
        (SPLITS + NAMES + "kpt_shape: [2, 3]\nkpt_oks_sigmas: [0.1, 0]\n", "expected a positive", None),
        (SPLITS + NAMES + "kpt_shape: [2, 3]\nkpt_oks_sigmas: [0.1, .inf]\n", "expected a positive", None),
        ("a: &a {names: [cat]}\n<<: *a\n" + SPLITS, "merges other entries", None),
        (SPLITS + "names: !!python/object:os.stat_result {}\n", "could run code", 3),
        (SPLITS + "names: !env HOME\n", "could run code", 3),
        ("train: x\x00\n", "not valid yaml", None),
    ],
)
def test_faults_are_named_with_file_and_line(
    root: Path, text: str | bytes, reason: str, line: int | None
) -> None:
    path = write(root / "set" / "data.yaml", text)
    with pytest.raises(DataError) as caught:
        read_dataset_file(path)
    message = str(caught.value)
    assert reason in message
    assert str(path) in message
    assert caught.value.line == line
    assert caught.value.hint
    assert "\n" not in message


def test_a_missing_split_is_an_error_only_when_asked_for(root: Path) -> None:
    path = write(root / "set" / "data.yaml", "train: images/train\ntest: images/tset\n" + NAMES)
    data = read_dataset_file(path)
    assert data.split("train")
    with pytest.raises(DataError, match="no 'val' entry.*'val: images/val'"):
        data.split("val")
    with pytest.raises(DataError, match=r"test: 'images/tset' does not exist"):
        data.split("test")


def test_misspelt_paths_get_the_nearest_name(root: Path) -> None:
    data = read_dataset_file(write(root / "set" / "data.yaml", "train: images/trian\n" + NAMES))
    with pytest.raises(DataError, match=r"Did you mean '.*images/train'"):
        data.split("train")
    with pytest.raises(DataError, match=r"no such data file.*Did you mean '.*data\.yaml'"):
        read_dataset_file(root / "set" / "dta.yaml")


@pytest.mark.parametrize("entry", ["5", "{a: b}", "[images/train, 3]", "['']"])
def test_entries_that_are_no_paths(root: Path, entry: str) -> None:
    data = read_dataset_file(write(root / "set" / "data.yaml", f"train: {entry}\nval: images/val\n{NAMES}"))
    with pytest.raises(DataError, match="expected a folder, a list file, a COCO json or a glob"):
        data.split("train")


def test_extra_keys_are_read(root: Path) -> None:
    data = read_dataset_file(
        write(
            root / "set" / "data.yaml",
            SPLITS + NAMES + "imgsz: 320\nkpt_shape: [3, 2]\nflip_idx: [1, 0, 2]\n"
            "kpt_oks_sigmas: [0.1, 0.2, 1]\n",
        )
    )
    assert (data.imgsz, data.keypoints, data.flip_idx) == (320, (3, 2), (1, 0, 2))
    assert data.sigmas == (0.1, 0.2, 1.0)


@pytest.mark.parametrize("key", ["names", "path", "nc", "imgsz", "train", "kpt_shape"])
def test_aliases_of_aliases_do_not_grow(root: Path, key: str) -> None:
    levels = "".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]\n" for i in range(1, 30))
    text = f"l0: &l0 [x]\n{levels}{SPLITS}names: {{0: cat}}\n{key}: *l29\n"
    with pytest.raises(DataError, match=key) as caught:
        read_dataset_file(write(root / "set" / "data.yaml", text)).split("train")
    assert len(str(caught.value)) < 600


def test_merge_keys_do_not_grow(root: Path) -> None:
    levels = "".join(f"l{i}: &l{i}\n  <<: [{', '.join([f'*l{i - 1}'] * 9)}]\n" for i in range(1, 30))
    text = f"l0: &l0 {{x: 1}}\n{levels}{SPLITS}{NAMES}"
    assert len(read_dataset_file(write(root / "set" / "data.yaml", text)).names) == 2


def test_shared_data_sets_are_read(data_dir: Path) -> None:
    for name, classes in (("bccd", 3), ("coco_tiny", 80), ("coco_pose_tiny", 1)):
        data = read_dataset_file(data_dir / name / "data.yaml")
        assert len(data.names) == classes
        assert not data.faults


@pytest.mark.parametrize("entry", [r'"a\0b"', "x" * 5000, "~no-such-user-here/images"])
def test_impossible_paths_are_faults_of_the_file(root: Path, entry: str) -> None:
    data = read_dataset_file(write(root / "set" / "data.yaml", f"train: {entry}\nval: images/val\n{NAMES}"))
    with pytest.raises(DataError, match="does not exist|not a possible path"):
        data.split("train")
    with pytest.raises(DataError, match=r"nc is inf|not a possible path"):
        read_dataset_file(write(root / "set" / "b.yaml", f"path: {entry}\n{SPLITS}{NAMES}nc: .inf\n"))


YAML_WORDS = st.sampled_from(
    [
        "train",
        "val",
        "names",
        "nc",
        "path",
        ": ",
        "\n",
        "\n  ",
        "- ",
        "[",
        "]",
        "{",
        "}",
        ", ",
        "0",
        "1",
        "-1",
        ".inf",
        "cat",
        "null",
        "~",
        "!!str ",
        "!!python/name:x ",
        "&a ",
        "*a",
        "'",
        '"',
        "?",
        "|",
        ">",
        "#",
        "\t",
        "images/val",
        "1e3",
        "2020-01-01",
        "2020-99-99",
        "0x1F",
        "<<",
        "\x00",
        "\ufeff",
        "é",
        "%",
        "@",
        "`",
    ]
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(YAML_WORDS, max_size=40).map("".join))
def test_no_yaml_text_raises_anything_but_a_data_error(root: Path, text: str) -> None:
    path = write(root / "set" / "data.yaml", text)
    try:
        data = read_dataset_file(path)
        assert list(data.names) == list(range(len(data.names)))
        for split in ("train", "val", "test"):
            data.split(split)
    except DataError as error:
        assert "\n" not in str(error)  # noqa: PT017
