"""Help pages and documentation tables, generated from the settings classes."""

from __future__ import annotations

import shutil
import textwrap
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from holdfast.settings.base import ALIASES, Settings, expected

_INDENT = 30
_EXAMPLES = {
    "train": ("holdfast train --model yolov9-s --data data.yaml --batch 64 --epochs 100",
              "holdfast train model=best.pt data=data.yaml hyp=scratch-high imgsz=320"),
    "val": ("holdfast val --model runs/train/exp/weights/best.pt --data data.yaml",),
    "predict": ("holdfast predict --model runs/train/exp/weights/best.pt --source photos/ --conf 0.4",),
    "demo": ("holdfast demo --folder demo",),
    "check": ("holdfast check data.yaml",
              "holdfast check data.yaml --json --no-plots",
              "holdfast check data.yaml --fix cleaned"),
    "plan": ("holdfast plan yolov9-s --imgsz 640 --batch 64 --memory-limit 8GB",
             "holdfast plan yolo26x --batch 64 --compare",
             "holdfast plan yolov9-c --batch -1 --json"),
    "watch": ("holdfast watch",
              "holdfast watch runs/train/exp --once --last 300"),
    "report": ("holdfast report",
               "holdfast report runs/train/exp"),
    "advise": ("holdfast advise",
               "holdfast advise runs/train/exp --json"),
    "compare": ("holdfast compare runs/train/exp runs/train/exp2",
                "holdfast compare runs/train/exp* --json"),
    "benchmark": ("holdfast benchmark runs/train/exp/weights/best.pt --sizes 320,640 --data data.yaml",
                  "holdfast benchmark yolov9-s --device 0 --batch 8 --json"),
    "tune": ("holdfast tune --model yolov9-t --data data.yaml --trials 30 --epochs 20",
             "holdfast tune --data data.yaml --search lr0,box,mosaic",
             "holdfast tune --resume runs/tune/exp",
             "holdfast train --data data.yaml --hyp runs/tune/exp/best.yaml"),
    "certify": ("holdfast certify",
                "holdfast certify --model yolov9-s --data data.yaml --epochs 10 --imgsz 320",
                "holdfast certify --seeds same"),
    "env": ("holdfast env", "holdfast env --json"),
    "convert": ("holdfast convert yolo26n.pt yolo26n.safetensors",
                "holdfast convert runs/train/exp/weights/best.pt official.pt --form official --half"),
    "export": ("holdfast export runs/train/exp/weights/best.pt --format onnx",
               "holdfast export yolo26n.pt --format onnx --dynamic --data data.yaml",
               "holdfast export yolov9-s --format torchscript --half --device 0"),
    "download": ("holdfast download yolo26n",
                 "holdfast download yolov9-c gelan-c --folder weights"),
}

_EXIT_CODES = {
    "certify": ("0  every verdict holds", "1  one does not"),
    "check": ("0  nothing is wrong",
              "1  usable, but there are warnings to look at",
              "2  cannot be trained on: no images, no labels, a missing split, a data file that is refused"),
}


def help_text(kind: type[Settings], *, summary: str) -> str:
    """The help page of a verb: keys by component, each with its default and range."""
    verb = kind.verb()
    width = max(60, min(shutil.get_terminal_size().columns, 120))
    words = "".join(_positional(kind, key) for key in kind.positional)
    lines = [f"{summary}.", "", f"Usage: holdfast {verb} {words}[--key value | key=value] ..."]
    for title, fields in kind.groups().items():
        lines += ["", title]
        for key, field in fields.items():
            lines += _entry(key, field, width)
    lines += ["", "Examples", *(f"  {example}" for example in _EXAMPLES.get(verb, ()))]
    if verb in _EXIT_CODES:
        lines += ["", "Exit codes", *(f"  {code}" for code in _EXIT_CODES[verb])]
    return "\n".join(lines)


def markdown_table(kind: type[Settings], *, beyond: type[Settings] | None = None) -> str:
    """The keys of a verb as a table for the documentation.

    Args:
        beyond: leave out what is as in this class.
    """
    known = {} if beyond is None else beyond.model_fields
    lines = ["| key | default | values | meaning |", "|---|---|---|---|"]
    for title, every in kind.groups().items():
        fields = {key: field for key, field in every.items() if not _same(field, known.get(key))}
        if not fields:
            continue
        lines.append(f"| **{title}** | | | |")
        lines += [f"| `{key}` | {_default(field)} | {expected(field)} | {field.description} |"
                  for key, field in fields.items()]
    return "\n".join(lines)


def _same(field: FieldInfo, other: FieldInfo | None) -> bool:
    return other is not None and (field.default, field.description) == (other.default, other.description)


def _entry(key: str, field: FieldInfo, width: int) -> list[str]:
    name = key.replace("_", "-")
    if field.annotation is bool:
        flag = f"  --{name}" if not field.default else f"  --{name}, --no-{name}"
    else:
        flag = f"  --{name} {_placeholder(field.annotation)}"
    text = f"{field.description} [{_default(field) or 'empty'}]"
    body = textwrap.wrap(text, width - _INDENT)
    if len(flag) >= _INDENT - 1:
        return [flag, *(" " * _INDENT + line for line in body)]
    return [f"{flag:<{_INDENT}}{body[0]}", *(" " * _INDENT + line for line in body[1:])]


def _positional(kind: type[Settings], key: str) -> str:
    several = isinstance(kind.model_fields[key].default, tuple)
    return f"{key.upper()} ... " if several else f"{key.upper()} "


def _default(field: FieldInfo) -> str:
    value = field.default
    if isinstance(value, bool):
        return "on" if value else "off"
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return ", ".join(str(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _placeholder(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Literal:
        return "|".join(str(choice) for choice in get_args(annotation))
    if origin in (Union, types.UnionType):
        parts = [part for part in get_args(annotation) if part is not type(None)]
        kinds = [part for part in parts if part is not bool] or parts
        names = "|".join(_placeholder(part) for part in kinds)
        return "|".join(dict.fromkeys(names.split("|")))
    if origin is Annotated:
        return _placeholder(get_args(annotation)[0])
    if origin is tuple:
        return f"{_placeholder(get_args(annotation)[0])}..."
    return {int: "N", float: "X", str: "TEXT", bool: "YES|NO"}.get(annotation, "VALUE")


def settings_page() -> str:
    """docs/SETTINGS.md: every key of every verb. `make docs` writes it, a test compares it."""
    from holdfast import settings

    lines = [
        "# Settings",
        "",
        "Written by `make docs` from `src/holdfast/settings/`; do not edit. Every key works as `--key value`",
        "and `key=value` on the command line, as a keyword in Python, and (training) as a line of a `hyp`",
        "file. Keys may be hyphenated, booleans negated (`--no-amp`). Where a verb has no key of that name:",
        ", ".join(f"`{alias}` means `{key}`" for alias, key in ALIASES.items()) + ".",
    ]
    verbs = (
        "Train", "Val", "Predict", "Demo", "Check", "Plan", "Watch", "Advise", "Report", "Compare",
        "Benchmark", "Tune", "Certify", "Convert", "Export", "Download", "Env",
    )  # fmt: skip
    for verb in verbs:
        kind = getattr(settings, f"{verb}Settings")
        lines += ["", f"## holdfast {kind.verb()}", ""]
        train = settings.TrainSettings if verb in ("Tune", "Certify") else None
        if train is not None:
            lines += ["Every key of `holdfast train`, and these, or with these defaults:", ""]
        lines.append(markdown_table(kind, beyond=train))
    return "\n".join(lines)
