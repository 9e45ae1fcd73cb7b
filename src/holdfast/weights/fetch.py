"""One file over HTTP: resumed where it stopped, checked, and either whole under its name or not there.

The bytes collect in `NAME.part`, and `NAME.part.json` says which file they belong to (address, validator,
length). What stays after a failure is what the next call continues from. It asks with `If-Range`, so a server
whose file has changed sends the new one whole; where a server gives no validator, bytes are continued only
when a SHA-256 is known that would unmask a mixture. Two downloads of one file take turns (claim.py).
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import os
import re
import shutil
import ssl
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from holdfast.errors import WeightsError
from holdfast.weights.claim import Busy, claim, identity

CHUNK = 1 << 18  # bytes asked for at once; a read returns what has arrived
LONGEST_PAUSE = 30.0  # seconds between two attempts
RETRIED = (408, 425, 429, 500, 502, 503, 504)  # answers that may be better a moment later

Report = Callable[[int, int | None], None]
"""Is told the bytes so far, and the bytes in all (None while unknown)."""


@dataclass(frozen=True)
class Fetched:
    """A downloaded file.

    Attributes:
        path: the file.
        size: bytes.
        sha256: SHA-256 of its content, in hexadecimal.
    """

    path: Path
    size: int
    sha256: str


class _Failure(Exception):
    """An attempt that gave no whole file. `again`: another one may."""

    def __init__(self, reason: str, *, again: bool) -> None:
        super().__init__(reason)
        self.again = again


class _Stale(_Failure):
    """The bytes of an earlier attempt were of no use and are gone; starting afresh costs no attempt."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, again=True)


def download(
    url: str,
    folder: Path,
    name: str,
    *,
    timeout: float,
    retries: int,
    sha256: str | None = None,
    size: int | None = None,
    pause: float = 1.0,
    report: Report | None = None,
    note: Callable[[str], None] | None = None,
) -> Fetched:
    """Downloads a file into a folder, replacing one of the same name.

    Args:
        url: http or https address.
        folder: where the file goes; created when missing.
        name: its name there, without any folder.
        timeout: seconds without an answer or a byte after which an attempt ends.
        retries: attempts after the first; each continues where the last one stopped.
        sha256: what the content must hash to, when that is known.
        size: bytes it must have, when that is known.
        pause: seconds before the first retry, doubled for each further one up to half a minute.
        report: called with the progress.
        note: called with a sentence for every failed attempt that is followed by another.

    Raises:
        WeightsError: anything that keeps the file from being whole and under its name; names the address, and
            the folder where the file can be put by hand.
    """
    if name in ("", ".", "..") or re.search(r"[/\\:\0]", name):
        raise WeightsError(f"'{name}' is no file name.", hint="Folders are given apart from the name.")
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
        raise WeightsError(f"'{url}' is no http or https address, so nothing can be downloaded from it.")
    target = folder / name
    patience = (retries + 1) * (timeout + min(pause * 2**retries, LONGEST_PAUSE))
    before = identity(target)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with claim(target, patience) as (notes, waited):
            if waited and identity(target) not in (None, before):  # the other process has finished it
                found = file_sha256(target)
                if sha256 in (None, found):
                    return Fetched(target, target.stat().st_size, found)
            part = _Part(target, notes, url, resumable=sha256 is not None)
            job = _Job(url, part, timeout, size, sha256, report or _silent, note or _silent)
            digest = _attempts(job, retries=retries, pause=pause)
            count = part.path.stat().st_size
            part.path.replace(target)
            _sync_folder(folder)
            return Fetched(target, count, digest)
    except Busy as fault:
        raise WeightsError(
            f"{url} was not downloaded: {fault}.",
            hint=f"End that process, or name another folder than {folder} with --folder.",
        ) from fault
    except _Failure as fault:
        raise WeightsError(
            f"{url} could not be downloaded: {fault}.",
            hint=f"Run it again to continue, or put the file into {folder} by hand, under the name {name}."
            if fault.again
            else f"If you have the file from elsewhere, put it into {folder} under the name {name}.",
        ) from fault
    except OSError as fault:
        raise WeightsError(
            f"{url} cannot be stored as {target}: {fault.strerror or fault}.",
            hint="Free some space, or name a folder you may write to with --folder.",
        ) from fault


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True)
class _State:
    """Which file the bytes in the part belong to."""

    url: str = ""
    validator: str = ""
    total: int | None = None


class _Part:
    """The bytes received so far, and the notes about them.

    Args:
        target: the file to be.
        notes: the open and locked `.part.json`.
        url: address the bytes must have come from.
        resumable: True when a mixture of two files would be noticed without a validator.
    """

    def __init__(self, target: Path, notes: BinaryIO, url: str, *, resumable: bool) -> None:
        self.path = target.with_name(f"{target.name}.part")
        self._notes = notes
        self.state = self._read()
        usable = self.state.url == url and (resumable or self.state.validator)
        if not usable or self.path.is_symlink() or not self.path.is_file():
            self.reset(_State())

    @property
    def size(self) -> int:
        """Bytes received so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def reset(self, state: _State) -> None:
        """Drops the bytes, and only then writes down what the next ones will belong to."""
        self.path.unlink(missing_ok=True)
        self._notes.seek(0)
        self._notes.truncate()
        self._notes.write(json.dumps(asdict(state)).encode())
        self._notes.flush()
        self.state = state

    def _read(self) -> _State:
        self._notes.seek(0)
        try:
            values = json.loads(self._notes.read() or b"{}")
            return _State(str(values["url"]), str(values["validator"]), values["total"])
        except (ValueError, KeyError, TypeError):  # cut short by a kill: the bytes cannot be told
            return _State()


@dataclass(frozen=True)
class _Job:
    """What one attempt needs to know."""

    url: str
    part: _Part
    timeout: float
    size: int | None
    sha256: str | None
    report: Report
    note: Callable[[str], None]


def _attempts(job: _Job, *, retries: int, pause: float) -> str:
    """Tries until the part is whole and right, and returns its SHA-256."""
    failed = 0
    while True:
        try:
            return _attempt(job)
        except _Stale as fault:  # noqa: PERF203 (never twice in a row: after it the part is empty)
            job.note(f"{fault}; starting afresh")
        except _Failure as fault:
            if not fault.again:
                raise
            if failed == retries:
                times = f", and {failed + 1} attempts were made" if failed else ""
                raise _Failure(f"{fault}{times}", again=True) from fault
            wait = min(pause * 2**failed, LONGEST_PAUSE)
            failed += 1
            job.note(f"{fault}; attempt {failed + 1} of {retries + 1} in {wait:g} s")
            time.sleep(wait)


def _attempt(job: _Job) -> str:
    part = job.part
    start = part.size
    if not start or start != part.state.total:  # equal: killed between the last byte and the renaming
        _receive(job, start)
    digest = file_sha256(part.path)
    if job.sha256 not in (None, digest):
        count = part.size
        part.reset(_State())
        reason = f"its {count} bytes have the SHA-256 {digest} instead of {job.sha256}, so they were deleted"
        if start:  # perhaps a mixture of two files
            raise _Stale(reason)
        raise _Failure(reason, again=False)
    return digest


def _receive(job: _Job, start: int) -> None:
    """Adds the bytes from `start` on to the part."""
    part = job.part
    headers = {"User-Agent": "holdfast", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if part.state.validator:
            headers["If-Range"] = part.state.validator
    with _open(urllib.request.Request(job.url, headers=headers), job, start) as response:
        if response.headers.get_content_type() == "text/html":
            raise _Failure("the server sent a web page instead of the file", again=True)
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise _Failure("the server sent it compressed, which was not asked for", again=False)
        if start and response.status == 206:
            total = _continued(response, part, start, job.size)
        elif response.status == 200:
            if start:
                job.note("the server sends the file from its beginning, so what was here of it is dropped")
            length = response.headers.get("Content-Length", "")
            total, start = int(length) if length.isdecimal() else job.size, 0
            part.reset(_State(job.url, _validator(response), total))
        else:
            raise _Failure(f"the server answered {response.status} {response.reason}", again=False)
        if job.size not in (None, total):
            raise _Failure(f"the server's file has {total} bytes instead of {job.size}", again=False)
        _check_room(part.path.parent, (total or 0) - start)
        done = start
        job.report(done, total)
        with part.path.open("ab") as file:
            while total is None or done < total:
                count = CHUNK if total is None else min(CHUNK, total - done)
                block = _read(response, count, job.timeout, done)
                if not block:
                    break
                file.write(block)
                file.flush()  # a killed process leaves what it had
                done += len(block)
                job.report(done, total)
            os.fsync(file.fileno())
    if total is not None and done < total:
        raise _Failure(f"the connection ended after {done} of {total} bytes", again=True)


def _continued(response: http.client.HTTPResponse, part: _Part, start: int, size: int | None) -> int | None:
    """Checks that a 206 answer continues the bytes that are here, and returns the whole file's length."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    total = part.state.total if part.state.total is not None else size
    fits = match is not None and int(match[1]) == start
    if match is not None and match[2] != "*":
        fits = fits and total in (None, int(match[2]))
        total = int(match[2])
    if not fits or _validator(response) not in ("", part.state.validator):
        part.reset(_State())
        raise _Stale("the file on the server has changed")
    return total


def _validator(response: http.client.HTTPResponse) -> str:
    """What names this version of the file in `If-Range`: a strong ETag, else the date."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified", "")


def _open(request: urllib.request.Request, job: _Job, start: int) -> http.client.HTTPResponse:
    opener = urllib.request.OpenerDirector()  # no handlers for files, FTP or data
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirect(),
    ):
        opener.add_handler(handler)
    try:
        response = opener.open(request, timeout=job.timeout)
    except HTTPError as fault:
        fault.close()
        if fault.code == 416 and start:
            job.part.reset(_State())
            raise _Stale("the server has no bytes after those that are here") from None
        reason = f"the server answered {fault.code} {fault.reason}"
        raise _Failure(reason, again=fault.code in RETRIED) from None
    except (OSError, http.client.HTTPException, ValueError) as fault:
        raise _broken(fault, job.timeout, "no connection") from fault
    assert isinstance(response, http.client.HTTPResponse)
    return response


def _read(response: http.client.HTTPResponse, count: int, timeout: float, done: int) -> bytes:
    try:
        return response.read1(count)
    except (OSError, http.client.HTTPException, ValueError) as fault:
        raise _broken(fault, timeout, f"the connection broke after {done} bytes") from fault


def _broken(fault: Exception, timeout: float, what: str) -> _Failure:
    """What a fault of the network means to the user."""
    cause = fault.reason if isinstance(fault, URLError) and isinstance(fault.reason, Exception) else fault
    again = not isinstance(cause, ssl.SSLCertVerificationError | http.client.InvalidURL)
    if isinstance(cause, TimeoutError):
        return _Failure(f"{what}, because nothing came for {timeout:g} s", again=True)
    reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
    return _Failure(f"{what} ({reason or type(cause).__name__})", again=again)


class _Redirect(urllib.request.HTTPRedirectHandler):
    """Follows redirects within a scheme, and from http to https; never back, nor to anything else."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        """Refuses other schemes; the rest is the library's."""
        old, new = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if new != old and (old, new) != ("http", "https"):
            fp.close()
            reason = f"the server redirects from {old} to '{newurl}', which is not followed"
            raise _Failure(reason, again=False)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_room(folder: Path, wanted: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < wanted:
        raise OSError(errno.ENOSPC, f"{wanted} more bytes are needed and the disk has {free} free")


def _sync_folder(folder: Path) -> None:
    """Makes a renaming last through a power cut, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _silent(*_: object) -> None:
    pass
