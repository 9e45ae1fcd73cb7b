"""Whether weight files the peer writes are read whole, and how far our answers are from the peer's.

    python benchmarks/official_files.py --peer-python PEER/bin/python

For each model the peer writes a `.pt` file of random weights through its own `save`, and its decoded answer
(boxes in pixels, probabilities) to a random 128x160 image; ours reads the file without it and answers too.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch

from common import HERE, emit, table
from holdfast.geometry.boxes import xyxy_to_cxcywh
from holdfast.load import load_model
from holdfast.models.outputs import DetectOutputs
from holdfast.post.decode import decode

MODELS = (*(f"yolov9{size}" for size in "tsmce"), "yolo26n", "yolo26m")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer-python", required=True, help="Python of an environment with the peer")
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--out", help="file to append the JSON lines to")
    options = parser.parse_args()
    rows = []
    for name in options.models:
        with tempfile.TemporaryDirectory() as folder:
            script = str(HERE / "peer" / "official_files.py")
            command = [options.peer_python, script, name, folder]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            record = compare(Path(folder) / f"{name}.pt", dict(np.load(Path(folder) / f"{name}.npz")))
        emit({"what": "official file", "model": name, **record}, options.out)
        pixels, probability = (f"{record[key]:.1e}" for key in ("pixels", "probability"))
        tensors = f"{record['loaded']} of {record['total']}"
        rows.append([name, tensors, str(record["unused"]), pixels, probability])
    print(table(["model", "tensors", "unused", "largest difference, px", "of probabilities"], rows))


def compare(file: Path, want: dict[str, np.ndarray]) -> dict[str, float]:
    """Reads the peer's file and compares the branch that answers through suppression."""
    loaded = load_model(file)
    model = loaded.model.float().eval()
    with torch.no_grad():
        outputs = model(torch.from_numpy(want["image"]))
    branch = outputs.main if isinstance(outputs, DetectOutputs) else outputs.one_to_many
    boxes, scores = decode(branch, strides=model.strides, reg_max=model.reg_max)
    expected = torch.from_numpy(want["decoded"]).transpose(1, 2)  # (1, A, 4 + C)
    assert loaded.transfer is not None
    return {
        "loaded": loaded.transfer.loaded,
        "total": loaded.transfer.total,
        "unused": len(loaded.transfer.unused),
        "pixels": float((xyxy_to_cxcywh(boxes) - expected[..., :4]).abs().max()),
        "probability": float((scores - expected[..., 4:]).abs().max()),
    }


if __name__ == "__main__":
    main()
