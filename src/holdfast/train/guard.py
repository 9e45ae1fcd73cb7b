"""Whether a step counts: finite, and not far outside of what the last steps were.

A loss spike is told by a robust z-score: how many median absolute deviations the logarithm of the loss lies
above the median of the last steps. Only high losses are spikes, and only a few in a row: then the level has
changed, and the new one is learned.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Sequence

WINDOW = 100  # steps that a loss is compared with
FEWEST = 30  # steps before spikes are told
SCORE = 12.0  # deviations above the median that make a spike
FACTOR = 3.0  # and times the median loss, so that very even losses do not make spikes of small changes
IN_A_ROW = 3  # spikes, before the level is taken to have changed


def is_finite(norm: float, items: Sequence[float]) -> bool:
    """Whether the norm of a gradient and the losses are finite."""
    return math.isfinite(norm) and all(map(math.isfinite, items))


class Guard:
    """Judges steps by their gradient norm and loss.

    Args:
        spikes: whether to look for loss spikes too.
    """

    def __init__(self, *, spikes: bool = True) -> None:
        self.spikes = spikes
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._row = 0

    def judge(self, norm: float, items: Sequence[float]) -> str:
        """Returns why a step must not be taken; an empty text when it may.

        Args:
            norm: of all gradients together, before clipping.
            items: the losses.
        """
        if not all(math.isfinite(item) for item in items):
            return "the loss is not finite"
        if not math.isfinite(norm):
            return "the gradient is not finite"
        loss = sum(items)
        if self.is_spike(loss) and self._row < IN_A_ROW:
            self._row += 1
            return f"the loss jumped to {loss:.3g} from {statistics.median(self._losses):.3g}"
        if self._row >= IN_A_ROW:  # a new level: what was before tells nothing about it
            self._losses.clear()
        self._row = 0
        self._losses.append(loss)
        return ""

    def state(self) -> list[float]:
        """What a resumed run must know: the losses compared with, and after them the spikes in a row."""
        return [*self._losses, float(self._row)]

    def load_state(self, state: Sequence[float]) -> None:
        """Takes over what `state` returned."""
        if not state:  # of a run that had no guard
            return
        *losses, row = state
        self._losses = deque(losses, maxlen=WINDOW)
        self._row = int(row)

    @property
    def in_a_row(self) -> int:
        """Spikes refused since the last good step."""
        return self._row

    def is_spike(self, loss: float) -> bool:
        """Whether a loss is far above the last ones."""
        if not self.spikes or len(self._losses) < FEWEST or loss <= 0:
            return False
        logs = [math.log(max(value, 1e-12)) for value in self._losses]
        middle = statistics.median(logs)
        deviation = statistics.median(abs(value - middle) for value in logs)
        above = math.log(loss) - middle
        return above > max(SCORE * 1.4826 * deviation, math.log(FACTOR))
