"""The official YOLOv9 programs by their own flags: `compat/train_dual.py` and its siblings call `main`.

Flags are read as argparse reads them there (`--batch` for `--batch-size`), turned into keys of the native
verb by the table in official.py, and run by the same functions. A key of the native verb that is no official
flag (`--micro-batch`, `--lr0`) works too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from holdfast.cli.official import PROGRAMS, Flag, Program
from holdfast.errors import SettingsError
from holdfast.settings.base import Settings, field_of
from holdfast.settings.foreign import foreign

Say = Callable[[str], None]


def main(program: str, argv: Sequence[str] | None = None) -> int:
    """Runs one official program.

    Args:
        program: its name without `.py`, such as `train_dual`.
        argv: the words after it; those of the process when None.

    Returns:
        Exit code, as of the `holdfast` command.
    """
    from holdfast.cli.main import guarded

    words = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: _run(program, words))


def _run(program: str, words: list[str]) -> int:
    if any(word in ("-h", "--help") for word in words):
        print(help_text(program))
        return 0
    settings = read(program, words)
    from holdfast import running
    from holdfast.settings import ExportSettings, PredictSettings, TrainSettings, TuneSettings, ValSettings

    if isinstance(settings, TuneSettings):
        from holdfast.tune.search import run_tune

        run_tune(settings)
    elif isinstance(settings, TrainSettings):
        running.run_train(settings)
    elif isinstance(settings, ValSettings):
        running.run_val(settings)
    elif isinstance(settings, PredictSettings):
        running.run_predict(settings)
    elif isinstance(settings, ExportSettings):
        from holdfast.exporting import run_export

        run_export(settings)
    return 0


def read(program: str, words: Sequence[str], *, say: Say = print) -> Settings:
    """Returns the settings that an official command line asks for.

    Args:
        program: name of the program.
        words: its words.
        say: told what is read in another way than there, a line for each flag.

    Raises:
        SettingsError: a flag that does not exist, needs a value, or cannot be followed.
    """
    from holdfast.cli.parse import parse
    from holdfast.settings import TuneSettings

    known = PROGRAMS[program]
    native: list[str] = []
    kind = _kind(known)
    for name, values in _chunks(words):
        flag = _flag(known, name)
        if flag is None:
            native += [name, *values]
            continue
        if flag.key == "trials":
            kind = TuneSettings
        native += _translated(flag, name, values, say=lambda text: say(f"{program}: {text}"))
    keys = parse(kind, native)
    meant = {field_of(kind, key)[0]: value for key, value in keys.items() if not foreign(known.verb, key)}
    if meant.get("model") == "":
        keys = {key: value for key, value in keys.items() if field_of(kind, key)[0] != "model"}
    if known.verb == "train" and not any(meant.get(key) for key in ("model", "weights", "resume")):
        raise SettingsError(f"{program} needs a model.", hint="Add --cfg yolov9-s.yaml or --weights FILE.")
    if not meant.get("resume"):  # what a run had stays as it was
        keys = {**{key: value for key, value in known.defaults.items() if key not in meant}, **keys}
    return kind(**keys)


def help_text(program: str) -> str:
    """The flags of a program and what becomes of each."""
    known = PROGRAMS[program]
    lines = [f"Usage: python compat/{program}.py [--flag VALUE ...]", ""]
    lines += [f"  --{name:<18} {fate(flag)}" for name, flag in known.flags.items()]
    return "\n".join([*lines, "", f"Every key of 'holdfast {known.verb}' works here too."])


def fate(flag: Flag) -> str:
    """What becomes of a flag, in words."""
    if flag.fate == "refused":
        return f"refused: {flag.text}"
    if flag.fate == "idle":
        return f"taken: {flag.text}"
    value = f"={flag.on}" if flag.shape == "switch" and flag.on != "True" else ""
    return f"{flag.key}{value}" + (f": {flag.text}" if flag.fate == "mapped" else "")


def _kind(program: Program) -> type[Settings]:
    from holdfast import settings

    kind: type[Settings] = getattr(settings, f"{program.verb.capitalize()}Settings")
    return kind


def _chunks(words: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Cuts words before each `--flag`; a value written `--flag=value` is a word of its own afterwards."""
    chunks: list[tuple[str, list[str]]] = []
    for word in words:
        name, equals, value = word.partition("=")
        if word.startswith("--"):
            chunks.append((name, [value] if equals else []))
        elif not chunks:
            chunks.append((word, []))  # key=value, which the native verb knows
        else:
            chunks[-1][1].append(word)
    return chunks


def _flag(program: Program, word: str) -> Flag | None:
    """The official flag that a word means, or None for a key of the native verb.

    Raises:
        SettingsError: the word is the beginning of several flags.
    """
    if not word.startswith("--"):
        return None
    name = word.removeprefix("--").replace("_", "-")
    name = {"img": "imgsz", "img-size": "imgsz"}.get(name, name)
    if name in program.flags:
        return program.flags[name]
    near = [known for known in program.flags if known.startswith(name)]
    if len(near) == 1:
        return program.flags[near[0]]
    try:
        field_of(_kind(program), name)
        return None
    except SettingsError:
        if not near:
            raise
    raise SettingsError(f"'{word}' may be any of {', '.join(f'--{known}' for known in near)}.")


def _translated(flag: Flag, word: str, values: list[str], *, say: Say) -> list[str]:
    """Words of the native verb for one official flag with its values."""
    if flag.shape == "value" and len(values) != 1:
        raise SettingsError(f"{word} takes one value, {len(values)} were given.")
    if flag.shape == "list" and not values:
        raise SettingsError(f"{word} needs a value.")
    if flag.shape in ("switch", "optional") and len(values) > 1:
        raise SettingsError(f"{word} does not take '{' '.join(values)}'.")
    given = values[0] if values else flag.on
    quiet = given in flag.quiet
    if flag.fate == "refused":
        if not quiet:
            raise SettingsError(f"{word} is not possible here.", hint=flag.text)
        return []
    if flag.fate == "idle":
        if not quiet:
            say(f"{word}: {flag.text}")
        return []
    if flag.key == "split" and given in ("speed", "study"):
        if given == "study":
            raise SettingsError(f"{word} study is not possible here.", hint="Validate once for each --imgsz.")
        say(f"{word} speed: validates with conf 0.25 and iou 0.45; the last line has the time per image")
        return ["--conf=0.25", "--iou=0.45"]
    if flag.key == "imgsz" and flag.fate == "mapped" and len(values) > 1:
        longer = max(values, key=lambda value: int(value) if value.isdecimal() else 0)
        if len(set(values)) > 1:
            say(f"{word} {' '.join(values)}: {flag.text}")
        return [f"--imgsz={longer}"]
    if flag.key == "model" and len(values) > 1:
        raise SettingsError(f"{word} names {len(values)} files.", hint=f"{flag.text} --weights {values[0]}")
    if flag.fate == "mapped" and flag.key != "imgsz" and not quiet:
        say(f"{word} {given}: {flag.text}")
    return [f"--{flag.key}={','.join(values) or flag.on}" if values != [""] else f"--{flag.key}="]
