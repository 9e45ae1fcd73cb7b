"""What training is handed because it may not import it: a validator and a reporter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from holdfast.data.batch import Batch
from holdfast.data.index import Index
from holdfast.errors import HoldfastError
from holdfast.evaluate.metrics import Metrics
from holdfast.models.detector import Detector
from holdfast.post.original import Found


class Validation(Protocol):
    """What training reads of a validation's result."""

    @property
    def metrics(self) -> Metrics: ...

    @property
    def speed(self) -> dict[str, float]: ...

    @property
    def losses(self) -> tuple[float, ...] | None: ...

    @property
    def unread(self) -> int: ...


class Evaluator(Protocol):
    """Validates models on the validation split."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of what it finds, as in the metrics' `results_dict`."""

    def __call__(
        self,
        model: Detector,
        *,
        loss: Any = None,
        on_batch: Callable[[int, Batch, list[Found]], None] | None = None,
    ) -> Validation: ...

    def close(self) -> None: ...


class Examples(Protocol):
    """Chooses pictures of a validation (`report.examples`)."""

    def add(self, batch: Batch, found: list[Tensor]) -> None: ...


class Reporter(Protocol):
    """Draws the pictures of a run into its folder and writes its page (`report.run`)."""

    def train_batch(self, folder: Path, number: int, batch: Batch, names: Mapping[int, str]) -> None: ...

    def val_batch(
        self, folder: Path, number: int, batch: Batch, found: list[Found], names: Mapping[int, str]
    ) -> None: ...

    def data(
        self, folder: Path, splits: Mapping[str, Index], names: Mapping[int, str], say: Callable[[str], None]
    ) -> None: ...

    def examples(self, names: Mapping[int, str]) -> Examples: ...

    def finish(
        self,
        folder: Path,
        say: Callable[[str], None],
        metrics: Metrics | None = None,
        chosen: Any = None,
    ) -> Path | None: ...


def tell_of_end(
    reporter: Reporter, folder: Path, say: Callable[[str], None], kind: object, error: object, trace: object
) -> None:
    """Has the report of a run written that ends before its time; the exit of a context."""
    if isinstance(error, HoldfastError):
        reporter.finish(folder, say)
