"""`holdfast models`: every model with its size and cost, as numbers on file so that the list is instant.

Counted by `models.profile` at 80 classes and 640 pixels; a test recounts them. AP is what the authors
published on COCO val2017.
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
    Row("yolov9-t", 3_717_648, 16.274, 2_407_616, 9.817, "38.3"),
    Row("yolov9-s", 9_804_480, 39.499, 7_105_872, 26.378, "46.8"),
    Row("yolov9-m", 32_878_400, 132.081, 19_978_656, 76.308, "51.4"),
    Row("yolov9-c", 51_182_048, 238.653, 25_288_752, 102.136, "53.0"),
    Row("yolov9-e", 69_529_632, 243.961, 57_345_904, 188.945, "55.6"),
    Row("gelan-t", 2_442_624, 9.899, 2_407_616, 9.817, "-"),
    Row("gelan-s", 7_226_192, 26.708, 7_105_872, 26.378, "46.7"),
    Row("gelan-m", 20_123_984, 76.799, 19_978_656, 76.308, "51.1"),
    Row("gelan-c", 25_498_736, 102.818, 25_288_752, 102.136, "52.5"),
    Row("gelan-e", 58_114_416, 191.147, 57_345_904, 188.945, "55.0"),
)


def listing() -> str:
    """The table as text."""
    lines = [
        "                 as trained          deployed           published",
        "model       params M   GFLOPs   params M   GFLOPs   COCO AP",
    ]
    lines += [
        f"{row.name:<10} {row.parameters / 1e6:>9.2f} {row.gflops:>8.1f}"
        f" {row.deployed_parameters / 1e6:>10.2f} {row.deployed_gflops:>8.1f} {row.ap:>9}"
        for row in ROWS
    ]
    return "\n".join([*lines, "", "80 classes, 640 pixels. Names with .yaml or without the hyphen work too."])
