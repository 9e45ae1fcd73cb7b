"""Yaml of strangers: plain values, no code, and one sentence with the line when it is broken."""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import Any

import yaml

from holdfast.errors import DataError


class _Loader(yaml.SafeLoader):
    """Safe loader in which `no`, `on` and `yes` are words: they are class names here, not switches.

    `<<` is a word too: merged aliases of aliases can grow without bound.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 - yaml reads this class attribute
        first: [
            (tag, pattern)
            for tag, pattern in resolvers
            if tag not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:merge")
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def read_mapping(path: Path) -> dict[str, Any]:
    """Reads a yaml file of keys and values.

    Raises:
        DataError: unreadable, not yaml, a tag that could run code, or no mapping.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot be read ({error.strerror}).", path=path, hint="Check its permissions."
        ) from None
    try:
        codec = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        content = yaml.load(data.decode(codec), Loader=_Loader)
    except UnicodeDecodeError as error:
        at = data.count(b"\n", 0, error.start) + 1
        raise DataError("is not UTF-8 text.", path=path, line=at, hint="Save it as UTF-8.") from None
    except yaml.constructor.ConstructorError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        if "tag" in (error.problem or ""):
            raise DataError(
                f"uses a yaml tag that is refused because it could run code ({error.problem}).",
                path=path,
                line=line,
                hint="Write plain values.",
            ) from None
        raise DataError(
            f"is not valid yaml ({error.problem}).", path=path, line=line, hint="Mend the line."
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).split("\n")[0] or "nested too deeply"
        raise DataError(
            f"is not valid yaml ({problem}).",
            path=path,
            line=mark.line + 1 if mark is not None else None,
            hint="Mend the line; tabs and missing spaces after ':' are the usual causes.",
        ) from None
    if content is None:
        raise DataError("is empty.", path=path, hint="Expected train, val and names.")
    if not isinstance(content, dict):
        raise DataError(
            f"holds a {kind(content)}, expected keys such as train, val and names.",
            path=path,
            hint="Is this the data file?",
        )
    if "<<" in content:
        raise DataError("merges other entries with '<<'.", path=path, hint="Write the keys out.")
    return content


def show(value: object) -> str:
    """A value in short: what aliases build can be endless when written out."""
    short = reprlib.Repr()
    short.maxlevel, short.maxlist, short.maxdict, short.maxstring, short.maxother = 2, 6, 4, 80, 80
    short.maxlong = 40
    return short.repr(value)


def kind(value: object) -> str:
    """What a value is, in a word of everyday language."""
    return {dict: "mapping", list: "list", str: "text", int: "number", float: "number"}.get(
        type(value), type(value).__name__
    )
