"""Released files: tensors and header survive, damage is one clear error."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from holdfast.errors import WeightsError
from holdfast.weights.store import read_safetensors, save_safetensors


def test_tensors_and_header_survive(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(2, 3).t(), "b": torch.tensor(4), "c": torch.randn(3).half()}
    header = {"name": "gelan-t", "classes": 2, "names": {"0": "Käfer", "1": "b"}, "deployed": False}
    save_safetensors(tmp_path / "x.safetensors", tensors, header)
    got, read = read_safetensors(tmp_path / "x.safetensors")
    assert read == header
    assert all(
        torch.equal(got[key], value) and got[key].dtype == value.dtype for key, value in tensors.items()
    )


def test_file_without_our_header_gives_an_empty_one(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "x.safetensors")
    assert read_safetensors(tmp_path / "x.safetensors")[1] == {}


@pytest.mark.parametrize("cut", [0, 4, 20, -1])
def test_damaged_file_is_one_clear_error(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "x.safetensors"
    save_safetensors(path, {"a": torch.ones(100)}, {})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(WeightsError, match=r"x\.safetensors"):
        read_safetensors(path)
    with pytest.raises(WeightsError, match="no weight file"):
        read_safetensors(tmp_path / "absent.safetensors")
