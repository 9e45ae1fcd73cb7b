"""Which batches of a run are drawn, and which images of its last validation the page shows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from holdfast.data.batch import Batch
from holdfast.post.original import Found
from holdfast.runs import SideFiles
from holdfast.train.roles import Examples, Reporter

DRAWN = 3  # first batches of training, and of the last validation


class Pictures:
    """Hands batches to the reporter.

    Args:
        reporter: draws.
        folder: the run folder.
        names: class names.
        files: keeps a disk that refuses from ending the run.

    Attributes:
        chosen: examples of the validation that was drawn.
    """

    def __init__(self, reporter: Reporter, folder: Path, names: Mapping[int, str], files: SideFiles) -> None:
        self.reporter = reporter
        self.folder = folder
        self.names = names
        self.files = files
        self.chosen: Examples = reporter.examples(names)

    def train(self, number: int, batch: Batch) -> None:
        """Draws what the network is fed."""
        if number < DRAWN:
            with self.files.spared(self.folder / f"train_batch{number}.jpg"):
                self.reporter.train_batch(self.folder, number, batch, self.names)

    def validation(self, number: int, batch: Batch, found: list[Found]) -> None:
        """Draws truth and answer, and looks for examples."""
        self.chosen.add(batch, [one.rows for one in found])
        if number < DRAWN:
            with self.files.spared(self.folder / f"val_batch{number}_pred.jpg"):
                self.reporter.val_batch(self.folder, number, batch, found, self.names)
