"""The peer's side of benchmarks/official_files.py: a weight file of random weights, and what it answers."""

from __future__ import annotations

import sys

import numpy as np
import torch
from ultralytics import YOLO

name, folder = sys.argv[1:]
torch.manual_seed(0)
yolo = YOLO(f"{name}.yaml", verbose=False)
with torch.no_grad():
    for module in yolo.model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # as if trained, so that folding has something to fold
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.8, 1.2)
            module.weight.uniform_(0.9, 1.3)
        if isinstance(module, torch.nn.Conv2d) and module.out_channels == 80 and module.bias is not None:
            module.bias.add_(9.0)  # class scores start near 1e-5, where no difference would show
    state = yolo.model.state_dict()
    halved = {key: value.half().float() for key, value in state.items() if value.is_floating_point()}
    yolo.model.load_state_dict(halved, strict=False)  # the file holds 16 bits
    yolo.save(f"{folder}/{name}.pt")
    image = torch.rand(1, 3, 128, 160)
    answer = yolo.model.float().eval()(image)
decoded = answer[0] if isinstance(answer, (tuple, list)) else answer
np.savez(f"{folder}/{name}.npz", image=image.numpy(), decoded=decoded.numpy())  # (1, 4 + C, A), cx cy w h
