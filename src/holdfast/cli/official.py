"""The command lines of the official YOLOv9 programs, flag by flag, and what each becomes here.

Unusual: a table of facts. A flag has one of four fates: `same` (a key of ours, read as there), `mapped` (a
key of ours that differs, with a note), `idle` (asks for what happens anyway, with a note), `refused` (an
error with advice).
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Literal, NamedTuple

Shape = Literal["switch", "value", "list", "optional"]
Fate = Literal["same", "mapped", "idle", "refused"]


class Flag(NamedTuple):
    """A flag of an official program.

    Attributes:
        shape: how many words follow it: none, one, several, or one or none.
        fate: what becomes of it.
        key: our key, for `same` and `mapped`.
        text: the note, or the advice of a refusal.
        on: value of `key` when a switch is given.
        quiet: values, as texts, that need no note and are not refused.
    """

    shape: Shape
    fate: Fate
    key: str = ""
    text: str = ""
    on: str = "True"
    quiet: tuple[str, ...] = ()


class Program(NamedTuple):
    """An official program.

    Attributes:
        verb: the verb that does its work here.
        flags: its flags, in the order of its help.
        defaults: values of our keys that it takes where nothing is said, and that differ from ours.
    """

    verb: str
    flags: Mapping[str, Flag]
    defaults: Mapping[str, str]


def _same(key: str, shape: Shape = "value") -> Flag:
    return Flag(shape, "same", key)


def _switch(key: str) -> Flag:
    return Flag("switch", "same", key)


_LOGGER = "That logger is none of ours; results.csv and manifest.json of the run folder hold its numbers."
_ONE_VIEW = "A picture is looked at once; give a larger --imgsz (it crashes in the official program)."
_ONE_FILE = "One weight file at a time."

_TRAIN: dict[str, Flag] = {
    "weights": _same("weights"),
    "cfg": _same("model"),
    "data": _same("data"),
    "hyp": _same("hyp"),
    "epochs": _same("epochs"),
    "batch-size": Flag("value", "mapped", "batch",
                       "images per optimizer step; the official program adds gradients up to about "
                       "64 images, for which give --accumulate too",
                       quiet=("-1", *(str(n) for n in range(43, 4097)))),
    "imgsz": _same("imgsz"),
    "rect": _switch("rect"),
    "resume": _same("resume", "optional"),
    "nosave": _switch("nosave"),
    "noval": _switch("noval"),
    "noautoanchor": Flag("switch", "idle", text="no model here has anchors to fit"),
    "noplots": Flag("switch", "same", "plots", on="False"),
    "evolve": Flag("optional", "mapped", "trials", "a search as by 'holdfast tune', with so many trainings",
                   on="300"),
    "bucket": Flag("value", "refused", text="Copy the run folder to the cloud yourself.", quiet=("",)),
    "cache": Flag("optional", "same", "cache", on="ram"),
    "image-weights": _switch("image_weights"),
    "device": _same("device"),
    "multi-scale": _switch("multi_scale"),
    "single-cls": _switch("single_cls"),
    "optimizer": _same("optimizer"),
    "sync-bn": _switch("sync_bn"),
    "workers": _same("workers"),
    "project": _same("project"),
    "name": _same("name"),
    "exist-ok": _switch("exist_ok"),
    "quad": Flag("switch", "idle",
                 text="does nothing; --mosaic joins four images, --multi-scale changes the size of batches"),
    "cos-lr": _switch("cos_lr"),
    "flat-cos-lr": _switch("flat_cos_lr"),
    "fixed-lr": _switch("fixed_lr"),
    "label-smoothing": Flag("value", "mapped", "label_smoothing",
                            "acts here, while the official loss ignores it", quiet=("0", "0.0")),
    "patience": _same("patience"),
    "freeze": _same("freeze", "list"),
    "save-period": _same("save_period"),
    "seed": _same("seed"),
    "local-rank": Flag("value", "idle", text="the launcher tells it in the environment", quiet=("-1",)),
    "min-items": _same("min_items"),
    "close-mosaic": _same("close_mosaic"),
    "entity": Flag("value", "refused", text=_LOGGER, quiet=("None", "")),
    "upload-dataset": Flag("optional", "refused", text=_LOGGER, quiet=("False",)),
    "bbox-interval": Flag("value", "refused", text=_LOGGER, quiet=("-1",)),
    "artifact-alias": Flag("value", "refused", text=_LOGGER, quiet=("latest",)),
}  # fmt: skip

_VAL: dict[str, Flag] = {
    "data": _same("data"),
    "weights": Flag("list", "same", "model", _ONE_FILE),
    "batch-size": _same("batch"),
    "imgsz": _same("imgsz"),
    "conf-thres": _same("conf"),
    "iou-thres": _same("iou"),
    "max-det": _same("max_det"),
    "task": Flag("value", "mapped", "split", "names the split of data.yaml; 'speed' is conf 0.25, iou 0.45; "
                 "'study' is one command for each --imgsz", quiet=("train", "val", "test")),
    "device": _same("device"),
    "workers": _same("workers"),
    "single-cls": _switch("single_cls"),
    "augment": Flag("switch", "refused", text=_ONE_VIEW),
    "verbose": Flag("switch", "idle", text="the table always has a row for each class"),
    "save-txt": _switch("save_txt"),
    "save-hybrid": Flag("switch", "refused",
                        text="Labels among the detections would raise AP; use --save-txt "
                        "(it crashes in the official program)."),
    "save-conf": _switch("save_conf"),
    "save-json": _switch("save_json"),
    "project": _same("project"),
    "name": _same("name"),
    "exist-ok": _switch("exist_ok"),
    "half": _switch("half"),
    "dnn": _switch("dnn"),
    "min-items": _same("min_items"),
}  # fmt: skip

_DETECT: dict[str, Flag] = {
    "weights": Flag("list", "same", "model", _ONE_FILE),
    "source": _same("source"),
    "data": Flag("value", "idle", text="class names come with the weight file"),
    "imgsz": Flag("list", "mapped", "imgsz", "the longer of the two sides; pictures keep their shape"),
    "conf-thres": _same("conf"),
    "iou-thres": _same("iou"),
    "max-det": _same("max_det"),
    "device": _same("device"),
    "view-img": _switch("show"),
    "save-txt": _switch("save_txt"),
    "save-conf": _switch("save_conf"),
    "save-crop": _switch("save_crop"),
    "nosave": Flag("switch", "same", "save", on="False"),
    "classes": _same("classes", "list"),
    "agnostic-nms": _switch("agnostic_nms"),
    "augment": Flag("switch", "refused", text=_ONE_VIEW),
    "visualize": Flag("switch", "refused", text="Maps are not drawn; add a forward hook to YOLO(...).model."),
    "update": Flag("switch", "refused", text="'holdfast convert IN OUT --half' writes a small file anew."),
    "project": _same("project"),
    "name": _same("name"),
    "exist-ok": _switch("exist_ok"),
    "line-thickness": _same("line_width"),
    "hide-labels": Flag("switch", "same", "show_labels", on="False"),
    "hide-conf": Flag("switch", "same", "show_conf", on="False"),
    "half": _switch("half"),
    "dnn": _switch("dnn"),
    "vid-stride": _same("vid_stride"),
}

_EXPORT: dict[str, Flag] = {
    "data": Flag("value", "idle", text="class names come with the weight file; 'holdfast export' compares AP "
                 "by its --data"),
    "weights": Flag("list", "same", "model", _ONE_FILE),
    "imgsz": _same("imgsz", "list"),
    "batch-size": _same("batch"),
    "device": _same("device"),
    "half": _switch("half"),
    "inplace": Flag("switch", "idle", text="nothing in the graph is changed in place"),
    "keras": Flag("switch", "refused", text="Give --include onnx, which onnx2tf makes a Keras model of."),
    "optimize": Flag("switch", "refused", text="Give --include pt2, which ExecuTorch starts from."),
    "int8": Flag("switch", "refused", text="onnxruntime.quantization makes 8 bits of an ONNX file."),
    "dynamic": _switch("dynamic"),
    "simplify": Flag("switch", "idle", text="is done in any case, unless --no-simplify is given"),
    "opset": _same("opset"),
    "verbose": Flag("switch", "idle", text="is about TensorRT, which is not called here"),
    "workspace": Flag("value", "refused", text="TensorRT's trtexec takes it: --memPoolSize.", quiet=("4",)),
    "nms": Flag("switch", "mapped", "nms", "inside ONNX files, by ONNX's own operator"),
    "agnostic-nms": _switch("agnostic_nms"),
    "topk-per-class": Flag("value", "refused", text="Give --topk-all, the rows per image.", quiet=("100",)),
    "topk-all": Flag("value", "mapped", "max_det", "rows per image, 300 where nothing is said"),
    "iou-thres": _same("iou"),
    "conf-thres": _same("conf"),
    "include": _same("format", "list"),
}  # fmt: skip

_TRAIN_DEFAULTS = {"optimizer": "SGD", "close_mosaic": "0"}
_VAL_DEFAULTS = {"batch": "32"}
_EXPORT_DEFAULTS = {"iou": "0.45"}
_DETECT_DEFAULTS = {"iou": "0.45", "max_det": "1000", "line_width": "3", "name": "exp"}

PROGRAMS: Mapping[str, Program] = types.MappingProxyType({
    "train_dual": Program("train", _TRAIN, {**_TRAIN_DEFAULTS, "hyp": "scratch-high"}),
    "train": Program("train", _TRAIN, {**_TRAIN_DEFAULTS, "hyp": "scratch-low"}),
    "val_dual": Program("val", _VAL, _VAL_DEFAULTS),
    "val": Program("val", _VAL, _VAL_DEFAULTS),
    "detect_dual": Program("predict", _DETECT, _DETECT_DEFAULTS),
    "detect": Program("predict", _DETECT, _DETECT_DEFAULTS),
    "export": Program("export", _EXPORT, _EXPORT_DEFAULTS),
})
