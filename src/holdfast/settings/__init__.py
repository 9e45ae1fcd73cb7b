"""Checked settings, one flat class per verb; the only owner of every default."""

from holdfast.settings.verbs import (
    CheckSettings,
    ConvertSettings,
    DemoSettings,
    DownloadSettings,
    PlanSettings,
    PredictSettings,
    TrainSettings,
    ValSettings,
)

__all__ = [
    "CheckSettings",
    "ConvertSettings",
    "DemoSettings",
    "DownloadSettings",
    "PlanSettings",
    "PredictSettings",
    "TrainSettings",
    "ValSettings",
]
