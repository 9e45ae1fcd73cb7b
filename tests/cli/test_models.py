"""The list of models holds what a recount finds."""

from __future__ import annotations

import pytest

from holdfast.cli.models import ROWS, Row, _counted, listing
from holdfast.models import available, build
from holdfast.models.profile import profile


def test_numbers_on_file_are_of_known_models_once_in_order() -> None:
    on_file = [row.name for row in ROWS]
    assert on_file == [name for name in available() if name in on_file]


def test_list_has_every_model_once_in_order() -> None:
    shown = [line.split()[0] for line in listing().splitlines() if "-" in line or line.startswith("yolo26")]
    assert tuple(name for name in shown if name in available()) == available()


QUICK = ("yolov9-t", "gelan-t", "yolo26n")


@pytest.mark.parametrize(
    "row",
    [pytest.param(r, id=r.name, marks=[] if r.name in QUICK else pytest.mark.slow) for r in ROWS],
)
def test_counts_are_those_of_the_model(row: Row) -> None:
    model = build(row.name)
    trained, deployed = profile(model), profile(model.deploy())
    assert (trained.parameters, deployed.parameters) == (row.parameters, row.deployed_parameters)
    assert (trained.gflops, deployed.gflops) == pytest.approx((row.gflops, row.deployed_gflops), abs=0.001)


def test_a_model_without_numbers_on_file_is_counted() -> None:
    counted = _counted("yolo26n")
    assert counted == next(row for row in ROWS if row.name == "yolo26n")._replace(
        ap="-", gflops=counted.gflops, deployed_gflops=counted.deployed_gflops
    )
    assert (counted.gflops, counted.deployed_gflops) == pytest.approx((5.958, 5.357), abs=0.001)
