"""Checked settings, one flat class per verb; the only owner of every default."""

from holdfast.settings.verbs import (
    DemoSettings,
    DownloadSettings,
    PredictSettings,
    TrainSettings,
    ValSettings,
)

__all__ = ["DemoSettings", "DownloadSettings", "PredictSettings", "TrainSettings", "ValSettings"]
