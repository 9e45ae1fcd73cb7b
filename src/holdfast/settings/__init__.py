"""Checked settings, one flat class per verb; the only owner of every default."""

from holdfast.settings.verbs import (
    ConvertSettings,
    DemoSettings,
    DownloadSettings,
    PredictSettings,
    TrainSettings,
    ValSettings,
)

__all__ = [
    "ConvertSettings",
    "DemoSettings",
    "DownloadSettings",
    "PredictSettings",
    "TrainSettings",
    "ValSettings",
]
