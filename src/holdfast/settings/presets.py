"""Sets of overrides for `hyp`: the presets that ship with the package, and YAML files of the user.

Unusual: files written for the official YOLOv9 program carry gains that nothing reads there (`obj`, `iou_t`,
...). They are accepted at any value and reported as being without effect. Others would change training if
they were supported (`fl_gamma`, ...); those are accepted only at the value that switches them off. A
file that came with a data set or a model does not say where a run is written.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from holdfast.errors import SettingsError, did_you_mean

_FOLDER = Path(__file__).parent / "presets"
_WITHOUT_EFFECT = ("obj", "obj_pw", "iou_t", "anchor_t", "anchors")
_BY_HAND = ("project", "name", "exist_ok", "resume")  # where files go is not up to a file from elsewhere
_ONLY_AT = (("cls_pw", (0.0, 1.0)), ("fl_gamma", (0.0,)))


def preset_names() -> tuple[str, ...]:
    """Names that `hyp` accepts beside a path."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))


def read_overrides(source: str, *, known: Iterable[str]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Reads the override set named by `hyp`.

    Args:
        source: a path, a preset name, or a historic spelling of one (`data/hyps/hyp.scratch-high.yaml`).
        known: keys the settings class has.

    Returns:
        key -> value, and notes about keys that have no effect.

    Raises:
        SettingsError: no such file or preset, not YAML, unknown key.
    """
    path = _find(source)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as fault:
        raise SettingsError(f"hyp file {path} cannot be read as YAML ({type(fault).__name__}).") from None
    if not isinstance(values, dict):
        raise SettingsError(f"hyp file {path} must hold lines of 'key: value'.")
    known = set(known) - {"hyp"}
    only_at = dict(_ONLY_AT)
    overrides: dict[str, Any] = {}
    idle: list[str] = []
    for word, value in values.items():
        key = str(word).replace("-", "_")
        if key in known and key not in _BY_HAND:
            overrides[key] = value
        elif key in (*_WITHOUT_EFFECT, *_BY_HAND) or value in only_at.get(key, ()):
            idle.append(key)
        elif key in only_at:
            off = f"{only_at[key][0]:g}"
            raise SettingsError(f"hyp file {path}: {key}={value} is not supported; only {off} (off) is.")
        else:
            hint = did_you_mean(key, known).strip()
            raise SettingsError(f"hyp file {path} has the unknown key '{word}'.", hint=hint)
    notes = (f"hyp file {path.name}: {', '.join(idle)} have no effect here.",) if idle else ()
    return overrides, notes


def _find(source: str) -> Path:
    path = Path(source).expanduser()
    if path.is_file():
        return path
    name = path.name.removesuffix(".yaml").removesuffix(".yml").removeprefix("hyp.")
    if name in preset_names():
        return _FOLDER / f"{name}.yaml"
    names = preset_names()
    hint = did_you_mean(name, names).strip() or f"Presets are {', '.join(names)}."
    raise SettingsError(f"hyp={source} is neither a file nor a preset.", hint=hint)
