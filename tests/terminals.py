"""Real pseudo terminals, and what a person would see on them: for tests of what is drawn."""

from __future__ import annotations

import fcntl
import os
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TextIO

import pytest

_ROWS = 50


@contextmanager
def terminal(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[TextIO, Callable[[], list[str]]]]:
    """A terminal that is standard output of this process; gives it, and a function for what is to be seen.

    Args:
        columns: its width.
        monkeypatch: puts standard output back.
    """
    reader, writer = os.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, columns, 0, 0))
    out = os.fdopen(writer, "w", encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", str(columns))  # rich asks the standard streams, which pytest has taken
    monkeypatch.setenv("LINES", str(_ROWS))
    written = b""

    def seen() -> list[str]:
        nonlocal written
        while select.select([reader], [], [], 0.05)[0]:
            written += os.read(reader, 65536)
        return visible(written, columns)

    try:
        yield out, seen
    finally:
        out.close()
        os.close(reader)


def run_in_terminal(
    words: Sequence[str],
    columns: int,
    *,
    environment: Mapping[str, str],
    until: bytes = b"",
    send: bytes = b"",
) -> tuple[int, bytes]:
    """Runs a program on a terminal of its own; returns its exit status as of a shell, and what it wrote.

    Args:
        words: the command.
        columns: width of the terminal.
        environment: variables beside those of this process.
        until: once this was written, `send` is typed.
        send: keys, such as `b"\\x03"` for Ctrl-C.
    """
    reader, writer = os.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, columns, 0, 0))
    # The size is that of the terminal, not what runs these tests has found for its own.
    own = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    # Keys such as Ctrl-C reach only the session of a terminal. When its leader ends, the system throws away
    # what has not been read yet, so there is one only where keys are typed.
    process = subprocess.Popen(
        words,
        stdin=writer,
        stdout=writer,
        stderr=writer,
        env={**own, **environment},
        start_new_session=bool(send),
        preexec_fn=(lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)) if send else None,
    )
    os.close(writer)
    written, deadline = b"", time.monotonic() + 300
    while time.monotonic() < deadline:
        try:
            got = os.read(reader, 65536) if select.select([reader], [], [], 0.1)[0] else None
        except OSError:  # the last process has left the terminal
            break
        written += got or b""
        if send and until in written:
            os.write(reader, send)
            send = b""
    os.close(reader)
    return process.wait(30), written


def visible(written: bytes, columns: int) -> list[str]:
    """The lines that a terminal shows after these bytes: as much of one as is written here."""
    lines, row, column = [[" "] * columns], 0, 0
    for token in re.findall(r"\x1b\[\??[0-9;]*[A-Za-z]|[\r\n]|[^\x1b]", written.decode()):
        if token == "\r":
            column = 0
        elif token == "\n":
            row += 1
        elif token == "\x1b[2K":
            lines[row] = [" "] * columns
        elif token.startswith("\x1b"):
            if token.endswith("A"):
                row -= int(token[2:-1] or 1)
            else:
                assert token.endswith("m"), repr(token)  # colours and nothing else
        else:
            if column == columns:
                row, column = row + 1, 0
            lines += [[" "] * columns for _ in range(row + 1 - len(lines))]
            lines[row][column] = token
            column += 1
        lines += [[" "] * columns for _ in range(row + 1 - len(lines))]
    return ["".join(line).rstrip() for line in lines]
