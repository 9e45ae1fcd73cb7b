"""Checked settings, one flat class per verb; the only owner of every default."""

from holdfast.settings.verbs import (
    AdviseSettings,
    BenchmarkSettings,
    CertifySettings,
    CheckSettings,
    CompareSettings,
    ConvertSettings,
    DemoSettings,
    DownloadSettings,
    EnvSettings,
    PlanSettings,
    PredictSettings,
    ReportSettings,
    TrainSettings,
    TuneSettings,
    ValSettings,
    WatchSettings,
)

__all__ = [
    "AdviseSettings",
    "BenchmarkSettings",
    "CertifySettings",
    "CheckSettings",
    "CompareSettings",
    "ConvertSettings",
    "DemoSettings",
    "DownloadSettings",
    "EnvSettings",
    "PlanSettings",
    "PredictSettings",
    "ReportSettings",
    "TrainSettings",
    "TuneSettings",
    "ValSettings",
    "WatchSettings",
]
