"""Lists at the top of a large json file, entry by entry.

A file of 450 MB holds some ten million Python objects when read at once; here one entry is alive at a time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from holdfast.errors import DataError

_SPACE = re.compile(r"[ \t\r\n]*")


def read_bytes(path: Path) -> bytes:
    """Reads a file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot be read ({error.strerror}).", path=path, hint="Check its permissions."
        ) from None


def entries(path: Path) -> Iterator[tuple[str, int, Any]]:
    """Yields (section, position, entry) of the lists at the top of a file, one at a time.

    Raises:
        DataError: not a json object.
    """
    data = read_bytes(path)
    codec = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = data.decode(codec)
        del data
        decode = json.JSONDecoder().raw_decode
        at = _expect(text, 0, "{")
        while text[at : at + 1] != "}":
            key, at = decode(text, at)
            at = _expect(text, at, ":")
            if text[at : at + 1] != "[":
                _, at = decode(text, at)
            else:
                at = _expect(text, at, "[")
                number = 0
                while text[at : at + 1] != "]":
                    entry, at = decode(text, at)
                    yield str(key), number, entry
                    number += 1
                    at = _next(text, at, "]")
                at = _skip(text, at + 1)
            at = _next(text, at, "}")
        if _skip(text, at + 1) != len(text):
            raise json.JSONDecodeError("Extra data", text, at + 1)
    except json.JSONDecodeError as error:
        raise DataError(
            f"is not COCO json ({error.msg}).",
            path=path,
            line=error.lineno,
            hint="Expected an object with the lists images, annotations and categories.",
        ) from None
    except (
        ValueError,
        RecursionError,
    ) as error:  # not text, a number of thousands of digits, endless nesting
        reason = str(error).split("\n")[0][:100]
        raise DataError(f"is not COCO json ({reason}).", path=path, hint="Export it again.") from None


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match is not None else at


def _expect(text: str, at: int, sign: str) -> int:
    """Returns the place behind a sign and the space around it."""
    at = _skip(text, at)
    if text[at : at + 1] != sign:
        raise json.JSONDecodeError(f"Expecting '{sign}'", text, at)
    return _skip(text, at + 1)


def _next(text: str, at: int, end: str) -> int:
    """Returns the place of the next entry, or of the end sign."""
    at = _skip(text, at)
    return at if text[at : at + 1] == end else _expect(text, at, ",")
