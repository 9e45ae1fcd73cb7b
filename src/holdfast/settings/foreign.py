"""Keys that scripts for other programs pass and that are no settings here: what they mean, and what to do.

A key at a value that asks for what happens here anyway, mostly its default there, is taken as said. Any other
value is an error that says what to do instead; so nothing that was asked for is ignored.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import yaml


class Foreign(NamedTuple):
    """A key of other programs.

    Attributes:
        idle: values that ask for what happens here anyway; none does always.
        instead: what to do for any other value, one or two sentences.
        obsolete: any value is taken, and `instead` is said once.
    """

    idle: tuple[object, ...]
    instead: str
    obsolete: bool = False


_MASKS = "Masks are a quarter of the input's size, as the model makes them."
_DEPTH = "It is the gain of a loss on depth."
_ONE_VIEW = "A picture is looked at once; a larger --imgsz finds smaller objects."
_TORCH = "Networks run in torch."
_STEPS = "Maps are not drawn; the model is a plain torch module, to which a forward hook can be added."
_TEACHER = "Holdfast trains without a teacher; start from a weight file with --weights."
_HALF = "Give --half to compute in 16 bits."
_NO_COMPILE = "Only a training compiles its network; here it is folded, and runs as it is."
_NO_TRACK = "This version detects in each frame by itself and does not track."
_INT8 = "8 bits need examples; onnxruntime.quantization makes them of an ONNX file and images."
_LOGGER = "A run keeps its numbers in results.csv and manifest.json, and its files in the run folder."

_TRY = "Holdfast writes onnx, torchscript and pt2; give --format"
OTHER_FORMATS: Mapping[str, str] = types.MappingProxyType({
    "openvino": f"{_TRY} onnx, which OpenVINO reads and its tool 'ovc best.onnx' converts.",
    "engine": f"{_TRY} onnx, and on the card it is for TensorRT's own tool: 'trtexec --onnx=best.onnx "
              "--saveEngine=best.engine'.",
    "coreml": f"{_TRY} torchscript, which Apple's coremltools converts.",
    "ncnn": f"{_TRY} torchscript, which ncnn's own tool converts: 'pnnx best.torchscript'.",
    "mnn": f"{_TRY} onnx, which MNN's own MNNConvert converts.",
    "rknn": f"{_TRY} onnx, which Rockchip's rknn-toolkit2 converts.",
    "paddle": f"{_TRY} onnx, which x2paddle converts.",
    "tflite": f"{_TRY} onnx, which onnx2tf converts: 'onnx2tf -i best.onnx'.",
    "saved_model": f"{_TRY} onnx, which onnx2tf converts: 'onnx2tf -i best.onnx'.",
    "pb": f"{_TRY} onnx, which onnx2tf makes a saved_model of, to be frozen by TensorFlow.",
    "edgetpu": f"{_TRY} onnx, then onnx2tf to TFLite in 8 bits and Google's edgetpu_compiler.",
    "tfjs": f"{_TRY} onnx, which onnxruntime-web runs in a browser as it is.",
    "executorch": f"{_TRY} pt2, a program of torch.export, which is what ExecuTorch starts from.",
    "onnx_end2end": f"{_TRY} onnx --nms: suppression by ONNX's own operator, in place of one that only "
                    "TensorRT has.",
})  # fmt: skip

FOREIGN: Mapping[str, Mapping[str, Foreign]] = types.MappingProxyType({
    "train": {
        "agnostic_nms": Foreign((False,), "AP is counted by class; use --single-cls to treat all as one."),
        "augment": Foreign((False,), "Give the strength of each augmentation, such as --mosaic or --hsv-h."),
        "augmentations": Foreign((), "Give the strength of each augmentation, such as --mosaic or --hsv-h."),
        "auto_augment": Foreign(("randaugment",), "Give --autoaugment, which moves boxes too."),
        "classes": Foreign((), "Leave other classes out of the label files, or use --single-cls."),
        "cls_pw": Foreign((0,), "All classes weigh alike in the loss."),
        "cls_remap": Foreign((True,), "Class rows of shared names are kept; --pretrained no drops all."),
        "dgrad": Foreign((0.5,), _DEPTH),
        "dis": Foreign((6,), _TEACHER),
        "distill_model": Foreign((), _TEACHER),
        "dlam": Foreign((1,), _DEPTH),
        "dlog": Foreign((1,), _DEPTH),
        "dnn": Foreign((False,), _TORCH),
        "dropout": Foreign((0,), "No model here has dropout; use --weight-decay."),
        "evolve": Foreign((False,), "Type 'holdfast tune', which takes the same keys and also trials."),
        "half": Foreign((False,), "Training chooses its number format by --amp and --amp-dtype."),
        "mask_ratio": Foreign((4,), _MASKS),
        "mode": Foreign(("train",), "The verb says what to do: 'holdfast val', 'holdfast predict'."),
        "noautoanchor": Foreign((), "no model here has anchors to fit.", obsolete=True),
        "profile": Foreign((False,), "'holdfast val' prints the milliseconds per image of a trained model."),
        "quad": Foreign((), "--mosaic joins four images, --multi-scale changes the size of batches.",
                        obsolete=True),
        "quantize": Foreign((None, 32), "Training keeps its weights in 32 bits."),
        "save_json": Foreign((False,), "'holdfast val' writes the detections of a trained model as JSON."),
        "split": Foreign(("val",), "Name the images for validation in data.yaml under 'val'."),
        "visualize": Foreign((False,), _STEPS),
        "time": Foreign((), "Give --epochs; a run that was stopped goes on with --resume."),
    },
    "val": {
        "agnostic_nms": Foreign((False,), "AP is counted by class; use --single-cls to treat all as one."),
        "augment": Foreign((False,), _ONE_VIEW),
        "classes": Foreign((), "The result has the AP of every class."),
        "compile": Foreign((False,), _NO_COMPILE),
        "mode": Foreign(("val",), "The verb says what to do: 'holdfast train', 'holdfast predict'."),
        "quantize": Foreign((None, 32), _HALF),
        "save_hybrid": Foreign((False,), "Labels among the detections would raise AP; use --save-txt."),
        "visualize": Foreign((False,), _STEPS),
    },
    "predict": {
        "augment": Foreign((False,), _ONE_VIEW),
        "compile": Foreign((False,), _NO_COMPILE),
        "embed": Foreign((), _STEPS),
        "mode": Foreign(("predict",), "The verb says what to do: 'holdfast train', 'holdfast val'."),
        "persist": Foreign((False,), _NO_TRACK),
        "quantize": Foreign((None, 32), _HALF),
        "rect": Foreign((True,), "Pictures are padded to the smallest rectangle."),
        "save_frames": Foreign((False,), "A video is written as a video; ffmpeg takes it apart."),
        "stream": Foreign((True, False), "The command holds one picture at a time in any case."),
        "stream_buffer": Foreign((False,), "Frames of a stream are taken in the order in which they come."),
        "tracker": Foreign(("botsort.yaml",), _NO_TRACK),
        "visualize": Foreign((False,), _STEPS),
    },
    "export": {
        "inplace": Foreign((), "nothing in the graph is changed in place.", obsolete=True),
        "int8": Foreign((False,), _INT8),
        "keras": Foreign((False,), "Give --format onnx, which onnx2tf makes a TensorFlow model of."),
        "mode": Foreign(("export",), "The verb says what to do: 'holdfast train', 'holdfast predict'."),
        "optimize": Foreign((False,), "Give --format pt2, which ExecuTorch takes to mobile devices."),
        "quantize": Foreign((None, 32), "Give --half for 16 bits. " + _INT8),
        "task": Foreign(("detect",), "The weight file decides the task."),
        "workspace": Foreign((None, 4), "It is TensorRT's, whose own tool trtexec takes it."),
    },
})  # fmt: skip


def foreign(verb: str, word: str) -> Foreign | None:
    """What is known about a key of other programs; None where nothing is."""
    return FOREIGN.get(verb, {}).get(word.strip().replace("-", "_"))


def remarks(verb: str, words: Iterable[str]) -> tuple[str, ...]:
    """What to say about keys that are taken and do nothing."""
    known = {word: foreign(verb, word) for word in words}
    return tuple(f"{word} does nothing: {key.instead}" for word, key in known.items() if key and key.obsolete)


def is_idle(verb: str, word: str, value: object) -> bool:
    """Whether a key asks for what happens anyway; its value may be the text of a command line."""
    known = foreign(verb, word)
    if known is None or known.obsolete:
        return known is not None
    if isinstance(value, str):
        try:
            value = yaml.safe_load(value)
        except yaml.YAMLError:
            return False
    return value in (None, "None", "none", *known.idle)
