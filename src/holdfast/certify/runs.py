"""The runs of a certificate: undisturbed ones, and ones with a fault, each in processes of their own."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from holdfast.children import Training
from holdfast.errors import HoldfastError

_SETTLED = 1 / 3  # of the steps, after which memory ought to stay


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A run and what was seen of it.

    Attributes:
        folder: the run folder.
        code: exit code of its last process; negative for a signal.
        said: all it said.
        seconds: from the start of the process to its end.
        first_loss: seconds from the start of the process to the end of its first step; None without one.
        measures: of the driver; empty where the process was killed.
    """

    folder: Path
    code: int
    said: str
    seconds: float
    first_loss: float | None
    measures: dict[str, Any]

    @property
    def results(self) -> dict[str, Any]:
        """results.json; empty where the run did not come to its end."""
        path = self.folder / "results.json"
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return found

    def metric(self, name: str) -> float:
        """A metric of the best weights, 0 to 1."""
        return float(self.results.get("metrics", {}).get(name, float("nan")))

    @property
    def peak(self) -> int:
        """Most bytes held at the end of a step: of the device, or of the process where it computes."""
        return int(self.measures.get("device_peak") or max(self.measures.get("resident", ()), default=0))

    def leak(self, *, steps_per_epoch: float) -> float:
        """Growth of the process's memory in ten epochs, as a share, by a line through the settled steps."""
        held = self.measures.get("resident", [])
        settled = held[int(_SETTLED * len(held)) :]
        if len(settled) < 3:
            return float("nan")
        slope, base = statistics.linear_regression(range(len(settled)), settled)
        return slope * 10 * steps_per_epoch / base


def train(
    keys: Mapping[str, Any], folder: Path, *, fault: str = "", step: int = 0, victims: Sequence[Path] = ()
) -> Trained:
    """Runs one training to its end, or to where the fault ends it.

    Args:
        keys: of `holdfast train`, without its folder.
        folder: the run folder to make, or that of the run that goes on.
        fault: what to plant, as in `driver.FAULTS`, after which step, and into which images.
    """
    measures = folder.with_suffix(".measures.json")
    plan = {
        "manifest": str(folder / "manifest.json"),
        "measures": str(measures),
        "fault": fault,
        "step": step,
        "victims": [str(path) for path in victims],
    }
    measures.unlink(missing_ok=True)
    where = {"project": str(folder.parent), "name": folder.name, "exist_ok": True}
    if "resume" in keys:
        del where["exist_ok"]
    began = time.time()
    with Training(
        {**keys, **where},
        log=folder.with_suffix(".log"),
        driver=("holdfast.certify.driver", json.dumps(plan)),
    ) as training:
        code = training.wait()
    seen = json.loads(measures.read_text(encoding="utf-8")) if measures.is_file() else {}
    return Trained(
        folder=folder,
        code=code,
        said=training.said(),
        seconds=time.time() - began,
        first_loss=seen["first_step"] - began if seen.get("first_step") else None,
        measures=seen,
    )


def go_on(run: Trained) -> Trained:
    """Resumes a run that was killed."""
    return train({"resume": str(run.folder / "weights" / "last.pt")}, run.folder)


def ended(run: Trained) -> Trained:
    """The run, which must have come to its end.

    Raises:
        HoldfastError: it did not; what it said last.
    """
    if run.code:
        lines = [line for line in run.said.splitlines() if line.strip()]
        raise HoldfastError(
            f"The undisturbed training {run.folder.name} ended with exit code {run.code}: "
            f"{(lines or ['it said nothing'])[-1].removeprefix('holdfast: error: ')}",
            hint=f"All it said is in {run.folder.with_suffix('.log')}.",
        )
    return run


def differing(one: Path, two: Path) -> list[str]:
    """Names of the tensors (weights, average, optimizer) of two runs' last checkpoints that are not equal to
    the last bit.
    """
    first, second = _state(one), _state(two)
    names = first.keys() | second.keys()
    return sorted(
        n for n in names if n not in first or n not in second or not torch.equal(first[n], second[n])
    )


def _state(folder: Path) -> dict[str, Tensor]:
    content = torch.load(folder / "weights" / "last.pt", map_location="cpu", weights_only=True)
    found = {
        f"{part} {key}": value for part in ("weights", "ema") for key, value in (content[part] or {}).items()
    }
    for number, kept in content["optimizer"]["state"].items():
        found |= {f"optimizer {number} {k}": v for k, v in kept.items() if isinstance(v, Tensor)}
    return found
