"""docs/moving.md: every flag and key of the programs people come from, with what becomes of it here."""

from __future__ import annotations

from holdfast.cli.compat import fate
from holdfast.cli.grammar import MODES, SPECIAL
from holdfast.cli.official import PROGRAMS
from holdfast.settings.base import ALIASES, OPPOSITES, SWITCHES
from holdfast.settings.foreign import FOREIGN, Foreign

_HEAD = """\
# Moving over

Written by `make docs` from `src/holdfast/cli/` and `src/holdfast/settings/`; do not edit. Weight files of
both programs
load as they are, data sets too, and what is different on purpose is on [Differences](differences.md).

## From the official YOLOv9 program

The scripts in `compat/` take its command lines as they are written, abbreviations of flags included:

```bash
python compat/train_dual.py --workers 8 --device 0 --batch 64 --data data.yaml --img 640 \\
    --cfg models/detect/yolov9-s.yaml --weights '' --name yolov9-s-64b --hyp hyp.scratch-high.yaml \\
    --min-items 0 --epochs 20 --close-mosaic 15
python compat/val_dual.py --data data.yaml --img 640 --weights runs/train/yolov9-s-64b/weights/best.pt
python compat/detect_dual.py --source photos --img 640 --weights runs/train/yolov9-s-64b/weights/best.pt
python compat/export.py --img 640 640 --weights runs/train/yolov9-s-64b/weights/best.pt --include onnx
```

`train_dual`, `val_dual` and `detect_dual` are also there as `train`, `val` and `detect`; the difference, one
branch or two, is
the model's. Where nothing is said, the defaults are the official ones (SGD, the high augmentation, mosaic to
the end;
`train` takes the low augmentation). Two defaults of `export` differ: the input size is that of the weights,
and ONNX has the operator set that torch writes, not 12. Every key of the native verb works in these scripts
too."""

_ULTRALYTICS = """
## From Ultralytics

Scripts in Python keep their keywords: `from holdfast import YOLO`. Command lines keep their grammar; only
the first word changes:

```bash
holdfast detect train data=data.yaml model=yolo26n.yaml epochs=20 imgsz=640
holdfast detect val model=runs/train/exp/weights/best.pt
holdfast detect predict model=runs/train/exp/weights/best.pt source=photos
```

The order of task and verb is free, `key = value` may have spaces, `None` leaves a key alone (in Python
too). Every key on the page
[Settings](SETTINGS.md) means what it means there unless [Differences](differences.md#keywords) says so.
These keys are none
here: at the value in the second column they ask for nothing and are taken, otherwise the error says what is
in the third."""


def moving_page() -> str:
    """The page as Markdown; `make docs` writes it, a test compares it."""
    lines = [_HEAD]
    shown: set[int] = set()
    for name, program in PROGRAMS.items():
        if id(program.flags) in shown:
            continue
        shown.add(id(program.flags))
        lines += ["", f"### {name}", ""]
        lines += ["| flag | here |", "|---|---|"]
        lines += [f"| `--{flag}` | {fate(known)} |" for flag, known in program.flags.items()]
    lines += [_ULTRALYTICS]
    for verb, keys in FOREIGN.items():
        lines += ["", f"### holdfast {verb}", "", "| key | taken at | otherwise |", "|---|---|---|"]
        lines += [f"| `{key}` | {_taken(known)} | {known.instead} |" for key, known in keys.items()]
    lines += ["", "### Modes and commands", "", "| word | here |", "|---|---|"]
    lines += [f"| `{word}` | {text} |" for word, text in {**MODES, **SPECIAL}.items()]
    lines += ["", "## Other spellings", "", "| spelling | means |", "|---|---|"]
    lines += [f"| `{word}` | `{key}` |" for word, key in ALIASES.items()]
    lines += [f"| `{word}` | not `{key}` |" for word, key in OPPOSITES.items()]
    lines += [f"| `{word}` | `{key}={value}` |" for word, (key, value, _) in SWITCHES.items()]
    return "\n".join(lines)


def _taken(known: Foreign) -> str:
    if known.obsolete:
        return "any, and said to do nothing"
    return ", ".join(f"`{value}`" for value in (None, *(idle for idle in known.idle if idle is not None)))
