"""Run folders: numbered names, atomic files, one CSV row per epoch, lines of JSON, and files whose failure
ends nothing. Layer 3: used by train, val, predict and report.
"""

from __future__ import annotations

import csv
import io
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from typing_extensions import Self

from holdfast.errors import SettingsError
from holdfast.locks import Held, sole


def new_run_folder(project: str | Path, name: str, *, exist_ok: bool) -> Path:
    """Creates and returns `project/name`, or `project/name2`, `name3`, ... when it exists already.

    Args:
        exist_ok: use `project/name` itself even when it exists.

    Raises:
        SettingsError: the folder cannot be created.
    """
    base = Path(project)
    number = 1
    while True:
        folder = base / (name if number == 1 else f"{name}{number}")
        try:
            folder.mkdir(parents=True, exist_ok=exist_ok)
            return folder
        except FileExistsError:
            if exist_ok:  # a file of that name, not a folder
                raise SettingsError(
                    f"{folder} is a file, so no run folder can be made there.", hint="Choose another --name."
                ) from None
            number += 1
        except OSError as error:
            raise SettingsError(
                f"The run folder {folder} cannot be created: {error.strerror}.",
                hint="Choose a folder you may write to with --project.",
            ) from error


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` at the end, on disk and whole, or not at all.

    A reader, a crash or a power cut sees the old content or the new, never a part. When writing fails, what
    was written is removed.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes names that were changed in a folder last through a power cut, where the system can."""
    if os.name != "posix":
        return
    with suppress(OSError):  # some network file systems refuse
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def write_atomic(path: Path, data: bytes) -> None:
    """Writes a file as `replacing` does."""
    with replacing(path) as file:
        file.write(data)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a mapping as indented JSON, atomically."""
    write_atomic(path, as_json(content))


def as_json(content: Mapping[str, Any]) -> bytes:
    """A mapping as indented JSON."""
    return (json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n").encode()


class SideFiles:
    """What a run writes beside its checkpoints: a disk that refuses it is said once, and ends nothing.

    Texts wait in memory and are tried again with the next one; pictures are left out.

    Args:
        say: told what cannot be written, once for each cause, and that it could be written again.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._said: set[str] = set()
        self._waiting: dict[Path, bytes] = {}

    def write(self, path: Path, data: bytes) -> None:
        """Writes a file as `replacing` does, now or when the disk takes it."""
        self._waiting[path] = data
        self.retry()

    def write_json(self, path: Path, content: Mapping[str, Any]) -> None:
        """Writes a mapping as indented JSON, now or when the disk takes it."""
        self.write(path, as_json(content))

    def retry(self) -> None:
        """Tries again what the disk has refused."""
        for path, data in list(self._waiting.items()):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)  # somebody may have removed it
                write_atomic(path, data)
            except OSError as error:
                self._note(path, error, "it is tried again")
                continue
            del self._waiting[path]
            if self._said and not self._waiting:
                self._said.clear()
                self._say(f"{path} could be written again")

    @contextmanager
    def spared(self, path: Path) -> Iterator[None]:
        """Work on a file that may be missing in the end: errors of the disk are said and passed over."""
        try:
            yield
        except OSError as error:
            self._note(path, error, "it is left out")

    def _note(self, path: Path, error: OSError, outcome: str) -> None:
        reason = error.strerror or str(error)
        if reason not in self._said:
            self._said.add(reason)
            self._say(f"{path} cannot be written ({reason}); the run goes on, and {outcome}")


class RunLock:
    """Keeps a second process from writing into the same run folder, for as long as it is open; a killed one
    holds nothing up.
    """

    def __init__(self) -> None:
        self._kept = ExitStack()
        self._folder: Path | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._kept.close()

    def hold(self, folder: Path) -> None:
        """Takes a folder, once.

        Raises:
            SettingsError: another process trains there.
        """
        if self._folder is not None and self._folder.resolve() == folder.resolve():
            return
        try:
            self._kept.enter_context(sole(folder / ".lock"))
        except Held as fault:
            raise SettingsError(
                f"Another process trains in {folder} ({fault}).",
                hint="Wait for it or stop it, or give another --name. "
                f"'holdfast watch {folder}' shows how far it is.",
            ) from None
        self._folder = folder


class CsvLog:
    """results.csv: one row per epoch. The whole small file is replaced each time, so it is never cut short,
    and rows that a full disk refused are there with the next one.

    Args:
        path: the file.
        columns: header, in order.
        keep_rows: rows of an earlier part of the same run that stay.
        known: those rows, where the checkpoint has them; None takes them from the file.

    Attributes:
        rows: the cells of all rows.
    """

    def __init__(
        self,
        path: Path,
        columns: tuple[str, ...],
        *,
        keep_rows: int = 0,
        known: Sequence[Sequence[str]] | None = None,
    ) -> None:
        self.path = path
        self.columns = columns
        self.rows: list[list[str]] = [list(row) for row in known or ()][:keep_rows]
        if known is None and keep_rows and path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                self.rows = list(csv.reader(file))[1 : keep_rows + 1]

    def append(self, row: Mapping[str, float | int | None]) -> None:
        """Adds one row; a missing or None value leaves its cell empty.

        Raises:
            OSError: the file cannot be written now; the row comes with the next one.
        """
        self.rows.append(["" if row.get(name) is None else f"{row[name]:.6g}" for name in self.columns])
        self.write()

    def write(self) -> None:
        """Writes the rows there are.

        Raises:
            OSError: the file cannot be written now.
        """
        text = io.StringIO(newline="")
        csv.writer(text).writerows([self.columns, *self.rows])
        write_atomic(self.path, text.getvalue().encode())


class JsonLog:
    """A file of one JSON object per line, added to as a run goes on; several threads may add. A line that a
    full disk refuses, or takes in part, comes with the next one.

    Args:
        path: the file.
        rows: what it holds to begin with, instead of what stands there; written with the first that is added.
    """

    def __init__(self, path: Path, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        self.path = path
        self._waiting = "".join(map(_json_line, rows))
        self._begun = False
        self._lock = threading.Lock()

    def append(self, *rows: Mapping[str, Any]) -> None:
        """Adds rows.

        Raises:
            OSError: the file cannot be written now; they come with the next ones.
        """
        with self._lock:
            self._waiting += "".join(map(_json_line, rows))
            if self._begun:
                self._add(self._waiting.encode())
            else:
                write_atomic(self.path, self._waiting.encode())
            self._begun, self._waiting = True, ""

    def _add(self, data: bytes) -> None:
        with self.path.open("ab", buffering=0) as file:
            before = file.seek(0, os.SEEK_END)
            left = memoryview(data)
            try:
                while left:
                    left = left[file.write(left) :]
            except OSError:
                with suppress(OSError):
                    file.truncate(before)
                raise


def _json_line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"
