"""`holdfast models`: every model with its size and cost, as numbers on file so that nothing has to be built.

Counted by `models.profile` at 80 classes and 640 pixels; a test recounts them. A model of a family without
numbers on file is counted on the spot. AP is what the authors published on COCO val2017.
"""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """Parameters and billions of operations, as trained and as deployed; published COCO AP."""

    name: str
    parameters: int
    gflops: float
    deployed_parameters: int
    deployed_gflops: float
    ap: str


ROWS = (
    Row("yolov9-t", 3_717_680, 16.276, 2_407_632, 9.818, "38.3"),
    Row("yolov9-s", 9_804_512, 39.501, 7_105_888, 26.379, "46.8"),
    Row("yolov9-m", 32_878_432, 132.083, 19_978_672, 76.309, "51.4"),
    Row("yolov9-c", 51_182_080, 238.655, 25_288_768, 102.137, "53.0"),
    Row("yolov9-e", 69_529_664, 243.963, 57_345_920, 188.946, "55.6"),
    Row("gelan-t", 2_442_640, 9.900, 2_407_632, 9.818, "-"),
    Row("gelan-s", 7_226_208, 26.709, 7_105_888, 26.379, "46.7"),
    Row("gelan-m", 20_124_000, 76.800, 19_978_672, 76.309, "51.1"),
    Row("gelan-c", 25_498_752, 102.819, 25_288_768, 102.137, "52.5"),
    Row("gelan-e", 58_114_432, 191.148, 57_345_920, 188.946, "55.0"),
    Row("yolo26n", 2_572_280, 5.958, 2_408_932, 5.357, "40.1 (40.9)"),
    Row("yolo26s", 10_009_784, 22.530, 9_496_140, 20.687, "47.8 (48.6)"),
    Row("yolo26m", 21_896_248, 74.766, 20_411_132, 68.180, "52.5 (53.1)"),
    Row("yolo26l", 26_299_704, 93.013, 24_807_420, 86.427, "54.4 (55.0)"),
    Row("yolo26x", 58_993_368, 208.356, 55_725_948, 193.865, "56.9 (57.5)"),
)


def listing() -> str:
    """The table as text."""
    from holdfast.models.registry import available

    on_file = {row.name: row for row in ROWS}
    rows = [on_file.get(name) or _counted(name) for name in available()]
    lines = [
        "                 as trained          deployed       published",
        "model       params M   GFLOPs   params M   GFLOPs   COCO AP",
    ]
    lines += [
        f"{row.name:<10} {row.parameters / 1e6:>9.2f} {row.gflops:>8.1f}"
        f" {row.deployed_parameters / 1e6:>10.2f} {row.deployed_gflops:>8.1f}   {row.ap}"
        for row in rows
    ]
    notes = [
        "80 classes, 640 pixels. Names with .yaml or without the hyphen work too.",
        "In brackets: AP of the other branch, with suppression (nms=True).",
    ]
    return "\n".join([*lines, "", *notes])


def _counted(name: str) -> Row:
    import torch

    from holdfast.models.profile import profile
    from holdfast.models.registry import build

    with torch.device("meta"):
        model = build(name)
        trained, deployed = profile(model), profile(model.deploy())
    return Row(name, trained.parameters, trained.gflops, deployed.parameters, deployed.gflops, "-")
