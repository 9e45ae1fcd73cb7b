"""The settings of each verb, put together from components; the order here is the order in help."""

from __future__ import annotations

from typing import ClassVar

from holdfast.settings.components import (
    AnswerSettings,
    AugmentSettings,
    CompileSettings,
    DataSettings,
    DetectionSettings,
    DeviceSettings,
    FolderSettings,
    LossSettings,
    MemorySettings,
    OptimSettings,
    PrecisionSettings,
    PredictOutputSettings,
    PredictRunSettings,
    RanksSettings,
    ReadyModelSettings,
    StartModelSettings,
    TrainDataSettings,
    TrainRunSettings,
    ValRunSettings,
)
from holdfast.settings.tools import (
    AdviseRunSettings,
    BenchmarkRunSettings,
    CertifyRunSettings,
    CheckDataSettings,
    CheckOutputSettings,
    CompareRunSettings,
    ConvertRunSettings,
    DemoRunSettings,
    DownloadRunSettings,
    EnvRunSettings,
    ExportRunSettings,
    PlanRunSettings,
    RunFolderSettings,
    TuneRunSettings,
    WatchRunSettings,
)


class TrainSettings(
    StartModelSettings, DataSettings, TrainDataSettings, TrainRunSettings, FolderSettings, RanksSettings,
    OptimSettings, LossSettings, AugmentSettings, PrecisionSettings, CompileSettings, MemorySettings,
    DetectionSettings,
    AnswerSettings,
):
    """Everything `holdfast train` knows."""


class ValSettings(
    ReadyModelSettings, DataSettings, DetectionSettings, AnswerSettings, ValRunSettings, FolderSettings,
    DeviceSettings,
):
    """Everything `holdfast val` knows."""


class PredictSettings(
    ReadyModelSettings, PredictRunSettings, AnswerSettings, PredictOutputSettings, FolderSettings,
    DeviceSettings,
):
    """Everything `holdfast predict` knows."""


class DemoSettings(DemoRunSettings, DeviceSettings):
    """Everything `holdfast demo` knows."""


class CheckSettings(CheckDataSettings, CheckOutputSettings, FolderSettings):
    """Everything `holdfast check` knows."""

    positional: ClassVar[tuple[str, ...]] = ("data",)


class PlanSettings(PlanRunSettings, MemorySettings, DeviceSettings, PrecisionSettings):
    """Everything `holdfast plan` knows."""

    positional: ClassVar[tuple[str, ...]] = ("model",)


class WatchSettings(RunFolderSettings, WatchRunSettings):
    """Everything `holdfast watch` knows."""

    positional: ClassVar[tuple[str, ...]] = ("run",)


class ReportSettings(RunFolderSettings):
    """Everything `holdfast report` knows."""

    positional: ClassVar[tuple[str, ...]] = ("run",)


class AdviseSettings(RunFolderSettings, AdviseRunSettings):
    """Everything `holdfast advise` knows."""

    positional: ClassVar[tuple[str, ...]] = ("run",)


class ConvertSettings(ConvertRunSettings, AnswerSettings):
    """Everything `holdfast convert` knows."""

    positional: ClassVar[tuple[str, ...]] = ("source", "target")


class ExportSettings(ExportRunSettings, DeviceSettings):
    """Everything `holdfast export` knows."""

    positional: ClassVar[tuple[str, ...]] = ("model",)


class DownloadSettings(DownloadRunSettings):
    """Everything `holdfast download` knows."""

    positional: ClassVar[tuple[str, ...]] = ("names",)


class CompareSettings(CompareRunSettings, FolderSettings):
    """Everything `holdfast compare` knows."""

    positional: ClassVar[tuple[str, ...]] = ("runs",)


class BenchmarkSettings(BenchmarkRunSettings, AnswerSettings, FolderSettings, DeviceSettings):
    """Everything `holdfast benchmark` knows."""

    positional: ClassVar[tuple[str, ...]] = ("model",)


class TuneSettings(TuneRunSettings, TrainSettings):
    """Everything `holdfast tune` knows."""


class CertifySettings(CertifyRunSettings, TrainSettings):
    """Everything `holdfast certify` knows."""


class EnvSettings(EnvRunSettings):
    """Everything `holdfast env` knows."""
