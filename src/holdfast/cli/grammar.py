"""The grammar of Ultralytics: `segment train data=x.yaml`, in any order, to a verb of ours and its words.

Unusual: what has no counterpart (a task, a mode, a special command) is refused in one sentence each.
"""

from __future__ import annotations

import types
from collections.abc import Collection, Mapping

from holdfast.errors import SettingsError

TASKS = ("detect", "segment", "classify", "pose", "obb", "semantic", "depth")
MODES: Mapping[str, str] = types.MappingProxyType({
    "track": "Holdfast does not track yet; 'holdfast predict' detects in each frame.",
})
SPECIAL: Mapping[str, str] = types.MappingProxyType({
    "checks": "'holdfast env' shows what this machine offers.",
    "settings": "Holdfast keeps no settings between commands; docs/SETTINGS.md lists those of a command.",
    "cfg": "'holdfast train --help' lists the keys with their defaults.",
    "copy-cfg": "'holdfast train --help' lists the keys; a YAML file of some is given by --hyp.",
    "login": "Holdfast knows no accounts and talks to no server.",
    "logout": "Holdfast knows no accounts and talks to no server.",
    "solutions": "Holdfast detects; programs on top of it use the Python object YOLO.",
    "hub": "Holdfast knows no accounts and talks to no server.",
})


# Verbs with a key `task`; for the others the model decides it.
TASKED = ("train", "val", "predict", "tune", "certify", "demo")


def translated(words: list[str], *, verbs: Collection[str]) -> list[str]:
    """Returns the words with the verb in front and the task as a key, where they are in that grammar.

    Args:
        words: the words of a command line.
        verbs: the verbs of ours.

    Raises:
        SettingsError: a task, a mode or a command without a counterpart here.
    """
    words = _joined(words)
    if words and words[0] in SPECIAL and words[0] not in verbs:
        raise SettingsError(f"There is no verb '{words[0]}'.", hint=SPECIAL[words[0]])
    bare = [word for word in words[:2] if word in TASKS or word in MODES or word in verbs]
    task = next((word for word in bare if word in TASKS), "")
    mode = next((word for word in bare if word != task), "")
    rest = list(words)
    for word in filter(None, (task, mode)):
        rest.remove(word)
    keys = {key: value for key, equals, value in (word.partition("=") for word in rest) if equals}
    task, mode = task or keys.get("task", ""), mode or keys.get("mode", "")
    if not words[:1] or not (task in TASKS or mode in (*MODES, *verbs)):
        return words
    if mode in MODES and mode not in verbs:
        raise SettingsError(f"There is no verb '{mode}'.", hint=MODES[mode])
    if task in TASKS:
        _require(task)
    if not mode:
        others = f"Write 'holdfast {task} train', 'val' or 'predict'."
        hint = "Did you mean 'predict'?" if task == "detect" else others
        raise SettingsError(f"There is no verb '{task}'.", hint=hint)
    kept = [f"task={task}"] if task not in ("", "detect") and mode in TASKED else []
    return [mode, *(word for word in rest if word not in (f"task={task}", f"mode={mode}")), *kept]


def _require(task: str) -> None:
    from holdfast import api  # not at import: the help page needs no settings

    if task not in api.TASKS:
        hint = f"Models here do this: {', '.join(api.TASKS)}."
        raise SettingsError(f"There is no task '{task}' yet.", hint=hint)


def _joined(words: list[str]) -> list[str]:
    """Puts `key = value` and `imgsz=[480, 640]` together, and drops a comma after a pair."""
    found: list[str] = []
    wanting = False  # the last word is the front of a pair that goes on
    for word in words:
        if found and not found[-1].startswith("--") and (wanting or word.startswith("=")):
            found[-1] += word
        else:
            found.append(word)
        wanting = word == "=" or ("=" in found[-1] and found[-1].count("[") > found[-1].count("]"))
    return [word.rstrip(",") if "=" in word and not word.startswith("--") else word for word in found]
