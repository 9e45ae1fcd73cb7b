"""`holdfast env` names all that decides how a training runs here."""

from __future__ import annotations

import json
import os

import pytest
import torch

from holdfast.cli.environment import covered
from holdfast.cli.main import main

FACTS = (
    "holdfast", "python", "platform", "torch", "cuda_build", "driver", "cudnn", "would_use", "cv2", "cpu",
    "features", "memory", "disk_here", "packages", "warnings",
)  # fmt: skip


def test_json_holds_every_fact_and_nothing_else_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["env", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [name for name in FACTS if name not in found] == []
    assert found["torch"]["version"] == torch.__version__
    assert found["cuda_build"]["cuda"] == torch.version.cuda
    assert found["cpu"]["cores"] == os.cpu_count()
    assert 0 < found["disk_here"]["free_bytes"] <= found["disk_here"]["total_bytes"]


def test_cores_that_torch_leaves_idle_are_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    if len(os.sched_getaffinity(0)) < 2 or torch.cuda.is_available():
        pytest.skip("needs two cores and no GPU")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert main(["env"]) == 0
    finally:
        torch.set_num_threads(before)
    assert "warning: torch computes with 1 of" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("capability", "archs", "runs"),
    [
        ("80", ["sm_80", "sm_90"], True),
        ("86", ["sm_80", "sm_90"], True),  # binaries run on later cards of their generation
        ("75", ["sm_80", "sm_90"], False),
        ("120", ["sm_80", "sm_90"], False),
        ("120", ["sm_90", "compute_90"], True),  # portable code is translated for later ones
        ("90", ["sm_90a"], True),
        ("100", ["sm_90a"], False),
    ],
)
def test_cards_that_a_wheel_has_no_code_for_are_known(capability: str, archs: list[str], runs: bool) -> None:
    assert covered(capability, archs) is runs
