"""What training is handed because it may not import it: a validator and a reporter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from holdfast.data.batch import Batch
from holdfast.data.index import Index
from holdfast.evaluate.coco import DetectionMetrics
from holdfast.models.detector import Detector
from holdfast.train.loop import Validation


class Evaluator(Protocol):
    """Validates models on the validation split."""

    def __call__(
        self,
        model: Detector,
        *,
        loss: Any = None,
        on_batch: Callable[[int, Batch, list[Tensor]], None] | None = None,
    ) -> Validation: ...

    def close(self) -> None: ...


class Reporter(Protocol):
    """Draws the pictures of a run into its folder (`report.reporter`)."""

    def train_batch(self, folder: Path, number: int, batch: Batch, names: Mapping[int, str]) -> None: ...

    def val_batch(
        self, folder: Path, number: int, batch: Batch, found: list[Tensor], names: Mapping[int, str]
    ) -> None: ...

    def labels(self, folder: Path, index: Index, names: Mapping[int, str]) -> None: ...

    def finish(self, folder: Path, metrics: DetectionMetrics) -> None: ...
