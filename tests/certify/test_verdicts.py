"""Verdicts follow from what runs left and from the limits that are stated."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from holdfast.certify.runs import Trained, differing
from holdfast.certify.verdicts import Verdict, of_fault, of_repeats
from holdfast.report.certificate_page import certificate_page


def run(
    folder: Path, *, map50: float = 0.9, weight: float = 1.0, code: int = 0, said: str = "", **more: Any
) -> Trained:
    (folder / "weights").mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"batch": more.pop("batch", 8)}))
    (folder / "results.json").write_text(json.dumps({"metrics": {"metrics/mAP50(B)": map50}}))
    state = {"weights": {"a": torch.tensor(weight)}, "ema": None, "optimizer": {"state": {}}}
    torch.save(state, folder / "weights" / "last.pt")
    measures = {"steps": 100, "bad_steps": [], "still_steps": [], "norms": [1.0], "device_peak": None}
    measures |= {"resident": [10**9] * 100, "first_step": 1.0, **more}
    return Trained(folder=folder, code=code, said=said, seconds=1.0, first_loss=3.0, measures=measures)


def judged(verdicts: list[Verdict]) -> dict[str, bool]:
    return {verdict.name: verdict.holds for verdict in verdicts}


def test_equal_runs_hold(tmp_path: Path) -> None:
    runs = [run(tmp_path / name) for name in "abc"]
    found = judged(of_repeats(runs, epochs=10, same_seed=True))
    assert found == dict.fromkeys(
        ("convergence", "gradients", "peak_memory", "first_loss", "leak", "exactness"), True
    )


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("convergence", {"map50": 0.909}),
        ("gradients", {"bad_steps": [7]}),
        ("gradients", {"still_steps": [7]}),
        ("leak", {"resident": [10**9 + step * 10**6 for step in range(100)]}),  # 10 % in ten epochs
        ("peak_memory", {"resident": [10**9] * 50 + [11 * 10**8] + [10**9] * 49}),
        ("exactness", {"weight": 1.0000001}),
    ],
)
def test_one_run_that_is_off_fails_its_verdict_only(name: str, fault: dict[str, Any], tmp_path: Path) -> None:
    runs = [run(tmp_path / "a"), run(tmp_path / "b", **fault)]
    found = judged(of_repeats(runs, epochs=10, same_seed=True))
    assert {key for key, holds in found.items() if not holds} - {"peak_memory"} == {name} - {"peak_memory"}
    assert not found[name]


def test_runs_that_learn_nothing_agree_on_nothing(tmp_path: Path) -> None:
    runs = [run(tmp_path / name, map50=0.0) for name in "ab"]
    assert not judged(of_repeats(runs, epochs=10, same_seed=False))["convergence"]


def test_memory_is_not_judged_before_it_has_settled(tmp_path: Path) -> None:
    assert "leak" not in judged(
        of_repeats([run(tmp_path / name) for name in "ab"], epochs=9, same_seed=False)
    )


@pytest.mark.parametrize(
    ("hurt", "message"),
    [
        ({"code": -9}, "ended with exit code -9"),
        ({"said": "nothing"}, "did not say 'memory'"),
        ({"batch": 4}, "the batch became 4 instead of 8"),
        ({"weight": 2.0}, "1 tensors differ, such as weights a"),
        ({}, ""),
    ],
)
def test_a_fault_must_leave_the_run_as_it_would_have_been(
    hurt: dict[str, Any], message: str, tmp_path: Path
) -> None:
    reference = run(tmp_path / "reference")
    disturbed = run(tmp_path / "hurt", **{"said": "memory ran out", **hurt})
    verdict = of_fault("oom", "title", disturbed, reference, exact=True, told="memory")
    assert verdict.holds is (not message)
    assert message in verdict.measured


def test_states_are_compared_by_every_bit_and_name(tmp_path: Path) -> None:
    one, two = run(tmp_path / "a"), run(tmp_path / "b")
    assert differing(one.folder, two.folder) == []
    content = torch.load(two.folder / "weights" / "last.pt", weights_only=True)
    content["ema"] = {"a": torch.tensor(1.0)}
    torch.save(content, two.folder / "weights" / "last.pt")
    assert differing(one.folder, two.folder) == ["ema a"]


def test_leak_needs_steps(tmp_path: Path) -> None:
    assert math.isnan(run(tmp_path / "a", resident=[1, 2]).leak(steps_per_epoch=1))


def test_the_page_needs_nothing_else_and_escapes_what_it_is_given() -> None:
    verdict = {"title": "A <b>", "measured": "x & y", "limit": "none", "holds": False}
    content = {
        "verdicts": [verdict], "settings": {"model": "<m>"}, "date": "today", "data": "d", "command": "c",
        "repeats": [], "environment": {"torch": {"version": "2", "threads": 1}, "cudnn": None},
    }  # fmt: skip
    page = certificate_page(content, b"png")
    assert "1 of 1 verdicts fail" in page
    assert "A &lt;b&gt;" in page
    assert "x &amp; y" in page
    assert "://" not in page
    assert "version 2, threads 1" in page
