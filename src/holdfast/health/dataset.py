"""Advice that follows from the size of a data set."""

from __future__ import annotations

from holdfast.health.records import Finding, History

SMALL = 5000  # images up to which a data set is small
LR0, WARMUP = 0.005, 1.0
_GRADIENT_DESCENT = ("SGD", "MuSGD")  # whose lr0 that is; others count in other units


def small(history: History) -> list[Finding]:
    """What helps with few images, as far as it is not in force."""
    facts = history.facts
    if not 0 < facts.train_images <= SMALL:
        return []
    changes = []
    if facts.optimizer in _GRADIENT_DESCENT and facts.lr0 > LR0:
        changes.append((f"--lr0 {LR0:g}", f"smaller steps (lr0 is {facts.lr0:g})"))
    if facts.warmup_epochs > WARMUP:
        now = f"a shorter warm-up (now {facts.warmup_epochs:g} epochs)"
        changes.append((f"--warmup-epochs {WARMUP:g}", now))
    if facts.mixup > 0:
        changes.append(("--mixup 0", f"no mixup (now {facts.mixup:g})"))
    if facts.autoaugment == "none":
        changes.append(("--autoaugment randaugment", "randaugment"))
    if not changes:
        return []
    return [
        Finding(
            rule="small-data-set",
            level="advice",
            text=f"small data set: {facts.train_images} training images",
            evidence={
                "train_images": facts.train_images,
                "optimizer": facts.optimizer,
                "lr0": facts.lr0,
                "warmup_epochs": facts.warmup_epochs,
                "mixup": facts.mixup,
                "autoaugment": facts.autoaugment,
            },
            remedy=f"try {', '.join(reason for _, reason in changes)}",
            flag=" ".join(flag for flag, _ in changes),
            gain=40,
            epoch=history.epochs[-1].epoch if history.epochs else 0,
        )
    ]
