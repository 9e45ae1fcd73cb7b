"""The list of models holds what a recount finds."""

from __future__ import annotations

import pytest

from holdfast.cli.models import ROWS, Row
from holdfast.models import available, build
from holdfast.models.profile import profile


def test_list_has_every_model_once_in_order() -> None:
    assert tuple(row.name for row in ROWS) == available()


@pytest.mark.parametrize(
    "row",
    [pytest.param(r, id=r.name, marks=[] if r.name.endswith("-t") else pytest.mark.slow) for r in ROWS],
)
def test_counts_are_those_of_the_model(row: Row) -> None:
    model = build(row.name)
    trained, deployed = profile(model), profile(model.deploy())
    assert (trained.parameters, deployed.parameters) == (row.parameters, row.deployed_parameters)
    assert (trained.gflops, deployed.gflops) == pytest.approx((row.gflops, row.deployed_gflops), abs=0.001)
