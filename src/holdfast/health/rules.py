"""All rules, and what they say of a run."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.health import curves, dataset, gradients, memory, throughput
from holdfast.health.records import Finding, History

Rule = Callable[[History], list[Finding]]

RULES: tuple[Rule, ...] = (
    gradients.non_finite,
    gradients.runaway,
    gradients.layers,
    memory.leak,
    memory.pressure,
    memory.spare,
    memory.fragmentation,
    throughput.collapse,
    throughput.data_wait,
    curves.stuck,
    curves.overfit,
    curves.gap,
    curves.healthy,
    dataset.small,
)


def examine(history: History) -> list[Finding]:
    """What the rules say of a run, the greatest expected gain first; nothing before its first epoch ends."""
    if not history.epochs:
        return []
    found = [finding for rule in RULES for finding in rule(history)]
    return sorted(found, key=lambda finding: (finding.level == "good", -finding.gain))
