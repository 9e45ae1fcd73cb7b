"""Words of a command line to keys and values.

Unusual: three spellings mean the same, `--lr0 0.1`, `--lr0=0.1` and `lr0=0.1`. A boolean may stand alone
(`--rect`, `rect`), carry a value (`rect=False`, `--rect no`) or be negated (`--no-amp`). A list takes words
up to the next key (`--classes 0 2 5`). Words without a key belong to the verb's positional keys, where it has
some. Values stay text here; the settings classes check and convert them.
"""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import Any, Literal, Union, get_args, get_origin

from holdfast.errors import SettingsError
from holdfast.settings.base import SWITCHES, Settings, field_of
from holdfast.settings.foreign import foreign

_BOOLEAN_WORDS = frozenset({"true", "false", "yes", "no", "on", "off", "0", "1"})


def parse(kind: type[Settings], words: Sequence[str]) -> dict[str, Any]:
    """Returns spelling -> text (True for a bare boolean; a list is joined by commas), as settings take them.

    Args:
        kind: the settings class of the verb.
        words: what stands after the verb.

    Raises:
        SettingsError: an unknown key, a key without its value, or a word that is neither key nor value.
    """
    found: dict[str, Any] = {}
    bare: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        flag = word.startswith("--")
        spelled, equals, value = word.removeprefix("--").partition("=")
        if equals and value == "None":  # Python's word for what is not given
            continue
        if not flag and not equals and not _is_boolean(kind, spelled):
            if kind.positional:
                bare.append(word)
                continue
            raise _stray(kind, word)
        known = foreign(kind.verb(), spelled)
        if known and (equals or known.obsolete):
            found[spelled] = value if equals else True  # the settings know what to make of it
            continue
        key, _ = field_of(kind, spelled)
        accepts = {bool} if spelled in SWITCHES else _types(kind, key)
        if equals:
            found[spelled] = value
        elif tuple in accepts and flag:
            found[spelled] = _take_list(kind, spelled, rest)
        elif bool in accepts:
            valued = flag and rest and _is_value(kind, rest[0])
            valued = valued and (str in accepts or rest[0].lower() in _BOOLEAN_WORDS)
            found[spelled] = rest.pop(0) if valued else True
        elif rest and _is_value(kind, rest[0]):
            found[spelled] = rest.pop(0)
        else:
            raise SettingsError(f"{word} needs a value.", hint=f"Write {word} VALUE.")
    return {**found, **_placed(kind, bare, found)}


def _placed(kind: type[Settings], bare: list[str], found: dict[str, Any]) -> dict[str, str]:
    """Words without a key by the key they belong to: in order, past the keys that were given by name."""
    placed = {}
    for key in kind.positional:
        if bare and tuple in _types(kind, key):
            placed[key] = ",".join([*bare, *filter(None, [found.get(key)])])
            bare = []
        elif bare and key not in found:
            placed[key], *bare = bare
    if bare:
        raise _stray(kind, bare[0])
    return placed


def _stray(kind: type[Settings], word: str) -> SettingsError:
    return SettingsError(
        f"{kind.verb()} does not know what '{word}' means.",
        hint="Write --key value or key=value; quote a value that holds spaces.",
    )


def _take_list(kind: type[Settings], spelled: str, rest: list[str]) -> str:
    items: list[str] = []
    while rest and _is_value(kind, rest[0]):
        items.append(rest.pop(0))
    if not items:
        raise SettingsError(f"--{spelled} needs at least one value.", hint=f"Write --{spelled} VALUE VALUE.")
    return ",".join(items)


def _is_value(kind: type[Settings], word: str) -> bool:
    """True unless the word starts the next key: `--x`, or `key=...` with a known key."""
    if word.startswith("--"):
        return False
    key, equals, _ = word.partition("=")
    return not (equals and _is_key(kind, key))


def _is_key(kind: type[Settings], word: str) -> bool:
    try:
        field_of(kind, word)
    except SettingsError:
        return False
    return True


def _is_boolean(kind: type[Settings], word: str) -> bool:
    return _is_key(kind, word) and bool in _types(kind, field_of(kind, word)[0])


def _types(kind: type[Settings], key: str) -> set[Any]:
    """Plain types a field accepts, for example {bool, str}."""

    def walk(annotation: Any) -> set[Any]:
        origin = get_origin(annotation)
        if origin in (Union, types.UnionType):
            return set().union(*(walk(part) for part in get_args(annotation)))
        if origin is Literal:
            return {type(choice) for choice in get_args(annotation)}
        if hasattr(annotation, "__metadata__"):
            return walk(get_args(annotation)[0])
        return {origin or annotation}

    return walk(kind.model_fields[key].annotation)
