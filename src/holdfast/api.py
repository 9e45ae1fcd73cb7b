"""The `YOLO` object: a model, and the verbs it stands for.

Unusual: thin on purpose; `running.py` and the other doors do the work. torch comes with the first model, not
with this module.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from holdfast.errors import SettingsError
from holdfast.running import Say, fitted, located, opened, predict, run_train, run_val
from holdfast.settings import (
    BenchmarkSettings,
    ExportSettings,
    PlanSettings,
    PredictSettings,
    TrainSettings,
    TuneSettings,
    ValSettings,
)
from holdfast.settings.base import as_switch, tidy

if TYPE_CHECKING:
    import torch

    from holdfast.benchmarking import Row
    from holdfast.load import LoadedFile, LoadedModel
    from holdfast.models.detector import Detector
    from holdfast.models.exported import Exported
    from holdfast.post.results import Results
    from holdfast.train.plan import MemoryPlan
    from holdfast.tune.search import TuneResult

TASKS = ("detect", "segment", "pose", "obb", "classify")


class YOLO:
    """A detector and what one does with it, under the keyword names users know.

    Args:
        model: a model name for random weights (`yolov9-t`, `yolov9-s.yaml`), or a weight file of ours, of the
            official YOLOv9 program or of Ultralytics; or an exported `.onnx` or `.torchscript` file, which
            only detects and validates.
        task: what the model must do: `detect`, `segment`, `pose`, `obb` or `classify`; None takes any.
        verbose: print what was loaded.

    Raises:
        SettingsError: no such model or task, or a model of another task.
        WeightsError: a weight file that is missing, damaged or unsafe.
    """

    def __init__(
        self, model: str | Path = "yolov9-t", task: str | None = None, *, verbose: bool = False
    ) -> None:
        if task not in (None, *TASKS):
            raise SettingsError(f"There is no task '{task}'.", hint=f"Tasks are {', '.join(TASKS)}.")
        self._say: Say = print
        self._adopt(model)
        if task not in (None, self.task):
            raise SettingsError(
                f"{self._loaded.model.name} is a model for the task '{self.task}', not '{task}'.",
                hint="Leave the task out, or name a model of it.",
            )
        if verbose:
            self._say(f"{self._loaded.model.name}: {self._loaded.origin}")

    def _adopt(self, source: str | Path) -> None:
        source = located(source)
        self._loaded: LoadedModel | LoadedFile = opened(source)
        self._source, self._weights, self._by_dnn = str(source), "", False
        self._folded: dict[tuple[torch.device, torch.dtype, bool | None], Detector] = {}

    @property
    def model(self) -> Detector:
        """The torch module.

        Raises:
            WeightsError: the object holds an exported file, which has none.
        """
        return self._own.model

    @property
    def _own(self) -> LoadedModel:
        from holdfast.load import LoadedModel, load_model

        if isinstance(self._loaded, LoadedModel):
            return self._loaded
        return load_model(self._source)  # which says that there is no module in an exported file

    @property
    def names(self) -> dict[int, str]:
        """Class names by number."""
        return self._loaded.model.names

    @property
    def task(self) -> str:
        """What the model does, one of `TASKS`."""
        return self._loaded.model.task

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    def load(self, weights: str | Path) -> YOLO:
        """Takes over a weight file, and returns the object itself.

        A file of the same architecture replaces the model, class names included; of another one, every tensor
        that fits is taken over.
        """
        from holdfast.load import load_model

        weights = located(weights)
        given = load_model(weights)
        if given.model.name == self.model.name:
            self._loaded, self._source, self._weights = given, str(weights), ""
        else:
            self._loaded = load_model(self._source, weights=weights)
            self._weights = str(weights)
        self._folded = {}
        return self

    def fuse(self) -> YOLO:
        """Folds the model for inference, as `holdfast convert --deploy` does, and returns the object itself.

        Detection and validation fold on their own; this is for what is saved or taken out as a torch module.
        """
        self._loaded, self._folded = replace(self._own, model=self.model.deploy()), {}
        return self

    def save(self, filename: str | Path = "saved_model.pt") -> Path:
        """Writes the weights as they are now, under our names, and replaces a file that is there.

        Args:
            filename: a path that ends in `.pt` or `.safetensors`.

        Returns:
            The file.
        """
        from holdfast.conversion import write_model

        return write_model(Path(filename), self.model, imgsz=self._loaded.imgsz)

    def info(
        self, detailed: bool = False, verbose: bool = True, imgsz: int = 640
    ) -> tuple[int, int, int, float]:
        """Counts the model.

        Args:
            detailed: also print one line per parameter.
            verbose: print the summary.
            imgsz: side of the square input the cost is counted for.

        Returns:
            Number of modules, parameters, trainable parameters, and GFLOPs.
        """
        from holdfast.models.profile import profile

        layers = sum(1 for _ in self.model.modules()) - 1
        counted = profile(self.model, imgsz=imgsz)
        if detailed:
            for name, parameter in self.model.named_parameters():
                self._say(f"{name:<60} {tuple(parameter.shape)!s:<20} {parameter.numel():,}")
        if verbose:
            self._say(
                f"{self.model.name}: {layers} modules, {counted.parameters:,} parameters, "
                f"{counted.trainable:,} trainable, {counted.gflops:.1f} GFLOPs at {imgsz}"
            )
        return layers, counted.parameters, counted.trainable, counted.gflops

    def train(self, **keys: Any) -> Any:
        """Trains as `holdfast train` does and goes on with the best weights of the run.

        Args:
            keys: keys of `holdfast train`; `data` is needed. `resume=True` continues the run of this file.
                `pretrained=False` starts the same architecture from random weights.

        Returns:
            Metrics of the best weights on the validation images, as of `val`.
        """
        values = tidy(TrainSettings, keys)
        if values.get("resume") and values["resume"] != "auto":
            if values["resume"] is True and self._source.endswith(".pt"):
                values["resume"] = self._source
        else:
            values.setdefault("model", self._source)
            if as_switch(values.get("pretrained", True)) is True:
                values.setdefault("weights", self._weights)
        result = run_train(TrainSettings(**values), say=self._say)
        self._adopt(result.best)
        return result.validation.metrics

    def plan(self, **keys: Any) -> MemoryPlan:
        """Predicts how a training of this model fits into memory, as `holdfast plan` does.

        Args:
            keys: keys of `holdfast plan`, such as `imgsz`, `batch` and `memory_limit`.

        Returns:
            The plan: micro-batch, recompute, predicted peak and images per second, and why.
        """
        from holdfast.planning import run_plan

        return run_plan(PlanSettings(**keys), model=copy.deepcopy(self.model), say=self._say)

    def tune(self, **keys: Any) -> TuneResult:
        """Searches for better training settings as `holdfast tune` does, starting from this model.

        Args:
            keys: keys of `holdfast tune`, which knows those of training too; `data` is needed. `iterations`
                is understood as `trials`. `resume=FOLDER` goes on with a search.

        Returns:
            The best settings, the file to use as `hyp`, and their run.
        """
        from holdfast.tune.search import run_tune

        if "iterations" in keys:
            keys["trials"] = keys.pop("iterations")
        values = tidy(TuneSettings, keys)
        if not values.get("resume"):
            values.setdefault("model", self._source)
            values.setdefault("weights", self._weights)
        return run_tune(TuneSettings(**values), say=self._say)

    def benchmark(self, **keys: Any) -> list[Row]:
        """Times this model at several input sizes as `holdfast benchmark` does.

        Args:
            keys: keys of `holdfast benchmark`, such as `sizes`, `batch` and `data`.
        """
        from holdfast.benchmarking import run_benchmark

        settings = BenchmarkSettings(**{"model": self._source, **keys})
        return run_benchmark(settings, loaded=self._own, say=self._say)

    def export(self, **keys: Any) -> Path:
        """Writes a file for other runtimes as `holdfast export` does, and checks it against this model.

        Args:
            keys: keys of `holdfast export`, such as `format="onnx"`, `imgsz`, `dynamic` and `half`.

        Returns:
            The file.

        Raises:
            SettingsError: a combination that cannot be, or several formats.
            WeightsError: the model cannot be written, or the file does not say what the model says.
        """
        from holdfast.exporting import run_export

        settings = ExportSettings(**{"model": self._source, **tidy(ExportSettings, keys)})
        if len(settings.format) > 1:
            raise SettingsError("YOLO.export writes one file.", hint="Call it once for each format.")
        return run_export(settings, loaded=self._own, say=self._say)[0]

    def val(self, **keys: Any) -> Any:
        """Measures as `holdfast val` does.

        Args:
            keys: keys of `holdfast val`. Without `data` it is that of the training, if it is still there.

        Returns:
            Metrics of the model's task: `evaluate.coco.DetectionMetrics` (`box`; oriented boxes too), or, of
            `evaluate.metrics`, `SegmentMetrics` (`box`, `seg`), `PoseMetrics` (`box`, `pose`) or
            `ClassifyMetrics` (`top1`, `top5`). Each has `results_dict` and `fitness`.
        """
        settings = ValSettings(**{"model": self._source, **tidy(ValSettings, keys)})
        return run_val(settings, loaded=self._run_by(settings), say=self._say).metrics

    @overload
    def predict(self, source: Any = ..., stream: Literal[False] = ..., **keys: Any) -> list[Results]: ...

    @overload
    def predict(self, source: Any, stream: Literal[True], **keys: Any) -> Iterator[Results]: ...

    @overload
    def predict(self, source: Any = ..., *, stream: Literal[True], **keys: Any) -> Iterator[Results]: ...

    def predict(
        self, source: Any = None, stream: bool = False, **keys: Any
    ) -> list[Results] | Iterator[Results]:
        """Detects on pictures and videos.

        Args:
            source: path, folder, glob, list file, video, address, array (H, W, 3) BGR uint8, PIL image, or a
                list.
            stream: return an iterator that holds one result at a time.
            keys: keys of `holdfast predict`. Unlike there, nothing is written unless `save` asks for it.
        """
        values = {"model": self._source, **tidy(PredictSettings, keys)}
        values.setdefault("save", False)
        if isinstance(source, str | Path):
            values["source"], source = str(source), None
        settings = PredictSettings(**values)
        settings = fitted(settings, self._run_by(settings))
        return predict(settings, self._network(settings), source, stream, self._say)

    __call__ = predict

    def _run_by(self, settings: PredictSettings | ValSettings) -> LoadedModel | LoadedFile:
        """What is loaded, run by the runtime that `settings` ask for."""
        if settings.dnn != self._by_dnn:
            self._loaded, self._by_dnn = opened(self._source, dnn=settings.dnn), settings.dnn
        return self._loaded

    def _network(self, settings: PredictSettings) -> Detector | Exported:
        """The folded model where and as `settings` want it, made once: calls in a loop fold nothing again."""
        from holdfast.devices import choose_device, choose_inference_precision
        from holdfast.load import LoadedFile

        if isinstance(self._loaded, LoadedFile):
            return self._loaded.model
        device = choose_device(settings.device).device
        dtype = choose_inference_precision(device, settings.half).dtype
        key = (device, dtype, settings.nms)
        if key not in self._folded:
            folded = self.model.deploy(nms=settings.nms)
            if folded is self.model:
                folded = copy.deepcopy(folded)
            self._folded[key] = folded.to(device, dtype)
        return self._folded[key]
