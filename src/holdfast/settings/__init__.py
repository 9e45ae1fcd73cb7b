"""Checked settings, one flat class per verb; the only owner of every default."""

from holdfast.settings.verbs import (
    AdviseSettings,
    CheckSettings,
    ConvertSettings,
    DemoSettings,
    DownloadSettings,
    PlanSettings,
    PredictSettings,
    ReportSettings,
    TrainSettings,
    ValSettings,
    WatchSettings,
)

__all__ = [
    "AdviseSettings",
    "CheckSettings",
    "ConvertSettings",
    "DemoSettings",
    "DownloadSettings",
    "PlanSettings",
    "PredictSettings",
    "ReportSettings",
    "TrainSettings",
    "ValSettings",
    "WatchSettings",
]
