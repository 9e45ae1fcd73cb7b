"""Rules on losses and AP over the epochs: what goes well, overfits, is stuck, or has loose boxes.

Points are percent of AP. Curves are smoothed by medians of three, so that one odd epoch decides nothing.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from holdfast.health.records import Epoch, Finding, History

LEARNS = 10  # epochs in which a box loss ought to fall ...
FALLS = 0.4  # ... by this share
STUCK = 0.05  # less than this is none
USELESS = 0.1  # AP50 below which a run has not learned yet
RISES = 1.05  # validation loss over its lowest that counts as a rise
SINCE = 5  # validations since that lowest
TIGHT, LOOSE, SLIGHT = 15.0, 22.0, 8.0  # AP50 - AP50:95, points: healthy below, loose above, underfit below
WEAK = 0.5  # AP50 up to which a slight gap means that the model has not learned enough
SMALL_OBJECT = 16.0  # pixels in the input


def healthy(history: History) -> list[Finding]:
    """A box loss that falls by 40 % in ten epochs, and validation that follows."""
    fall, follows = _box_fall(history.epochs[:LEARNS]), _val_fall(history.epochs[:LEARNS])
    if fall is None or fall < FALLS or (follows is not None and follows <= 0):
        return []
    val = "" if follows is None else f", that of validation by {follows:.0%}"
    return [
        Finding(
            rule="learning",
            level="good",
            text=f"learns well: the box loss fell by {fall:.0%} in the first {LEARNS} epochs{val}",
            evidence={"box_loss_fall": fall, "val_loss_fall": follows},
            epoch=history.epochs[LEARNS - 1].epoch,
        )
    ]


def overfit(history: History) -> list[Finding]:
    """A training loss that goes on falling while that of validation rises, and AP has stopped rising."""
    rows = [(e, e.loss, e.val_loss) for e in history.epochs if e.loss is not None and e.val_loss is not None]
    if len(rows) < SINCE + 3:
        return []
    train, val = smooth([loss for _, loss, _ in rows]), smooth([loss for _, _, loss in rows])
    lowest = min(range(len(val)), key=val.__getitem__)
    if len(val) - 1 - lowest < SINCE or val[-1] < RISES * val[lowest] or train[-1] >= train[lowest]:
        return []
    scores = [epoch.map for epoch, _, _ in rows if epoch.map is not None]
    if scores and scores.index(max(scores)) >= len(scores) - 3:  # a loss may rise while answers get better
        return []
    at = rows[lowest][0].epoch
    patience = history.facts.patience
    shorter = min(patience, 2 * SINCE) if patience else 2 * SINCE
    return [
        Finding(
            rule="overfit",
            level="warning",
            text=f"overfits: since epoch {at} the training loss fell by {1 - train[-1] / train[lowest]:.0%} "
            f"while that of validation rose by {val[-1] / val[lowest] - 1:.0%}",
            evidence={"epoch": at, "train": [train[lowest], train[-1]], "val": [val[lowest], val[-1]]},
            remedy="best.pt is from before; stop sooner, and change images more or take more of them",
            flag=f"--patience {shorter}" + ("" if history.facts.mixup else " --mixup 0.1"),
            gain=60,
            epoch=rows[-1][0].epoch,
        )
    ]


def stuck(history: History) -> list[Finding]:
    """A loss that has not fallen in ten epochs, of a model that finds nothing. It is compared with the
    highest one of warm-up, because biases begin with a large learning rate and the loss may rise at first.
    """
    losses = [epoch.loss for epoch in history.epochs if epoch.loss is not None]
    best = max((epoch.map50 or 0.0 for epoch in history.validated), default=None)
    if len(losses) < LEARNS or (best is not None and best > USELESS):
        return []
    facts = history.facts
    start, now = max(losses[: math.ceil(facts.warmup_epochs) + 1]), statistics.median(losses[-3:])
    if now < (1 - STUCK) * start:
        return []
    side = facts.object_side
    small = side is not None and side < SMALL_OBJECT
    lower = f"--lr0 {facts.lr0 / 10:g}"
    if small:
        remedy = f"half of the objects are below {side:.0f} pixels in the input; make it larger"
        flag = f"--imgsz {2 * facts.imgsz}"
    else:
        remedy = "take smaller steps; if that does not help, see by 'holdfast check' whether labels fit"
        flag = lower if facts.optimizer != "auto" else f"--optimizer SGD {lower}"
    return [
        Finding(
            rule="stuck",
            level="warning",
            text=f"stuck: the loss is {now:.3g} after {len(losses)} epochs, and was {start:.3g} at first",
            evidence={"first": start, "now": now, "map50": best, "lr0": facts.lr0, "object_side": side},
            remedy=remedy,
            flag=flag,
            gain=85,
            epoch=history.epochs[-1].epoch,
        )
    ]


def gap(history: History) -> list[Finding]:
    """How much AP is lost when boxes must fit better: the gap between AP50 and AP50:95 of the best epoch."""
    if len(history.epochs) < LEARNS or not history.validated:
        return []
    best = max(history.validated, key=lambda epoch: epoch.map or 0.0)
    ap50, ap = 100 * (best.map50 or 0.0), 100 * (best.map or 0.0)
    points = ap50 - ap
    facts = history.facts
    known = {"map50": ap50, "map50_95": ap, "gap": points, "epoch": best.epoch}
    said = f"AP50 is {ap50:.1f} and AP50:95 {ap:.1f}, {points:.1f} points less"
    if points > LOOSE:
        return [
            Finding(
                rule="loose-boxes",
                level="advice",
                text=f"loose boxes: {said} (more than {LOOSE:g})",
                evidence=known,
                remedy="let boxes count more in the loss",
                flag=f"--box {1.33 * facts.box:.3g}",
                gain=48,
                epoch=best.epoch,
            )
        ]
    if points < SLIGHT and ap50 < 100 * WEAK:
        return [
            Finding(
                rule="underfit",
                level="advice",
                text=f"underfit: {said}, and the model does not find much yet",
                evidence=known,
                remedy="train longer, from trained weights, or a larger model",
                flag=f"--epochs {2 * facts.epochs}",
                gain=55,
                epoch=best.epoch,
            )
        ]
    if points < TIGHT:
        return [
            Finding(
                rule="tight-boxes",
                level="good",
                text=f"boxes fit well: {said}",
                evidence=known,
                epoch=best.epoch,
            )
        ]
    return []


def smooth(values: Sequence[float]) -> list[float]:
    """Medians of each value and its neighbours."""
    return [statistics.median(values[max(i - 1, 0) : i + 2]) for i in range(len(values))]


def _box_fall(epochs: Sequence[Epoch]) -> float | None:
    """Share by which the first term of the loss fell over ten epochs."""
    values = [next(iter(epoch.losses.values()), None) for epoch in epochs]
    if len(values) < LEARNS or not values[0] or values[-1] is None:
        return None
    return 1 - values[-1] / values[0]


def _val_fall(epochs: Sequence[Epoch]) -> float | None:
    """Share by which the validation loss fell; None without two."""
    values = [loss for epoch in epochs if (loss := epoch.val_loss) is not None]
    return 1 - values[-1] / values[0] if len(values) > 1 and values[0] else None
