"""Train on your own data and measure the result: python examples/train.py data.yaml [epochs]."""

from __future__ import annotations

import sys

from holdfast import YOLO


def main(data: str, epochs: int) -> None:
    model = YOLO("yolov9-t")
    metrics = model.train(data=data, epochs=epochs, imgsz=320, batch=16, project="runs/examples")
    print(f"mAP50 {metrics.map50:.3f}, mAP50-95 {metrics.map:.3f}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 100)
