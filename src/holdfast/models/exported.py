"""A network that lives in an exported file and is run by the runtime of its format.

It stands where a deployed detector stands: in validation and prediction. The weights stay in the file's own
runtime, so it cannot be trained, folded or converted. Files of other programs work too where they say the
same about themselves and give one of two layouts: anchors (B, 4 + C, A) or finished rows (B, n, 6).

Dimensions: B batch, H W input height and width, A anchors, C classes, n rows.
"""

from __future__ import annotations

import ast
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from holdfast.errors import MissingExtraError, SettingsError, WeightsError
from holdfast.geometry.boxes import cxcywh_to_xyxy
from holdfast.geometry.targets import BOXES
from holdfast.models.outputs import Decoded, DetectOutputs, FileOutputs, Rows

SUFFIXES = (".onnx", ".torchscript", ".pt2")
FACTS_FILE = "config.txt"  # where a TorchScript file keeps its facts; readers of such files look there
INPUT, OUTPUT = "images", "output0"

Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Facts:
    """What an exported file says about itself.

    Attributes:
        names: class names by number.
        stride: what input sides are multiples of.
        imgsz: height and width of the input; the size to prefer where any will do.
        batch: images per call; any number where `dynamic`.
        dynamic: whether batch, height and width are free.
        half: whether the input is float16.
        device: where it is run: what a graph of torch was recorded on, the CPU for ONNX.
        task: what the network does.
        description: which model it is and who wrote it.
        suppression: what was done inside the file, in words; empty where nothing was.
    """

    names: dict[int, str]
    stride: int = 32
    imgsz: tuple[int, int] = (640, 640)
    batch: int = 1
    dynamic: bool = False
    half: bool = False
    device: str = "cpu"
    task: str = "detect"
    description: str = ""
    suppression: str = ""

    def texts(self) -> dict[str, str]:
        """The facts as texts, which every format can hold; `facts_of` reads them."""
        return {key: value if isinstance(value, str) else repr(value) for key, value in asdict(self).items()}


class Exported(nn.Module):
    """A network in a file; `forward` maps (B, 3, H, W) RGB in [0, 1] to decoded anchors or rows.

    Args:
        run: the runtime: (B, 3, H, W) on the file's device to the file's output.
        facts: what the file says about itself.
        path: the file, for messages.

    Attributes:
        fixed_size: the only height and width that the file takes; None: any multiples of the stride.
    """

    deployed = True
    reg_max = 1  # boxes come decoded
    outputs = answers = DetectOutputs  # a detector, to those who ask what it is
    needs = BOXES
    own_imgsz = None
    keypoints = None

    def __init__(self, run: Run, facts: Facts, path: Path) -> None:
        super().__init__()
        self._run = run
        self.facts = facts
        self.path = path
        self.name = path.name
        self.names = facts.names
        self.classes = len(facts.names)
        self.task = facts.task
        self.strides: Sequence[int] = (facts.stride,)
        self.fixed_size = None if facts.dynamic else facts.imgsz

    def deploy(self, *, nms: bool | None = None) -> Exported:
        """Returns itself.

        Raises:
            SettingsError: a branch was asked for; the file has one.
        """
        if nms is not None:
            raise SettingsError(
                f"{self.path} holds one branch, so nms={nms} is not possible.",
                hint="Leave it out; 'holdfast export' chooses the branch by --end2end.",
            )
        return self

    def forward(self, images: Tensor) -> FileOutputs:
        """Images to decoded anchors or rows, on the device of the images; any number of images.

        Raises:
            SettingsError: another size than the file takes.
        """
        size = tuple(images.shape[2:])
        if self.fixed_size not in (None, size):
            height, width = self.facts.imgsz
            raise SettingsError(
                f"{self.path} takes pictures of {height}x{width} only, not of {size[0]}x{size[1]}.",
                hint="Leave --imgsz out, or export with --dynamic.",
            )
        x = images.to(self.facts.device, torch.float16 if self.facts.half else torch.float32)
        count = len(x) if self.facts.dynamic else self.facts.batch
        parts = []
        for start in range(0, len(x), count):
            chunk = x[start : start + count]
            given = F.pad(chunk, (0, 0, 0, 0, 0, 0, 0, count - len(chunk)))  # a static batch is filled up
            parts.append(self._run(given.contiguous())[: len(chunk)])
        return self._sorted_out(torch.cat(parts).to(images.device, torch.float32))

    def _sorted_out(self, found: Tensor) -> FileOutputs:
        if found.ndim == 3 and found.shape[1] == 4 + self.classes:
            boxes, scores = found.transpose(1, 2).tensor_split((4,), dim=2)
            return Decoded(cxcywh_to_xyxy(boxes), scores)
        if found.ndim == 3 and found.shape[2] == 6:
            return Rows(found)
        raise WeightsError(
            f"{self.path}: gives {tuple(found.shape)}, which are neither anchors of {self.classes} classes "
            "(B, 4 + classes, A) nor rows (B, n, 6).",
            hint="Write the file with 'holdfast export'.",
        )


def is_exported(source: str | Path) -> bool:
    """Whether a path names an exported file, by its suffix."""
    return Path(source).suffix.lower() in SUFFIXES


def open_exported(path: Path, *, dnn: bool = False) -> Exported:
    """Opens an exported file.

    Args:
        path: a file that ends as `SUFFIXES`. A `.pt2` is trusted: torch may unpickle parts of it.
        dnn: run ONNX by OpenCV instead of onnxruntime.

    Raises:
        WeightsError: no such file, damaged, or without the facts that make it a detector.
        MissingExtraError: the runtime is not installed.
        SettingsError: OpenCV was asked for something else than ONNX.
    """
    if not path.is_file():
        raise WeightsError(f"There is no exported file '{path}'.", hint="Check the path.")
    suffix = path.suffix.lower()
    if dnn and suffix != ".onnx":
        raise SettingsError(f"dnn runs ONNX files by OpenCV, and {path} is none.", hint="Leave --dnn out.")
    if suffix == ".onnx":
        return _with_opencv(path) if dnn else _with_onnxruntime(path)
    return _with_torchscript(path) if suffix == ".torchscript" else _with_torch_export(path)


def _with_onnxruntime(path: Path) -> Exported:
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError(
            f"{path} needs onnxruntime, which is not installed.",
            hint="Type pip install 'holdfast[export]', or add --dnn, which takes OpenCV.",
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as fault:  # its exceptions have no common base
        raise _unreadable(path, fault) from fault
    facts = replace(facts_of(session.get_modelmeta().custom_metadata_map, path), device="cpu")
    (first, *_), outputs = session.get_inputs(), session.get_outputs()
    if len(outputs) != 1:
        raise WeightsError(
            f"{path}: has {len(outputs)} outputs, and one is expected.",
            hint="Write the file with 'holdfast export'.",
        )

    def run(x: Tensor) -> Tensor:
        (found,) = session.run(None, {first.name: x.numpy()})
        return torch.from_numpy(found)

    return Exported(run, facts, path)


def _with_opencv(path: Path) -> Exported:
    import cv2

    facts = replace(facts_of(onnx_metadata(path), path), device="cpu")
    try:
        net = cv2.dnn.readNetFromONNX(str(path))
    except cv2.error as fault:
        raise _unreadable(path, fault) from fault

    def run(x: Tensor) -> Tensor:
        net.setInput(x.float().numpy())
        try:
            return torch.from_numpy(net.forward())
        except cv2.error as fault:
            raise WeightsError(
                f"{path}: OpenCV cannot compute it ({first_line(fault)}).", hint="Leave --dnn out."
            ) from fault

    return Exported(run, facts, path)


def _with_torchscript(path: Path) -> Exported:
    extra = {FACTS_FILE: ""}
    load: Any = torch.jit.load
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch recommends its other formats
        try:
            script = load(str(path), map_location="cpu", _extra_files=extra)
        except (RuntimeError, ValueError) as fault:
            raise _unreadable(path, fault) from fault
    facts = facts_of(_texts(extra), path)
    device = torch.device(facts.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise WeightsError(
            f"{path}: was exported for CUDA, which this machine has not.",
            hint="Export again with --device cpu.",
        )
    return Exported(_alone(script.to(device)), facts, path)


def _with_torch_export(path: Path) -> Exported:
    extra = {FACTS_FILE: ""}
    try:
        program = torch.export.load(path, extra_files=extra)
    except Exception as fault:  # damaged files fail in many ways
        raise _unreadable(path, fault) from fault
    return Exported(_alone(program.module()), facts_of(_texts(extra), path), path)


def _alone(network: Callable[[Tensor], Any]) -> Run:
    """Hides a network of torch, which would be a part of `Exported` and change its format with it."""
    return lambda x: network(x)


def _texts(extra: Mapping[str, Any]) -> dict[str, Any]:
    """The facts beside a network of torch; none where there are none that can be read."""
    try:
        found = json.loads(extra[FACTS_FILE])
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def facts_of(texts: Mapping[str, Any], path: Path) -> Facts:
    """Reads what a file says about itself; as texts, which hold plain Python values, or as values.

    Raises:
        WeightsError: it says too little or something that cannot be, or is for another task.
    """
    try:
        told = {key: _value(value) for key, value in texts.items() if key in Facts.__dataclass_fields__}
        names = {int(number): str(name) for number, name in told.pop("names").items()}
        size = told.pop("imgsz", (640, 640))
        height, width = (size, size) if isinstance(size, int) else size
        args = _value(texts.get("args", "{}"))  # where Ultralytics says whether sizes are free
        if isinstance(args, dict):
            told = {**{key: args[key] for key in ("dynamic", "half") if key in args}, **told}
        facts = Facts(names, imgsz=(int(height), int(width)), **told)
        valid = sorted(names) == list(range(len(names))) and facts.stride > 0 and facts.batch > 0
    except (KeyError, ValueError, TypeError, AttributeError):
        valid = False
    if not valid:
        raise WeightsError(
            f"{path}: does not say which classes, stride and size it has.",
            hint="Write the file with 'holdfast export'.",
        )
    if facts.task != "detect":
        raise WeightsError(f"{path}: is for the task '{facts.task}', and only exported detectors are run.")
    return facts


def _value(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def onnx_metadata(path: Path) -> dict[str, str]:
    """The metadata of an ONNX file, without a library for it: entries are field 14 of the outer message.

    Raises:
        WeightsError: not an ONNX file.
    """
    data = memoryview(path.read_bytes())
    try:
        entries = [dict(_fields(part)) for number, part in _fields(data) if number == 14]
        return {bytes(entry[1]).decode(): bytes(entry.get(2, b"")).decode() for entry in entries}
    except (IndexError, KeyError, ValueError) as fault:
        raise _unreadable(path, fault) from fault


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and content of the length-delimited fields of a protobuf message; others are passed over."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            _, at = _varint(data, at)
        elif kind == 2:
            length, at = _varint(data, at)
            if at + length > len(data):
                raise ValueError("cut off")
            yield tag >> 3, data[at : at + length]
            at += length
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise ValueError("not a protobuf message")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _unreadable(path: Path, fault: Exception) -> WeightsError:
    return WeightsError(f"{path}: cannot be read ({first_line(fault)}).", hint="Export it again.")


def first_line(fault: Exception) -> str:
    """What a runtime says, short enough for a sentence."""
    return str(fault).strip().split("\n")[0][:200] or type(fault).__name__
