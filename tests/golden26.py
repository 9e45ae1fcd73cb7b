"""The rule that rebuilds the weights, images and targets of the YOLO26 golden numbers
(shared/fixtures/yolo26/README.md).
"""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path

import numpy as np
import torch

from holdfast import models
from holdfast.geometry.boxes import cxcywh_to_xyxy
from holdfast.geometry.rotated import rotated_hull
from holdfast.geometry.targets import Targets
from holdfast.weights import load_official_state_dict

HEIGHT, WIDTH = 128, 160
CLASSES = {"pose": 1, "obb": 15, "cls": 1000}  # of fixture models, 80 for the others


def normal(tag: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.RandomState(zlib.crc32(tag.encode("utf-8"))).standard_normal(shape)


def weight(key: str, shape: tuple[int, ...], gain: float) -> torch.Tensor:
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    constants = {"loc": torch.zeros(2), "cov": torch.eye(2), "mask": torch.tensor([[0.0, 1], [1, 0]] * 3)}
    if "flow_model" in key and (name := key.rpartition(".")[2]) in constants:
        return constants[name]
    z = normal(key, shape)
    if key.endswith("running_mean"):
        v = 0.1 * z
    elif key.endswith("running_var"):
        v = 1 + 0.1 * abs(z)
    elif key.endswith("bn.weight"):
        v = 1 + 0.1 * z
    elif len(shape) < 2:
        tower = re.search(r"\.(?:one2one_)?cv([23])\.(\d)\.2\.bias$", key)
        if tower is None:
            v = 0.1 * z
        elif tower[1] == "2":
            v = (0.6, 1.2, 2.0, 3.0)[int(tower[2])] + 0.1 * z
        else:
            v = -3 + 0.3 * z
    else:
        if shape[1] > 1:
            z = z - z.mean(axis=tuple(range(1, len(shape))), keepdims=True)
        if "flow_model." in key:
            g = 0.5
        elif key.endswith("linear.weight"):
            g = 5.0
        elif re.search(r"\.attn\.|\.ffn\.1\.", key):
            g = 0.7
        elif re.search(r"\.(?:one2one_)?cv2\.\d\.2\.weight$", key):
            g = 0.3
        elif re.search(r"\.(?:one2one_)?(cv[34]\.\d\.2|cv4_(?:kpts|sigma)\.\d)\.weight$", key):
            g = 1.0
        else:
            g = gain
        v = g * z / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(v.astype(np.float32))


def official_weights(folder: Path, model: str) -> dict[str, torch.Tensor]:
    """The whole official state dict of a fixture model, in the order of its keys file."""
    gain = json.loads((folder / "manifest.json").read_text())[model]["gain"]
    keys = json.loads((folder / model / "keys.json").read_text())
    return {key: weight(key, tuple(shape), gain) for key, shape, *_ in keys}


def model(folder: Path, name: str) -> models.Detector:
    """A fixture model with its weights."""
    built = models.build(name, CLASSES.get(name.partition("-")[2], 80))
    load_official_state_dict(built, official_weights(folder, name), strict=True)
    return built


def image(tag: str, batch: int) -> torch.Tensor:
    r = np.random.RandomState(zlib.crc32(tag.encode("utf-8")))
    coarse = r.random_sample((batch, 3, HEIGHT // 16, WIDTH // 16))
    fine = r.random_sample((batch, 3, HEIGHT, WIDTH))
    return torch.from_numpy((0.7 * np.kron(coarse, np.ones((1, 1, 16, 16))) + 0.3 * fine).astype(np.float32))


def targets(folder: Path, task: str = "detect") -> Targets:
    """The objects of the training images."""
    data = {key: torch.from_numpy(value) for key, value in np.load(folder / f"targets_{task}.npz").items()}
    classes = data["cls"].flatten().long()
    if task == "classify":
        return Targets(torch.arange(len(classes)), classes, torch.zeros(len(classes), 4))
    order = data["batch_idx"].argsort(stable=True)
    image, classes, boxes = data["batch_idx"][order].long(), classes[order], data["bboxes"][order].float()
    pixels = boxes[:, :4] * torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT])
    masks = data["masks"][:, None] if "masks" in data else None  # one layer
    found = Targets(image, classes, cxcywh_to_xyxy(pixels), masks=masks)
    if boxes.shape[1] == 5:
        rotated = torch.cat((pixels, boxes[:, 4:]), 1)
        found = found._replace(rotated=rotated, boxes=rotated_hull(rotated))
    if "keypoints" in data:
        found = found._replace(keypoints=data["keypoints"][order] * torch.tensor([WIDTH, HEIGHT, 1]))
    return found
