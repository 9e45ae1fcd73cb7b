"""`holdfast models`: every model with its size and cost, as numbers on file so that nothing has to be built.

Counted by `models.profile` at 80 classes and 640 pixels; a test recounts them. A model of a family without
numbers on file is counted on the spot. AP is what the authors published on COCO
val2017, or what the row says.
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
    Row("yolo26n-seg", 3_126_280, 11.322, 2_722_980, 9.127, "33.9 mask"),
    Row("yolo26s-seg", 11_505_800, 40.962, 10_396_300, 34.216, "40.0 mask"),
    Row("yolo26m-seg", 27_112_072, 147.166, 23_569_148, 121.498, "44.1 mask"),
    Row("yolo26l-seg", 31_515_528, 165.413, 27_965_436, 139.745, "45.5 mask"),
    Row("yolo26x-seg", 70_693_800, 370.695, 62_819_132, 313.491, "47.0 mask"),
    Row("yolo26n-pose", 3_747_554, 10.579, 2_960_395, 7.619, "57.2 pose"),
    Row("yolo26s-pose", 11_870_498, 29.344, 10_390_323, 24.046, "63.1 pose"),
    Row("yolo26m-pose", 24_344_482, 85.340, 21_599_075, 73.419, "68.8 pose"),
    Row("yolo26l-pose", 28_747_938, 103.587, 25_995_363, 91.666, "70.4 pose"),
    Row("yolo26x-pose", 62_914_350, 225.219, 57_649_077, 202.242, "71.6 pose"),
    Row("yolo26n-obb", 2_715_614, 6.449, 2_480_503, 5.603, "52.4 DOTA"),
    Row("yolo26s-obb", 10_582_142, 24.492, 9_782_127, 21.669, "54.8 DOTA"),
    Row("yolo26m-obb", 23_593_918, 82.140, 21_259_583, 71.867, "55.3 DOTA"),
    Row("yolo26l-obb", 27_997_374, 100.388, 25_655_871, 90.115, "56.2 DOTA"),
    Row("yolo26x-obb", 62_811_678, 224.948, 57_634_527, 202.161, "56.7 DOTA"),
    Row("yolo26n-cls", 1_633_584, 3.170, 1_628_504, 3.170, "71.4 top-1"),
    Row("yolo26s-cls", 5_545_488, 11.975, 5_536_608, 11.975, "76.0 top-1"),
    Row("yolo26m-cls", 10_455_696, 39.258, 10_444_112, 39.258, "78.1 top-1"),
    Row("yolo26l-cls", 12_937_104, 49.326, 12_920_912, 49.326, "79.0 top-1"),
    Row("yolo26x-cls", 28_458_544, 110.322, 28_434_896, 110.322, "79.9 top-1"),
)


def listing() -> str:
    """The table as text."""
    from holdfast.models.registry import available

    on_file = {row.name: row for row in ROWS}
    rows = [on_file.get(name) or _counted(name) for name in available()]
    lines = [
        "                   as trained          deployed       published",
        "model         params M   GFLOPs   params M   GFLOPs   COCO AP",
    ]
    lines += [
        f"{row.name:<12} {row.parameters / 1e6:>9.2f} {row.gflops:>8.1f}"
        f" {row.deployed_parameters / 1e6:>10.2f} {row.deployed_gflops:>8.1f}   {row.ap}"
        for row in rows
    ]
    notes = [
        "80 classes, 640 pixels. Names with .yaml or without the hyphen work too.",
        "In brackets: AP of the other branch, with suppression (nms=True). Numbers with a name: mask and",
        "pose are COCO AP of these, DOTA is rotated AP on DOTA-v1, top-1 is percent on ImageNet.",
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
