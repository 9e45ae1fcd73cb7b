"""Official checkpoints are read without that program; names come along; damage is one clear error."""

from __future__ import annotations

import io
import json
import os
import random
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from torchfiles import module_checkpoint, training_checkpoint, write_zip

import golden
from holdfast.errors import WeightsError
from holdfast.weights import read_official

FILES = ("yolov9-t.last-nc4", "yolov9-t.stripped-nc5")


@pytest.mark.parametrize("file", FILES)
def test_fixture_comes_with_every_tensor_name_and_fact(fixtures_v9: Path, file: str) -> None:
    want = json.loads((fixtures_v9 / f"{file}.json").read_text())
    got = read_official(fixtures_v9 / f"{file}.pt")
    assert len(got.state_dict) == want["n_keys"]
    assert (got.classes, got.epoch, got.updates, got.source) == (
        want["nc"], want["epoch"], want["updates"], want["use"],
    )  # fmt: skip
    assert got.names == dict(enumerate(want["names"]))
    assert got.model_name == want["cfg"]
    assert got.best_fitness == want["best_fitness"]
    assert got.settings is not None
    assert got.settings["hyp"]["lr0"] == 0.01
    for key, total, squares in want["weights_check_half"]:
        value = got.state_dict[key].double()
        assert value.sum().item() == pytest.approx(total, abs=1e-9)
        assert value.square().sum().item() == pytest.approx(squares, abs=1e-9)


def test_averaged_weights_are_preferred_over_raw_ones(fixtures_v9: Path) -> None:
    got = read_official(fixtures_v9 / "yolov9-t.last-nc4.pt").state_dict["model.0.conv.weight"]
    assert torch.equal(got, golden.weight("model.0.conv.weight", (16, 3, 3, 3)).half())
    raw = golden.weight("model.0.conv.weight", (16, 3, 3, 3), "raw/").half()
    assert not torch.equal(got, raw)


def test_unsafe_probe_is_refused_by_name_and_does_not_run(fixtures_v9: Path) -> None:
    with pytest.raises(WeightsError, match="exec"):
        read_official(fixtures_v9 / "unsafe-probe.pt")
    assert "YOLOV9_FIXTURE_CODE_RAN" not in os.environ


@pytest.mark.parametrize("task", ["detect", "pose"])
def test_yolo26_fixture_comes_with_every_fact(fixtures_26: Path, task: str) -> None:
    stem = "yolo26n" if task == "detect" else "yolo26n-pose"
    want = json.loads((fixtures_26 / "checkpoints" / f"{stem}.json").read_text())
    got = read_official(fixtures_26 / "checkpoints" / f"{stem}.pt")
    assert got.names == {int(key): name for key, name in want["names"].items()}
    assert (got.task, got.classes, got.epoch, got.source) == (task, want["nc"], -1, "model")
    assert (got.model_name, got.imgsz) == (stem, 640)
    assert got.strides == tuple(want["stride"])
    assert len(got.state_dict) == want["state_dict_entries"]
    assert {value.dtype for value in got.state_dict.values()} == {torch.float16, torch.int64}
    total = sum(value.double().sum().item() for value in got.state_dict.values())
    assert total == pytest.approx(want["weights_sum_fp16"], abs=1e-2)


@pytest.mark.parametrize("fused", [False, True])
def test_training_checkpoint_of_ultralytics_gives_its_averaged_model_and_nothing_else(
    tmp_path: Path, fused: bool
) -> None:
    (tmp_path / "x.pt").write_bytes(training_checkpoint(fused=fused))
    got = read_official(tmp_path / "x.pt")
    assert list(got.state_dict) == ["model.0.weight", "model.0.bias"]  # the loss has tensors of its own
    assert got.state_dict["model.0.bias"].dtype == torch.float16
    assert (got.source, got.epoch, got.updates, got.best_fitness) == ("ema", 4, 9, 1.0)
    assert (got.names, got.classes, got.task) == ({0: "a", 1: "b"}, 2, "detect")
    assert (got.strides, got.model_name, got.imgsz) == ((8.0, 16.0, 32.0), "yolo26n", 96)


@pytest.mark.parametrize("legacy", [False, True])
def test_both_containers_hold_the_same(tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(module_checkpoint(legacy=legacy))
    got = read_official(path)
    assert {key: tuple(value.shape) for key, value in got.state_dict.items()} == {
        "model.0.weight": (4, 3, 1, 1),
        "model.0.bias": (4,),
    }
    assert all(value.dtype == torch.float16 for value in got.state_dict.values())
    assert (got.names, got.classes, got.epoch) == ({0: "a", 1: "b"}, 2, 7)
    assert (got.date, got.settings) == ("2024-01-01", {"lr0": 0.01})


@pytest.mark.parametrize("legacy", [False, True])
def test_numbers_shapes_and_strides_are_those_that_torch_reads(tmp_path: Path, legacy: bool) -> None:
    base = torch.arange(24, dtype=torch.float32)
    want = {
        "plain": base.view(2, 3, 4),
        "transposed": base.view(4, 6).t(),
        "offset": base[5:9],
        "bfloat16": torch.randn(3).bfloat16(),
        "double": torch.randn(3).double(),
        "long": torch.tensor(3),
        "bool": torch.tensor([True, False]),
        "int8": torch.tensor([-1, 2], dtype=torch.int8),
        "empty": torch.empty(0, 3),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    torch.save(want, tmp_path / "x.pt", _use_new_zipfile_serialization=not legacy)
    got = read_official(tmp_path / "x.pt").state_dict
    assert list(got) == list(want)
    for key, value in want.items():
        assert got[key].dtype == value.dtype
        assert torch.equal(got[key], value)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_cut_anywhere_is_one_clear_error(tmp_path: Path, legacy: bool) -> None:
    whole = module_checkpoint(legacy=legacy)
    path = tmp_path / "cut.pt"
    for length in [0, 1, 2, 3, 10, *range(50, len(whole) - 1, 97), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(WeightsError, match=r"cut\.pt"):
            read_official(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_flipped_bytes_never_escape_as_another_error(tmp_path: Path, legacy: bool) -> None:
    whole = module_checkpoint(legacy=legacy)
    draw = random.Random(0)
    path = tmp_path / "bad.pt"
    if not legacy:  # damage inside the pickle, behind the checksum
        with zipfile.ZipFile(io.BytesIO(whole)) as archive:
            name = next(n for n in archive.namelist() if n.endswith("data.pkl"))
            payload = archive.read(name)
            others = {n.split("/")[-1]: archive.read(n) for n in archive.namelist() if "/data/" in n}
    for _ in range(300):
        data = bytearray(whole if legacy else payload)
        for _ in range(draw.randint(1, 4)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        if legacy:
            path.write_bytes(data)
        else:
            write_zip(path, bytes(data), others)
        try:
            read_official(path)
        except WeightsError as fault:
            assert "\n" not in str(fault)  # noqa: PT017


def test_checksum_of_the_container_is_checked(tmp_path: Path) -> None:
    whole = bytearray(module_checkpoint())
    weights = torch.load(io.BytesIO(whole), weights_only=False)["model"].state_dict()["model.0.bias"]
    at = whole.index(weights.numpy().tobytes())
    whole[at] ^= 1
    (tmp_path / "x.pt").write_bytes(whole)
    with pytest.raises(WeightsError, match="CRC"):
        read_official(tmp_path / "x.pt")


def tensor_pickle(*, shape: tuple[int, ...], strides: tuple[int, ...], offset: int, count: int) -> bytes:
    """The opcodes of {"w": tensor} over one float storage."""

    def number(value: int) -> bytes:
        return b"\x8a\x08" + struct.pack("<q", value)

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    storage = b"(Vstorage\nctorch\nFloatStorage\nV0\nVcpu\n" + number(count) + b"tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(offset) + numbers(shape)
    tensor += numbers(strides)
    return b"}Vw\n" + tensor + b"\x89NtRs."


@pytest.mark.parametrize(
    ("shape", "strides", "offset", "count"),
    [
        ((5,), (1,), 0, 4),  # one too many
        ((4,), (1,), 1, 4),  # shifted past the end
        ((2, 2), (3, 1), 0, 4),  # last element at 4
        ((4,), (-1,), 3, 4),  # negative stride
        ((4,), (1,), -1, 4),
        ((-4,), (1,), 0, 4),
        ((2**20, 2**20), (0, 0), 0, 4),  # a terabyte out of one number
        ((2,), (2**62,), 0, 4),
        ((4,), (1, 1), 0, 4),
        ((4,), (1,), 0, 2**40),  # storage larger than the file
        ((4,), (1,), 0, 5),  # storage shorter than stated
    ],
)
def test_tensors_that_reach_outside_their_storage_are_refused(
    tmp_path: Path, shape: tuple[int, ...], strides: tuple[int, ...], offset: int, count: int
) -> None:
    payload = tensor_pickle(shape=shape, strides=strides, offset=offset, count=count)
    with pytest.raises(WeightsError):
        read_official(write_zip(tmp_path / "x.pt", payload, {"0": bytes(16)}))


def test_hand_made_tensor_within_bounds_is_read(tmp_path: Path) -> None:
    payload = tensor_pickle(shape=(2, 2), strides=(1, 2), offset=0, count=4)
    path = write_zip(tmp_path / "x.pt", payload, {"0": struct.pack("<4f", 1, 2, 3, 4)})
    assert read_official(path).state_dict["w"].tolist() == [[1, 3], [2, 4]]


def test_compressed_entries_are_refused(tmp_path: Path) -> None:
    payload = tensor_pickle(shape=(4,), strides=(1,), offset=0, count=4)
    path = write_zip(tmp_path / "x.pt", payload, {"0": bytes(16)}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(WeightsError, match="compressed"):
        read_official(path)


def test_endless_module_tree_is_refused(tmp_path: Path) -> None:
    # A module that is its own child.
    payload = b"cmodels.yolo\nModel\n)\x81q\x00}V_modules\n}Va\nh\x00sVb\nh\x00ssb."
    with pytest.raises(WeightsError, match="larger"):
        read_official(write_zip(tmp_path / "x.pt", payload))


def test_module_tree_shared_at_every_level_ends(tmp_path: Path) -> None:
    # Forty levels, each holding the next twice and no tensor at all: 2**40 visits if each is walked.
    level = b"cmodels.yolo\nModel\n)\x81}V_modules\n}"
    payload = b"N" + b"".join(b"q\x010" + level + b"Va\nh\x01sVb\nh\x01ssb" for _ in range(40)) + b"."
    with pytest.raises(WeightsError):
        read_official(write_zip(tmp_path / "x.pt", payload))


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"not a weight file", "torch.save"), (b"", "torch.save"), (b"PK\x03\x04 broken", "cannot be read")],
)
def test_other_files_are_named_as_such(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(WeightsError, match=says):
        read_official(tmp_path / "x.pt")


def test_missing_file_folder_and_foreign_zip(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no weight file"):
        read_official(tmp_path / "absent.pt")
    with pytest.raises(WeightsError, match="folder"):
        read_official(tmp_path)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(WeightsError, match=r"data\.pkl"):
        read_official(tmp_path / "x.zip")
    torch.save({"epoch": 1}, tmp_path / "y.pt")
    with pytest.raises(WeightsError, match="no model"):
        read_official(tmp_path / "y.pt")
