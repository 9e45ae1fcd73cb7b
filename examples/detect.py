"""Detect on pictures and use the boxes: python examples/detect.py weights.pt folder-or-picture."""

from __future__ import annotations

import sys

from holdfast import YOLO


def main(weights: str, source: str) -> None:
    model = YOLO(weights)
    for result in model.predict(source, stream=True, conf=0.25, verbose=False):
        print(f"{result.path}: {len(result.boxes)} objects")
        for box, score, label in zip(
            result.boxes.xyxy.tolist(), result.boxes.conf.tolist(), result.boxes.cls.tolist(), strict=True
        ):
            print(f"  {result.names[int(label)]} {score:.2f} at {[round(value) for value in box]}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
