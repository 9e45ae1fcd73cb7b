"""Data sets on disk, sound until a test breaks them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

YAML = "path: .\ntrain: images/train\nval: images/val\nnames: [red, green]\n"
ROWS = "0 0.3 0.3 0.2 0.2\n1 0.7 0.6 0.3 0.4\n"


def photo(seed: int, height: int = 96, width: int = 128) -> np.ndarray:
    """A picture like no other: smooth blotches of noise, BGR."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC))


def write(path: Path, image: np.ndarray, *options: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    done, data = cv2.imencode(path.suffix, image, list(options))
    assert done
    path.write_bytes(data.tobytes())
    return path


def label(root: Path, split: str, name: str, text: str = ROWS) -> None:
    path = root / "labels" / split / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def add(root: Path, split: str, name: str, image: np.ndarray, text: str = ROWS) -> Path:
    """Adds a labelled image."""
    label(root, split, name, text)
    return write(root / "images" / split / f"{name}.png", image)


def make(root: Path, counts: Mapping[str, int] | None = None, yaml: str = YAML) -> Path:
    """A sound data set; returns its data.yaml."""
    for number, (split, count) in enumerate((counts or {"train": 24, "val": 20}).items()):
        for i in range(count):
            add(root, split, f"{split}{i:02d}", photo(1000 * number + i))
    (root / "data.yaml").write_text(yaml)
    return root / "data.yaml"


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
