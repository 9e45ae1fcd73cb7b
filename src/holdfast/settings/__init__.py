"""Checked settings, one flat class per verb; the only owner of every default."""

from .verbs import DemoSettings, PredictSettings, TrainSettings, ValSettings

__all__ = ["DemoSettings", "PredictSettings", "TrainSettings", "ValSettings"]
