"""What every settings class can do: tidy keys, refuse unknown ones, explain wrong values, go to YAML.

Unusual: the constructor is the only door. It accepts the historic spellings (`img-size`, `batch_size`,
`no_amp`), merges the file or preset named by `hyp` below the keys given by hand, and turns every fault into
one `SettingsError` sentence. Settings are frozen; a value found out at run time belongs to the run's records.
"""

from __future__ import annotations

import os
import re
import shlex
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, PrivateAttr, ValidationError
from pydantic.fields import FieldInfo
from typing_extensions import Self

from holdfast.errors import SettingsError, did_you_mean
from holdfast.settings.foreign import foreign, is_idle, remarks
from holdfast.settings.presets import read_overrides

# Historic spelling -> our key; used where the class has our key and not the historic one.
ALIASES: Mapping[str, str] = types.MappingProxyType({
    "img": "imgsz", "img_size": "imgsz", "image_size": "imgsz", "batch_size": "batch", "cfg": "model",
    "weights": "model", "conf_thres": "conf", "iou_thres": "iou", "line_thickness": "line_width",
    "boxes": "show_boxes", "json": "as_json", "gpu_mem_limit": "memory_limit", "val_img_size": "val_imgsz",
})

# Historic spelling -> our key with the opposite meaning.
OPPOSITES: Mapping[str, str] = types.MappingProxyType({"end2end": "nms", "save": "nosave", "val": "noval"})

# Switch -> our key, and its value when the switch is on; off leaves the first value of the key.
SWITCHES: Mapping[str, tuple[str, str, str]] = types.MappingProxyType({
    "fp16": ("amp_dtype", "float16", "auto"), "bf16": ("amp_dtype", "bfloat16", "auto"),
})


def _text(value: object) -> object:
    """Accepts `Path` and None where text is meant, and opens a leading `~` as a shell would."""
    if value is None:
        return ""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    return os.path.expanduser(value) if isinstance(value, str) and value.startswith("~") else value


def as_items(value: object) -> object:
    """Accepts `0,2`, `[0, 2]` and a single item where a list is meant."""
    if isinstance(value, str):
        words = [word.strip().strip("'\"") for word in value.strip().strip("[]()").split(",")]
        return [int(word) if word.isdecimal() else word for word in words if word]
    return [value] if isinstance(value, int) and not isinstance(value, bool) else value


def as_seconds(value: object) -> object:
    """Reads `90`, `90s`, `10m` and `1h` as seconds."""
    if isinstance(value, str) and (found := re.fullmatch(r"\s*([\d.]+)\s*(s|m|h)?\s*", value)):
        return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2] or "s"]
    return value


def _none(value: object) -> object:
    return None if isinstance(value, str) and value.strip().lower() in ("", "none", "null") else value


def as_switch(value: object) -> object:
    """Reads the words of a boolean where text is allowed too."""
    words = {"true": True, "false": False}
    return words.get(value.strip().lower(), value) if isinstance(value, str) else value


def _device(value: object) -> object:
    """Accepts 0, [0, 1], a `torch.device` and None beside '0', '0,1', 'cuda:0' and ''."""
    if isinstance(value, list | tuple):
        return ",".join(str(item) for item in value)
    kind = type(value)
    return str(value) if (kind.__module__, kind.__name__) == ("torch", "device") else _text(value)


def casefold(*choices: str) -> BeforeValidator:
    """Lets `adamw` stand for `AdamW`."""
    table = {choice.lower(): choice for choice in choices}
    return BeforeValidator(lambda value: table.get(value.lower(), value) if isinstance(value, str) else value)


Text = Annotated[str, BeforeValidator(_text)]
Switch = Annotated[bool | str, BeforeValidator(as_switch), BeforeValidator(_text)]
Device = Annotated[str, BeforeValidator(_device)]
OptionalInt = Annotated[int | None, BeforeValidator(_none)]
OptionalSwitch = Annotated[bool | None, BeforeValidator(as_switch), BeforeValidator(_none)]
Ints = Annotated[tuple[int, ...] | None, BeforeValidator(as_items), BeforeValidator(_none)]


class Settings(BaseModel):
    """Base of all components and verbs.

    Args:
        keys: any of the class's fields, in any of the accepted spellings.

    Raises:
        SettingsError: an unknown key (with the nearest one), or a value outside its range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True)

    title: ClassVar[str] = ""
    """Heading of the component in help and tables; empty on verbs."""

    positional: ClassVar[tuple[str, ...]] = ()
    """Keys that words without a key belong to, in order, on verbs that have some; a list takes the rest."""

    _notes: tuple[str, ...] = PrivateAttr(default=())

    def __init__(self, /, **keys: Any) -> None:
        values = tidy(type(self), keys)
        notes = remarks(type(self).verb(), keys)
        if values.get("hyp") and "hyp" in type(self).model_fields:
            overrides, more = read_overrides(str(values["hyp"]), known=type(self).model_fields)
            values, notes = {**overrides, **values}, (*notes, *more)
        try:
            super().__init__(**values)
        except ValidationError as fault:
            raise SettingsError(_explain(type(self), values, fault)) from None
        self._notes = notes

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences the user should see, such as keys of a `hyp` file that have no effect."""
        return self._notes

    def part(self, component: type[Settings]) -> dict[str, Any]:
        """Values of one component's keys, as keyword arguments for what the component describes."""
        return {key: getattr(self, key) for key in component.model_fields}

    @classmethod
    def verb(cls) -> str:
        """The word on the command line: `train` for TrainSettings."""
        return cls.__name__.removesuffix("Settings").lower()

    @classmethod
    def groups(cls) -> dict[str, dict[str, FieldInfo]]:
        """Fields by component title, in the order the verb names its components."""
        found: dict[str, dict[str, FieldInfo]] = {}
        seen: set[str] = set()
        for base in cls.__mro__:
            if issubclass(base, Settings) and base.title and "title" in vars(base):
                own = {key: cls.model_fields[key] for key in base.model_fields if key not in seen}
                seen.update(own)
                found.setdefault(base.title, {}).update(own)
        return found

    def given(self) -> dict[str, Any]:
        """The keys set by hand or through `hyp`, with their checked values."""
        return {key: getattr(self, key) for key in type(self).model_fields if key in self.model_fields_set}

    def command(self) -> str:
        """A shell command that asks for the same: all keys that are not at their defaults."""
        # What a `hyp` file says is among the keys; a repetition starts anew, in a folder of its own.
        left_out = ("hyp", "resume", "exist_ok")
        words = [
            f"{key}={_word(value)}"
            for key, value in self.as_dict().items()
            if key not in left_out and getattr(self, key) != type(self).model_fields[key].get_default()
        ]
        return shlex.join(["holdfast", self.verb(), *words])

    def replace(self, **changes: Any) -> Self:
        """Returns a copy with some keys changed; everything is checked again."""
        values = {**self.given(), **tidy(type(self), changes)}
        return self.from_mapping(values)

    def require(self, *keys: str) -> None:
        """Raises a SettingsError that names the first of `keys` that is empty."""
        for key in keys:
            if not getattr(self, key):
                text = type(self).model_fields[key].description
                hint = f"Add --{key.replace('_', '-')} VALUE."
                raise SettingsError(f"{self.verb()} needs '{key}' ({text}).", hint=hint)

    def as_dict(self) -> dict[str, Any]:
        """All keys in help order with values that YAML and JSON know."""
        ordered = {key for fields in self.groups().values() for key in fields}
        keys = [key for fields in self.groups().values() for key in fields]
        keys += [key for key in type(self).model_fields if key not in ordered]
        values = {key: getattr(self, key) for key in keys}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    def as_yaml(self) -> str:
        """Every key as YAML (`args.yaml` of a run)."""
        return yaml.safe_dump(self.as_dict(), sort_keys=False, allow_unicode=True)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads a file of what `as_yaml` gave; they are complete, so no `hyp` file is read again."""
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as fault:
            raise SettingsError(f"{path}: cannot be read as YAML ({type(fault).__name__}).") from None
        if not isinstance(values, dict):
            raise SettingsError(f"{path}: expected lines of 'key: value'.")
        try:
            return cls.from_mapping({str(key): value for key, value in values.items()})
        except SettingsError as fault:
            raise SettingsError(f"{path}: {fault.message}", hint=fault.hint) from None

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Builds from what `as_dict` gave: a `hyp` in it was merged then and is only remembered."""
        rest = {key: value for key, value in values.items() if key != "hyp"}
        settings = cls(**rest)
        return settings.model_copy(update={"hyp": values["hyp"]}) if values.get("hyp") else settings


def _word(value: object) -> str:
    """A value as the command line takes it."""
    if isinstance(value, list):
        return ",".join(map(_word, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def tidy(kind: type[Settings], keys: Mapping[str, Any]) -> dict[str, Any]:
    """Maps historic and hyphenated spellings to field names.

    Args:
        kind: the settings class whose fields are known.
        keys: spelling -> value. `no_x` (or `nosave`) sets the boolean `x` (`save`) to the opposite.

    Returns:
        field name -> value, in the order given; without keys of other programs that ask for nothing, and
        without those that are None, Python's word for what is not given.

    Raises:
        SettingsError: for an unknown key, or the same key in two spellings.
    """
    values: dict[str, Any] = {}
    spelled: dict[str, str] = {}
    for word, value in keys.items():
        if is_idle(kind.verb(), word, value):
            continue
        key, value = field_of(kind, word, value)
        if value is None:
            continue
        if key in spelled:
            raise SettingsError(f"'{key}' is given twice, as '{spelled[key]}' and '{word}'.")
        spelled[key] = word
        values[key] = value
    return values


def field_of(kind: type[Settings], word: str, value: Any = None) -> tuple[str, Any]:
    """Returns the field a spelling means, and its value (inverted for a negation such as `no_amp`)."""
    fields = kind.model_fields
    key = word.strip().replace("-", "_")
    if key in fields:
        return key, value
    alias = ALIASES.get(key)
    if alias in fields:
        return str(alias), value
    rest = OPPOSITES.get(key, "")
    if key.startswith("no"):
        plain = key.removeprefix("no").lstrip("_")
        rest = plain if plain in fields and fields[plain].annotation is bool else rest
    if rest in fields:
        return rest, None if value is None else not _is_on(value)
    if key in SWITCHES and SWITCHES[key][0] in fields:
        meant, on, off = SWITCHES[key]
        return meant, None if value is None else on if _is_on(value) else off
    known = foreign(kind.verb(), word)
    if known is not None:
        given = "" if value is None else f", so {word}={value} is not possible"
        raise SettingsError(f"{kind.verb()} has no key '{word}'{given}.", hint=known.instead)
    owner = next((verb.verb() for verb in _verbs(Settings) if key in verb.model_fields), "")
    if owner:
        raise SettingsError(f"{kind.verb()} has no key '{word}'.", hint=f"It belongs to 'holdfast {owner}'.")
    spellings = [*fields, *(alias for alias, target in ALIASES.items() if target in fields)]
    near = did_you_mean(key, spellings)
    hint = near.strip() or f"See 'holdfast {kind.verb()} --help'."
    raise SettingsError(f"{kind.verb()} has no key '{word}'.", hint=hint)


def _is_on(value: object) -> bool:
    return value.strip().lower() not in ("false", "0", "no", "off") if isinstance(value, str) else bool(value)


def _verbs(kind: type[Settings]) -> Iterator[type[Settings]]:
    """The classes below `kind` that describe a verb: components have a title of their own."""
    for below in kind.__subclasses__():
        if "title" not in vars(below):
            yield below
        yield from _verbs(below)


def _explain(kind: type[Settings], values: Mapping[str, Any], fault: ValidationError) -> str:
    """One sentence for all problems of a validation error."""
    sentences: dict[str, str] = {}
    for error in fault.errors():
        key = str(error["loc"][0]) if error["loc"] else ""
        if not key:
            sentences[key] = str(error.get("ctx", {}).get("error", error["msg"]))
            continue
        field = kind.model_fields[key]
        text = f"{key}={values.get(key)} does not fit: expected {expected(field)} ({field.description})"
        sentences.setdefault(key, text)
    return "; ".join(sentences.values()) + "."


def expected(field: FieldInfo) -> str:
    """Kind and range of a field in words, such as 'a number from 0 to 1'."""
    return f"{_kind(field.annotation)}{_range(field)}"


def _kind(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Literal:
        choices = [str(choice) for choice in get_args(annotation)]
        return choices[0] if len(choices) == 1 else "one of " + ", ".join(choices)
    if origin in (Union, types.UnionType):
        parts = [_kind(part) for part in get_args(annotation)]
        return " or ".join(part.removeprefix("one of ") for part in parts)
    if origin is Annotated:
        return _kind(get_args(annotation)[0])
    if origin is tuple:
        item = _kind(get_args(annotation)[0])
        if item.startswith("one of "):
            return f"a list of any of {item.removeprefix('one of ')}"
        words = item.split(" or ")
        return "a list of " + " or ".join(f"{word.removeprefix('a ')}s" for word in words)
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    return "none" if annotation is type(None) else names.get(annotation, str(annotation))


def _range(field: FieldInfo) -> str:
    words = {"ge": "from", "gt": "above", "le": "to", "lt": "to below"}
    found = [(name, getattr(item, name)) for name in words for item in field.metadata if hasattr(item, name)]
    text = "".join(
        f" {words[name]} {limit if isinstance(limit, int) else format(limit, 'g')}" for name, limit in found
    )
    return text + (" up" if [name for name, _ in found] == ["ge"] else "")
