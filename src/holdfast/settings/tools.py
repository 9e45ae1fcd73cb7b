"""The settings of what stands around training: demonstration, checks, plans, watching, comparing, others."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from holdfast.settings.base import OptionalInt, OptionalSwitch, Settings, Switch, Text
from holdfast.settings.foreign import OTHER_FORMATS
from holdfast.settings.types import (
    MAX_WORKERS,
    Batch,
    Duration,
    Names,
    Optimizer,
    Seeds,
    Sizes,
    Task,
    Workers,
)


class DemoRunSettings(Settings):
    """The generated demonstration, from drawing the data to detecting on it."""

    title: ClassVar[str] = "Demo"
    folder: Text = Field("demo", description="folder for the drawn data set and the runs")
    task: Task = Field(
        "detect", description="what the model learns: boxes, masks, keypoints, oriented boxes or classes")
    model: Text = Field("", description="model name to train from random weights; empty: the task's smallest")
    images: int = Field(240, ge=8, description="pictures to draw, one in five for validation")
    epochs: int = Field(20, ge=1, description="passes over the training images")
    imgsz: int = Field(160, ge=32, le=8192, description="side of the input in pixels")
    batch: int = Field(16, ge=1, description="images per optimizer step")
    workers: int = Field(2, ge=0, le=256, description="loader threads, one per core at most; 0 uses none")
    seed: int = Field(0, ge=0, description="start of every random draw")


class CheckDataSettings(Settings):
    """Which data set to look at, and how closely."""

    title: ClassVar[str] = "Check"
    data: Text = Field("", description="data.yaml that names the folders and the classes, or its folder")
    imgsz: int = Field(640, ge=32, le=8192, description="input size at which boxes may become too small")
    single_cls: bool = Field(False, description="treat all classes as one")
    pictures: bool = Field(
        True, description="open every image, to find damaged ones, duplicates and leaks between splits")
    workers: int = Field(8, ge=0, le=256, description="threads that read; 0 uses one")


class CheckOutputSettings(Settings):
    """What a check writes, and where."""

    title: ClassVar[str] = "Output"
    fix: Text = Field("", description="new folder for a cleaned copy; the data set itself is never changed")
    as_json: bool = Field(False, description="print one JSON object and nothing else (--json for short)")
    plots: bool = Field(True, description="write check.html and labels.jpg")
    project: Text = Field("runs/check", description="folder that holds the runs")
    name: Text = Field("exp", description="folder of this run; numbered when it exists")


class PlanRunSettings(Settings):
    """What to plan for; a plan needs no data."""

    title: ClassVar[str] = "Plan"
    model: Text = Field("", description="model name, or weight file, that would be trained")
    imgsz: int = Field(640, ge=32, le=8192, description="side of the input in pixels, the largest of the run")
    batch: Batch = Field(16, ge=-1, description="images per optimizer step; -1: most that need no splitting")
    classes: int = Field(80, ge=1, description="classes of a model that is named")
    boxes: int = Field(100, ge=0, description="boxes in each image of the batch that is tried")
    optimizer: Optimizer = Field("auto", description="whose state is counted; auto: AdamW, the largest")
    compare: bool = Field(False, description="also list the cost of other sides, batches, levels, devices")
    as_json: bool = Field(False, description="print one JSON object and nothing else (--json for short)")


class RunFolderSettings(Settings):
    """Which run to look at."""

    title: ClassVar[str] = "Run"
    run: Text = Field("", description="folder of the run, or a file in it; empty takes the newest run")
    project: Text = Field("runs/train", description="folder in which the newest run is looked for")


class WatchRunSettings(Settings):
    """How to follow a run."""

    title: ClassVar[str] = "Watch"
    once: bool = Field(False, description="tell what there is and leave, instead of following the run")
    last: int = Field(10, ge=1, description="epochs to tell of those that are done already")
    every: Duration = Field(1.0, gt=0, description="seconds between two looks")


class AdviseRunSettings(Settings):
    """How to give advice on a run."""

    title: ClassVar[str] = "Advice"
    as_json: bool = Field(False, description="print one JSON object and nothing else (--json for short)")


class ConvertRunSettings(Settings):
    """Which weight file to write anew, where to and how."""

    title: ClassVar[str] = "Convert"
    source: Text = Field("", description="weight file to read, ours or an official one")
    target: Text = Field("", description="file to write; the suffix chooses: .safetensors or .pt")
    form: Literal["holdfast", "official"] = Field(
        "holdfast", description="tensor names to write: ours, or the published ones of the model's family")
    half: bool = Field(False, description="store numbers in 16 bits")
    deploy: bool = Field(False, description="fold for inference first, which cannot be trained or undone")
    exist_ok: bool = Field(False, description="replace a file that is there")


class ExportRunSettings(Settings):
    """What to export, in which form, and how to check the file."""

    title: ClassVar[str] = "Export"
    model: Text = Field("", description="weight file, or a model name for random weights")
    format: Names = Field(("torchscript",), description="torchscript, onnx (extra 'export'), pt2, or several")
    file: Text = Field("", description="file to write; empty: beside the weights, with the format's suffix")
    imgsz: Sizes = Field((640,), description="input side, or height and width; else that of the weights")
    batch: int = Field(1, ge=1, le=4096, description="images per call")
    dynamic: bool = Field(False, description="leave batch, height and width free")
    half: bool = Field(False, description="weights and input in float16; boxes stay in float32")
    simplify: bool = Field(True, description="ONNX: fold constants and drop what does nothing")
    opset: OptionalInt = Field(None, ge=11, le=30, description="ONNX: operator set; none: torch's own")
    end2end: OptionalSwitch = Field(
        None, description="False: of YOLO26 the branch that needs suppression; none: end to end if there")
    nms: bool = Field(False, description="ONNX: suppress inside the file, by the four keys below")
    conf: float = Field(0.25, ge=0, le=1, description="drop detections below this confidence")
    iou: float = Field(0.7, ge=0, le=1, description="overlap above which the weaker of two boxes is dropped")
    max_det: int = Field(300, ge=1, le=30000, description="rows per image; of an end-to-end branch too")
    agnostic_nms: bool = Field(False, description="let boxes of different classes suppress each other")
    data: Text = Field("", description="data.yaml to compare the AP of file and model on; empty: no AP")
    split: Text = Field("val", description="split of data.yaml to measure AP on")
    fraction: float = Field(1.0, gt=0, le=1, description="share of the split to measure AP on")
    workers: Workers = Field(
        8, ge=0, le=MAX_WORKERS, description="loader threads, one per core at most (auto: all); 0 uses none")
    verbose: bool = Field(True, description="report on the terminal")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        formats = ("torchscript", "onnx", "pt2")
        for word in self.format:
            if word not in formats:
                hint = OTHER_FORMATS.get(word, f"There is no format '{word}': give {', '.join(formats)}")
                raise ValueError(hint.rstrip("."))
        if not self.format:
            raise ValueError(f"format names none of {', '.join(formats)}")
        if not 1 <= len(self.imgsz) <= 2:
            raise ValueError("imgsz is one side, or height and width")
        if self.file and len(self.format) > 1:
            raise ValueError("file names one file, and several formats were asked for")
        if (self.nms or self.opset is not None) and "onnx" not in self.format:
            raise ValueError("nms and opset are for ONNX files; add format=onnx")
        if self.nms and len(self.format) > 1:
            raise ValueError("nms is for ONNX files only; give format=onnx alone")
        return self


class DownloadRunSettings(Settings):
    """What to download, from where and to where."""

    title: ClassVar[str] = "Download"
    names: Names = Field((), description="released weight files, with or without .pt")
    folder: Text = Field("", description="folder for the files; empty takes the one names are looked up in")
    mirror: Text = Field("", description="URL of a folder that holds the files; empty asks their authors")
    force: bool = Field(False, description="download again, and replace a file that is there")
    timeout: float = Field(30.0, gt=0, le=3600, description="seconds without a byte that end an attempt")
    retries: int = Field(3, ge=0, le=100, description="attempts after the first; each continues the last one")


class CompareRunSettings(Settings):
    """Which runs to compare, and what to write about them."""

    title: ClassVar[str] = "Compare"
    runs: Names = Field((), description="run folders, two or more")
    as_json: bool = Field(False, description="print one JSON object and nothing else (--json for short)")
    plots: bool = Field(True, description="draw the curves of all runs into one picture")
    project: Text = Field("runs/compare", description="folder that holds the comparisons")
    name: Text = Field("exp", description="folder of this comparison; numbered when it exists")


class BenchmarkRunSettings(Settings):
    """Which model to time, and how."""

    title: ClassVar[str] = "Benchmark"
    model: Text = Field("", description="weight file, or a model name for random weights")
    sizes: Sizes = Field((320, 640, 1280), description="sides of the input in pixels")
    batch: int = Field(1, ge=1, description="images per forward pass")
    half: bool = Field(True, description="time 16 bits too, where the device has them")
    warmup: int = Field(3, ge=0, description="passes before those that are timed")
    rounds: int = Field(20, ge=1, description="timed passes, of which the median counts")
    data: Text = Field("", description="data.yaml to measure AP on; empty measures none")
    split: Text = Field("val", description="split of data.yaml to measure AP on")
    workers: Workers = Field(
        8, ge=0, le=MAX_WORKERS, description="loader threads, one per core at most (auto: all); 0 uses none")
    conf: float = Field(0.25, ge=0, le=1, description="drop detections below this, in what is timed")
    as_json: bool = Field(False, description="print one JSON object and nothing else (--json for short)")
    project: Text = Field("runs/benchmark", description="folder that holds the runs")
    name: Text = Field("exp", description="folder of this run; numbered when it exists")


class TuneRunSettings(Settings):
    """The search for settings; all keys of training hold for each of its runs."""

    title: ClassVar[str] = "Search"
    trials: int = Field(30, ge=1, description="trainings in all, those of earlier parts of a search included")
    search: Names = Field((), description="keys to search over; empty: the usual ones not given by hand")
    prune: bool = Field(True, description="end trainings that fall behind the median of those before")
    epochs: int = Field(30, ge=1, description="passes over the training images of each training")
    optimizer: Optimizer = Field("SGD", description="auto would choose lr0 and momentum by itself")
    plots: bool = Field(False, description="draw the pictures of each training too")
    resume: Switch = Field(False, description="folder of the search to continue; bare: the newest")
    project: Text = Field("runs/tune", description="folder that holds the searches")
    name: Text = Field("exp", description="folder of this search; numbered when it exists")


class CertifyRunSettings(Settings):
    """A short training, repeated and disturbed; all keys of training hold for each of its runs."""

    title: ClassVar[str] = "Certify"
    repeats: int = Field(3, ge=2, le=20, description="times the undisturbed training is repeated")
    seeds: Seeds = Field("different", description="of the repeats: different for spread, same for exactness")
    faults: bool = Field(True, description="also plant faults: NaN, bad files, no memory, a killed process")
    images: int = Field(240, ge=20, description="pictures to draw where no data is given")
    model: Text = Field("gelan-t", description="model name (see 'holdfast models') or weight file to train")
    epochs: int = Field(12, ge=4, description="passes over the training images; memory is judged from 10 on")
    imgsz: int = Field(128, ge=32, le=8192, description="side of the input in pixels, a multiple of 32")
    batch: Batch = Field(8, ge=1, description="images per optimizer step, on any device")
    hyp: Text = Field("short-run", description="preset name or YAML file of overrides")
    project: Text = Field("runs/certify", description="folder that holds the certificates")
    name: Text = Field("exp", description="folder of this certificate; numbered when it exists")


class EnvRunSettings(Settings):
    """How to show the environment."""

    title: ClassVar[str] = "Output"
    as_json: bool = Field(False, description="print one JSON object and nothing else (--json for short)")
