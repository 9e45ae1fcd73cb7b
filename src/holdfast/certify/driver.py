"""A training in a process of its own that is measured and disturbed through torch's global hooks.

Nothing of the training knows of this module: the ordinary command line runs, between hooks that see each step
of any optimizer and each pass of any module. They begin to count when the run has written its manifest, which
it does between planning and its first step.

    python -m holdfast.certify.driver '{"measures": "m.json", "fault": "kill", "step": 9}' train model=...
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.optim.optimizer import (
    Optimizer,
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from holdfast.cli.main import main as command
from holdfast.models.detector import Detector
from holdfast.train.launch import end_with_parent

FAULTS = ("", "nan_weights", "damaged_images", "out_of_memory", "kill")


class Driver:
    """Measures a run and plants one fault into it.

    Args:
        manifest: a file that is there once the run has planned.
        fault: one of `FAULTS`.
        step: of the run, after which the fault strikes; from 1.
        victims: images that `damaged_images` cuts short.
    """

    def __init__(
        self, manifest: Path, *, fault: str = "", step: int = 0, victims: Sequence[str] = ()
    ) -> None:
        self.manifest = manifest
        self.fault = fault
        self.at = step
        self.victims = victims
        self.steps = self.passes = 0
        self.first_step = 0.0
        self.bad: list[int] = []
        self.still: list[int] = []
        self.norms: list[float] = []
        self.resident: list[int] = []
        self._begun = False

    def begun(self) -> bool:
        """Whether the run has begun its steps."""
        self._begun = self._begun or self.manifest.is_file()
        return self._begun

    def before_step(self, optimizer: Optimizer, *_: Any) -> None:
        """Looks at every gradient of a step that counts."""
        if not self.begun():
            return
        grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norms = torch.stack(torch._foreach_norm(grads)) if grads else torch.zeros(1)
        if not bool(norms.isfinite().all()):
            self.bad.append(self.steps + 1)
        if not bool(norms.any()):
            self.still.append(self.steps + 1)
        self.norms.append(float(norms.norm()))

    def after_step(self, optimizer: Optimizer, *_: Any) -> None:
        """Counts a step, and disturbs the run after the one that was asked for."""
        if not self.begun():
            return
        self.steps += 1
        self.first_step = self.first_step or time.time()
        self.resident.append(int(psutil.Process().memory_info().rss))
        if self.steps != self.at:
            return
        if self.fault == "nan_weights":
            optimizer.param_groups[0]["params"][0].data.view(-1)[0] = float("nan")
        elif self.fault == "damaged_images":
            for path in map(Path, self.victims):
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
        elif self.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)

    def after_pass(self, module: nn.Module, args: tuple[Tensor, ...], outputs: Any) -> None:
        """Runs out of memory once, in the training pass that was asked for."""
        if self.fault != "out_of_memory" or not isinstance(module, Detector) or not module.training:
            return
        if self.begun():
            self.passes += 1
            if self.passes == self.at:
                raise torch.OutOfMemoryError("out of memory, planted once")

    def measures(self) -> dict[str, Any]:
        """What was seen, as plain data; bytes of the host, and of the device where there is one."""
        cuda = torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        return {
            "first_step": self.first_step,
            "steps": self.steps,
            "bad_steps": self.bad,
            "still_steps": self.still,
            "norms": [round(value, 6) for value in self.norms],
            "resident": self.resident,
            "device_peak": torch.cuda.max_memory_allocated() if cuda else None,
        }


def main(words: Sequence[str]) -> int:
    """Runs the command line in `words[1:]` as the plan in `words[0]` says, and returns its exit code."""
    end_with_parent()
    plan = json.loads(words[0])
    driver = Driver(
        Path(plan["manifest"]),
        fault=plan.get("fault", ""),
        step=plan.get("step", 0),
        victims=plan.get("victims", ()),
    )
    with ExitStack() as stack:
        for handle in (
            register_optimizer_step_pre_hook(driver.before_step),
            register_optimizer_step_post_hook(driver.after_step),
            register_module_forward_hook(driver.after_pass),
        ):
            stack.callback(handle.remove)
        code = command(words[1:])
    Path(plan["measures"]).write_text(json.dumps(driver.measures()), encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
