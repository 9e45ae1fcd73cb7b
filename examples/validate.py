"""AP of a weight file, class by class: python examples/validate.py weights.pt data.yaml."""

from __future__ import annotations

import sys

from holdfast import YOLO


def main(weights: str, data: str) -> None:
    model = YOLO(weights)
    metrics = model.val(data=data, plots=False, verbose=False, project="runs/examples")
    for number, name in model.names.items():
        print(f"{name:<20} AP {metrics.ap[number]:.3f}  AP50 {metrics.ap50[number]:.3f}")
    print(f"{'all':<20} AP {metrics.map:.3f}  AP50 {metrics.map50:.3f}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
