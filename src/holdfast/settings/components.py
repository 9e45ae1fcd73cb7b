"""The settings of each component of training, validation and prediction; with tools.py the only place where a
default is written.

Each field carries its default, its range and one line of description; the command line's help, the keywords
of the Python object, the checks and the tables in the documentation are generated from here. Verbs combine
components by inheritance (verbs.py), so keys stay flat: `lr0`, not `optim.lr0`.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from holdfast.settings.base import Device, Ints, OptionalInt, OptionalSwitch, Settings, Switch, Text
from holdfast.settings.types import (
    MAX_WORKERS,
    AmpType,
    Auto,
    AutoSwitch,
    Batch,
    Cache,
    Duration,
    Half,
    Layout,
    Loggers,
    Optimizer,
    Parts,
    Policy,
    Recompute,
    Spread,
    Task,
    Tiles,
    Workers,
    usable_cores,
)


class StartModelSettings(Settings):
    """The model a training run starts from."""

    title: ClassVar[str] = "Model"
    model: Text = Field("yolov9-t", description="model name (see 'holdfast models') or weight file to train")
    task: Task = Field("detect", description="what the model must do; detect takes any model")
    weights: Text = Field("", description="weight file for a named model; empty starts random")
    pretrained: Switch = Field(
        True, description="False: random weights even where a file is given; a file: the same as weights")
    freeze: int | Parts = Field(
        0, description="what stays untrained: the first N layers, or a list of layer numbers or name parts")

    @model_validator(mode="after")
    def _one_start(self) -> Self:
        named = isinstance(self.pretrained, str) and self.pretrained
        if self.weights and (named or self.pretrained is False) and self.weights != self.pretrained:
            raise ValueError(f"weights={self.weights} and pretrained={self.pretrained} exclude each other")
        return self


class ReadyModelSettings(Settings):
    """A trained model."""

    title: ClassVar[str] = "Model"
    model: Text = Field(
        "", description="weight file, exported .onnx or .torchscript, or a model name for random weights")
    task: Task = Field("detect", description="what the model must do; detect takes any model")
    dnn: bool = Field(False, description="run an .onnx file by OpenCV instead of onnxruntime")


class DeviceSettings(Settings):
    """Where to compute."""

    title: ClassVar[str] = "Device"
    device: Device = Field("", description="'cpu', or the number of a GPU such as 0; empty chooses")


class RanksSettings(DeviceSettings):
    """Where to compute, on several devices too: one process, a rank, for each."""

    title: ClassVar[str] = "Device"
    device: Device = Field(
        "", description="'cpu', a GPU such as 0, or several such as 0,1 (one process each); empty chooses")
    ranks: int = Field(1, ge=1, le=1024, description="processes on the CPU, which share each batch")
    ddp_timeout: float = Field(
        600.0, gt=0, le=86400, description="seconds that processes of a run wait for each other")
    sync_bn: AutoSwitch = Field(
        "auto", description="batch-norm statistics over all processes; auto: if under 16 images at a time")
    supervise: AutoSwitch = Field(
        "auto", description="start a crashed run again from its last checkpoint; auto: on several devices")

    @model_validator(mode="after")
    def _one_count(self) -> Self:
        if self.ranks > 1 and self.device != "cpu":
            raise ValueError(
                f"ranks={self.ranks} is for device=cpu; name the GPUs instead, for example device=0,1")
        names = self.device_names
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"device={self.device} names {twice} twice")
        return self

    @property
    def device_names(self) -> list[str]:
        """The devices that are named, each by itself; none where the run chooses."""
        words = [word.strip() for word in self.device.lower().removeprefix("cuda:").split(",")]
        return [word for word in words if word]

    @property
    def processes(self) -> int:
        """Processes that a plain command starts."""
        return self.ranks if self.ranks > 1 else max(len(self.device_names), 1)


class DataSettings(Settings):
    """The data set and how it is cut into batches."""

    title: ClassVar[str] = "Data"
    data: Text = Field("", description="data.yaml that names folders and classes, or a zip file with it")
    imgsz: int = Field(640, ge=32, le=8192, description="side of the input in pixels, a multiple of 32")
    workers: Workers = Field(
        8, ge=0, le=MAX_WORKERS, description="loader workers, one per core at most (auto: all); 0 uses none")
    single_cls: bool = Field(False, description="treat all classes as one")
    cache: Cache = Field(
        "off", description="keep decoded images: ram, one copy for all workers, or disk, for later runs too")
    cache_budget: float = Field(
        0.5, gt=0, le=1, description="share of the free memory or disk for cache; what is beyond is decoded")
    read_timeout: float = Field(
        60.0, ge=0, description="seconds after which reading an image file is given up; 0: never")

    @property
    def threads(self) -> int:
        """Loader threads to start: `workers`, but never more than this process has cores."""
        return min(self.workers, usable_cores())


class TrainDataSettings(Settings):
    """Selection of training images."""

    title: ClassVar[str] = "Data"
    batch: Batch = Field(
        16, ge=-1, description="images per optimizer step, on any device; -1: most that need no splitting")
    val_imgsz: OptionalInt = Field(
        None, ge=32, le=8192, description="side at which the run validates; none: imgsz")
    worker_kind: Literal["auto", "threads", "processes"] = Field(
        "auto", description="what training images are made by; auto: processes where all are cached in ram")
    fraction: float = Field(
        1.0, gt=0, le=1, description="share of the training images to use, the same ones in every run")
    min_items: int = Field(0, ge=0, description="leave out training images with fewer boxes than this")
    rect: bool = Field(False, description="train on batches of similar shapes, without mosaic")
    image_weights: bool = Field(
        False, description="draw images by how rare and how poorly found their classes are")
    overlap_mask: bool = Field(
        True, description="masks are what is seen of an object; false: also what smaller ones hide")
    multi_scale: Spread = Field(
        0.0, ge=0, lt=1, description="sides of batches between 1 - this and 1 + this times imgsz; bare: 0.5")


class AugmentSettings(Settings):
    """How training images are changed. Probabilities are per image."""

    title: ClassVar[str] = "Augmentation"
    mosaic: float = Field(1.0, ge=0, le=1, description="probability of joining several images into one")
    mosaic_tiles: Tiles = Field("4", description="images of a mosaic: four, nine smaller ones, or either")
    mixup: float = Field(0.0, ge=0, le=1, description="probability of blending a mosaic with a second one")
    cutmix: float = Field(0.0, ge=0, le=1, description="probability of a window that shows another picture")
    copy_paste: float = Field(0.0, ge=0, le=1, description="share of outlined objects to paste once more")
    copy_paste_mode: Literal["flip", "mixup"] = Field(
        "flip", description="paste from the mirrored picture (flip) or from another one (mixup)")
    degrees: float = Field(0.0, ge=0, le=180, description="rotation up to plus or minus this angle")
    translate: float = Field(0.1, ge=0, le=1, description="shift up to this share of the image side")
    scale: float = Field(0.5, ge=0, lt=1, description="zoom between 1 - scale and 1 + scale")
    shear: float = Field(0.0, ge=0, le=90, description="shear up to plus or minus this angle")
    perspective: float = Field(0.0, ge=0, le=0.001, description="strength of the perspective distortion")
    hsv_h: float = Field(0.015, ge=0, le=1, description="hue shift up to this share of the circle")
    hsv_s: float = Field(0.7, ge=0, le=1, description="saturation gain up to 1 plus or minus this")
    hsv_v: float = Field(0.4, ge=0, le=1, description="brightness gain up to 1 plus or minus this")
    flipud: float = Field(0.0, ge=0, le=1, description="probability of an upside-down flip")
    fliplr: float = Field(0.5, ge=0, le=1, description="probability of a left-right flip")
    bgr: float = Field(0.0, ge=0, le=1, description="probability of exchanging red and blue")
    autoaugment: Policy = Field("none", description="further changes by a policy; boxes follow")
    erasing: float = Field(0.4, ge=0, le=1, description="probability of a black rectangle, in classification")
    close_mosaic: int = Field(
        10, ge=0, description="last epochs without mosaic, mixup, cutmix and copy-paste; 0 keeps them on")


class LossSettings(Settings):
    """Gains of the loss terms."""

    title: ClassVar[str] = "Loss"
    box: float = Field(7.5, ge=0, description="gain of the box overlap loss")
    cls: float = Field(0.5, ge=0, description="gain of the class loss")
    dfl: float = Field(1.5, ge=0, description="gain of the distance loss (distribution, or L1 in YOLO26)")
    pose: float = Field(12.0, ge=0, description="gain of the loss of keypoint places")
    kobj: float = Field(1.0, ge=0, description="gain of the loss of whether keypoints are labelled")
    rle: float = Field(1.0, ge=0, description="gain of the loss of how likely keypoint errors are")
    angle: float = Field(1.0, ge=0, description="gain of the loss of the angles of oriented boxes")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="how far class targets move towards one half")


class OptimSettings(Settings):
    """Optimizer, learning rate, and the average of the weights."""

    title: ClassVar[str] = "Optimizer"
    hyp: Text = Field("", description="preset name or YAML file of overrides; keys given by hand win over it")
    optimizer: Optimizer = Field("auto", description="auto chooses lr0 and momentum too")
    lr0: float = Field(0.01, gt=0, le=10, description="learning rate after warm-up (auto ignores it)")
    lr_scale: Literal["none", "linear", "sqrt"] = Field(
        "none", description="how the learning rate follows the batch: times batch / nbs, or the root of it")
    lrf: float = Field(0.01, ge=0, le=1, description="learning rate at the end as a share of lr0")
    momentum: float = Field(0.937, ge=0, lt=1, description="momentum, or beta1 of Adam (auto ignores it)")
    weight_decay: float = Field(0.0005, ge=0, le=1, description="weight decay, multiplied by batch / nbs")
    nbs: int = Field(64, ge=1, description="batch at which weight_decay and lr_scale count in full")
    warmup_epochs: float = Field(3.0, ge=0, description="epochs of warm-up, fractions allowed")
    warmup_momentum: float = Field(0.8, ge=0, lt=1, description="momentum at its start")
    warmup_bias_lr: float = Field(0.1, ge=0, le=10, description="learning rate of biases at its start")
    cos_lr: bool = Field(False, description="learning rate falls along a cosine instead of a line")
    flat_cos_lr: bool = Field(False, description="learning rate stays flat for half of the run, then cosine")
    fixed_lr: bool = Field(False, description="learning rate stays at lr0")
    clip_norm: float = Field(10.0, ge=0, description="largest norm of all gradients together; 0 never clips")
    skip_spikes: bool = Field(
        True, description="leave out steps whose loss is far above the last ones, three in a row at most"
    )
    ema: bool = Field(True, description="validate and keep the moving average of the weights")
    ema_decay: float = Field(0.9999, ge=0, lt=1, description="share of the old average that one step keeps")
    ema_tau: float = Field(2000.0, gt=0, description="steps over which ema_decay is reached")

    @model_validator(mode="after")
    def _one_schedule(self) -> Self:
        chosen = [key for key in ("cos_lr", "flat_cos_lr", "fixed_lr") if getattr(self, key)]
        if len(chosen) > 1:
            raise ValueError(f"{' and '.join(chosen)} exclude each other; switch on one of them")
        return self


class PrecisionSettings(Settings):
    """Number formats and memory layout of training."""

    title: ClassVar[str] = "Precision"
    amp: bool = Field(True, description="mixed precision where the hardware has it; loss in float32")
    amp_dtype: AmpType = Field(
        "auto", description="number format of mixed precision; auto: bfloat16 if quick or float32 too large")
    channels_last: Layout = Field(True, description="memory layout that convolutions prefer")


class CompileSettings(Settings):
    """Compilation of the model that is trained."""

    title: ClassVar[str] = "Precision"
    exact_gradient: bool = Field(
        False, description="YOLOv9 in micro-batches: one more forward pass takes the last 0.4 % of error")
    compile: bool = Field(False, description="torch.compile; the first step and new input sizes wait for it")


class MemorySettings(Settings):
    """How a step over the batch fits into memory; none of this changes the batch."""

    title: ClassVar[str] = "Memory"
    micro_batch: Auto = Field(
        0, ge=0, description="images that go through the network at a time; 0 or auto chooses")
    accumulate: int = Field(
        1, ge=1, description="batches per optimizer step, which is then over batch * accumulate images")
    ckpt: Recompute = Field(
        "auto", description="make activations again in backward, to save memory; bare: stages")
    memory_limit: Text = Field(
        "", description="most memory to hold, such as 8GB, 8GiB or 75%; empty: what is free")
    headroom: float = Field(0.08, ge=0, lt=1, description="share of that memory that the plan leaves free")


class AnswerSettings(Settings):
    """Which branch of a model answers, where it has two."""

    title: ClassVar[str] = "Answer"
    nms: OptionalSwitch = Field(
        None, description="True: the branch with suppression; False: one-to-one; none: one-to-one if there")


class DetectionSettings(Settings):
    """Which detections count in an evaluation."""

    title: ClassVar[str] = "Evaluation"
    conf: float = Field(0.001, ge=0, le=1, description="drop detections below this confidence")
    iou: float = Field(0.7, ge=0, le=1, description="overlap above which the weaker of two boxes is dropped")
    max_det: int = Field(
        300, ge=1, le=30000, description="most detections per image; from 300 on at least as many as objects")


class TrainRunSettings(Settings):
    """Length, checkpoints and folder of a training run."""

    title: ClassVar[str] = "Run"
    epochs: int = Field(100, ge=1, description="passes over the training images")
    patience: int = Field(100, ge=0, description="stop after so many epochs without a better score; 0 never")
    seed: int = Field(
        0, ge=0, le=2**32 - 1, description="start of every random draw; the same seed gives the same data")
    deterministic: bool = Field(
        True, description="on a GPU take only convolutions that repeat exactly (a CPU has no others)")
    val_interval: int = Field(1, ge=1, description="validate every N epochs, and after the last")
    noval: bool = Field(False, description="validate only after the last epoch")
    nosave: bool = Field(False, description="write checkpoints only after the last epoch")
    save_every: Duration = Field(
        600.0, ge=0, description="save last.pt every so often in mid-epoch too: 10m, 90s, 1h; 0 does not")
    save_period: int = Field(-1, ge=-1, description="keep an extra checkpoint every N epochs; -1 keeps none")
    plots: bool = Field(True, description="draw curves, labels and example batches")
    loggers: Loggers = Field(
        (), description="write each epoch to tensorboard, wandb or mlflow too (these two may use a network)")
    resume: Switch = Field(
        False, description="run folder or checkpoint to continue; bare: the newest run; auto: this --name's")
    project: Text = Field("runs/train", description="folder that holds the runs")
    name: Text = Field("exp", description="folder of this run; numbered when it exists, not by resume=auto")


class ValRunSettings(Settings):
    """Choices and folder of a validation run."""

    title: ClassVar[str] = "Run"
    batch: int = Field(16, ge=1, description="images per forward pass")
    split: Text = Field("val", description="split of data.yaml to validate on: val, test or train")
    min_items: int = Field(0, ge=0, description="leave out images with fewer boxes than this")
    rect: bool = Field(True, description="validate on rectangles of similar images instead of squares")
    half: bool = Field(False, description="compute in 16 bits")
    save_json: bool = Field(False, description="write the detections as COCO JSON")
    save_txt: bool = Field(False, description="write detections as label files")
    save_conf: bool = Field(False, description="add the confidence to label files")
    plots: bool = Field(True, description="draw curves, confusion matrix and example images")
    project: Text = Field("runs/val", description="folder that holds the runs")
    name: Text = Field("exp", description="folder of this run; numbered when it exists")


class PredictRunSettings(Settings):
    """Input, thresholds, output and folder of a prediction run."""

    title: ClassVar[str] = "Prediction"
    source: Text = Field("", description="image, folder, glob, list file (.txt), video, camera, address")
    imgsz: int = Field(640, ge=32, le=8192, description="longer side of the input in pixels")
    conf: float = Field(0.25, ge=0, le=1, description="drop detections below this confidence")
    iou: float = Field(0.7, ge=0, le=1, description="overlap above which the weaker of two boxes is dropped")
    max_det: int = Field(300, ge=1, le=30000, description="most detections per image")
    classes: Ints = Field(None, description="keep only these class numbers")
    agnostic_nms: bool = Field(False, description="let boxes of different classes suppress each other")
    retina_masks: bool = Field(False, description="masks at the size of the image, not of the input")
    batch: int = Field(1, ge=1, description="images per forward pass")
    half: Half = Field(False, description="compute in 16 bits; auto does where a CPU has bfloat16 units")
    vid_stride: int = Field(1, ge=1, description="use every N-th frame of a video")


class PredictOutputSettings(Settings):
    """What a prediction run writes."""

    title: ClassVar[str] = "Output"
    save: bool = Field(True, description="write annotated pictures (Python calls: only when asked)")
    save_txt: bool = Field(False, description="write detections as label files")
    save_conf: bool = Field(False, description="add the confidence to label files")
    save_crop: bool = Field(False, description="write one picture per detection")
    line_width: OptionalInt = Field(None, ge=1, description="line width in pixels; none goes by image size")
    show_boxes: bool = Field(True, description="draw boxes, with what is written beside them")
    show_labels: bool = Field(True, description="draw class names")
    show_conf: bool = Field(True, description="draw confidences")
    show: bool = Field(False, description="open annotated pictures in the system's viewer")
    project: Text = Field("runs/detect", description="folder that holds the runs")
    name: Text = Field("predict", description="folder of this run; numbered when it exists")


class FolderSettings(Settings):
    """What every run that writes a folder knows."""

    title: ClassVar[str] = "Folder"
    exist_ok: bool = Field(False, description="write into an existing folder instead of a numbered one")
    verbose: bool = Field(True, description="report on the terminal")
