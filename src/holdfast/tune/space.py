"""Where a search looks: the range of each setting, on a line or on a logarithmic scale."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from holdfast.errors import SettingsError, did_you_mean

_GRADIENT_DESCENT = ("SGD", "MuSGD")  # whose learning rates are about ten times those of Adam's family


@dataclass(frozen=True)
class Range:
    """Values from `low` to `high`; with `log` each factor is as likely as any other."""

    low: float
    high: float
    log: bool = False

    def holds(self, value: float) -> float:
        """The nearest value within."""
        return min(max(value, self.low), self.high)

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}" + (", logarithmic" if self.log else "")


USUAL: Mapping[str, Range] = {
    "lr0": Range(1e-3, 1e-1, log=True),
    "lrf": Range(0.005, 0.5, log=True),
    "momentum": Range(0.7, 0.98),
    "weight_decay": Range(1e-5, 1e-2, log=True),
    "warmup_epochs": Range(0.0, 5.0),
    "box": Range(2.0, 15.0, log=True),
    "cls": Range(0.2, 4.0, log=True),
    "dfl": Range(0.4, 6.0, log=True),
    "hsv_h": Range(0.0, 0.1),
    "hsv_s": Range(0.0, 0.9),
    "hsv_v": Range(0.0, 0.9),
    "translate": Range(0.0, 0.5),
    "scale": Range(0.0, 0.9),
    "fliplr": Range(0.0, 1.0),
    "mosaic": Range(0.0, 1.0),
    "mixup": Range(0.0, 0.5),
}
ON_REQUEST: Mapping[str, Range] = {
    "warmup_momentum": Range(0.0, 0.95),
    "warmup_bias_lr": Range(0.0, 0.2),
    "label_smoothing": Range(0.0, 0.1),
    "degrees": Range(0.0, 45.0),
    "shear": Range(0.0, 10.0),
    "perspective": Range(0.0, 0.001),
    "flipud": Range(0.0, 1.0),
    "cutmix": Range(0.0, 0.5),
    "copy_paste": Range(0.0, 0.5),
    "ema_decay": Range(0.99, 0.99995),
}
_ADAM_RATE = Range(1e-4, 1e-2, log=True)


def space(search: Sequence[str], *, given: Collection[str], optimizer: str) -> dict[str, Range]:
    """The range of each key that is searched.

    Args:
        search: keys that were asked for; empty takes the usual ones without those given by hand.
        given: keys given by hand or by a `hyp` file.
        optimizer: decides the range of lr0; "auto" would ignore lr0 and momentum.

    Raises:
        SettingsError: a key that no search knows, or one that would have no effect.
    """
    known = {**USUAL, **ON_REQUEST}
    if unknown := next((key for key in search if key not in known), None):
        hint = did_you_mean(unknown, known).strip() or f"It knows {', '.join(known)}."
        raise SettingsError(f"A search does not know the key '{unknown}'.", hint=hint)
    keys = [key for key in known if key in search] or [key for key in USUAL if key not in given]
    if not keys:
        raise SettingsError(
            "Every key that is usually searched is given by hand, so nothing is left to search.",
            hint="Name some with --search, such as --search lr0,box.",
        )
    idle = [key for key in keys if key in ("lr0", "momentum")]
    if idle and optimizer == "auto":
        raise SettingsError(
            f"optimizer=auto chooses {' and '.join(idle)} by itself, so a search cannot.",
            hint="Name an optimizer, such as --optimizer SGD.",
        )
    found = {key: known[key] for key in keys}
    if "lr0" in found and optimizer not in _GRADIENT_DESCENT:
        found["lr0"] = _ADAM_RATE
    return found


def to_plain(ranges: Mapping[str, Range]) -> dict[str, dict[str, Any]]:
    """The ranges as plain data."""
    return {key: asdict(value) for key, value in ranges.items()}


def from_plain(content: Mapping[str, Mapping[str, Any]]) -> dict[str, Range]:
    """What `to_plain` gave."""
    return {key: Range(**value) for key, value in content.items()}


def rounded(value: float) -> float:
    """The value with six digits, as it is handed to a training and written down."""
    return 0.0 if value == 0 else round(value, 5 - math.floor(math.log10(abs(value))))
