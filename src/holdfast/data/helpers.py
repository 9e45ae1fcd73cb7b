"""Samples made by other processes, one for each worker thread: Python work then happens side by side.

A helper is a program of its own, neither forked nor started by `multiprocessing` (see pool.py). It gets the
samples once, with all large arrays in one nameless file in memory that it maps (no room in /dev/shm is
needed, and nothing is left behind), and draws into another such file of one image, from where the worker
copies: a helper that dies or hangs can spoil no batch. It ends with its input, so with its parent, however
that ends.

A sample is a function of (seed, epoch, index), so it does not matter who makes it: when a helper is lost, the
sample is made by whoever waits for it, and the worker starts another helper.
"""

from __future__ import annotations

import mmap
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np

from holdfast.data.cache import MemoryStore
from holdfast.data.faults import Found
from holdfast.data.image import Image
from holdfast.data.objects import Objects
from holdfast.data.samples import Sample, TrainSamples
from holdfast.data.workers import Worker
from holdfast.errors import DataError

POSSIBLE = hasattr(os, "memfd_create")  # Linux
MOST_STARTS = 8  # helpers that one worker may lose before it goes on without
_SERVE = "import sys; sys.path[:] = sys.argv[1:]; from holdfast.data.helpers import serve; serve()"
_ALIGN = 64


def choose_kind(
    asked: Literal["auto", "threads", "processes"], *, workers: int, store: object
) -> tuple[bool, str]:
    """Returns whether workers have processes, and a sentence on it.

    Processes do more where all images are in memory that they share. Elsewhere each would have to decode the
    partners of a mosaic for itself, which threads share.

    Args:
        workers: how many there are.
        store: what is kept of images.
    """
    shared = isinstance(store, MemoryStore) and store.complete
    if workers == 0:
        return False, "none: the training makes its images itself"
    count = f"{workers} {{}}{'' if workers == 1 else 's'}"
    if asked == "threads":
        return False, count.format("thread") + ", as asked"
    if not POSSIBLE:
        return False, count.format("thread") + ": processes need Linux's files in memory"
    if asked == "processes":
        slow = "" if shared else "; each decodes for itself what cache=ram would let them share"
        return True, f"{workers} process{'' if workers == 1 else 'es'}, as asked{slow}"
    if shared and workers > 1:
        return True, f"{workers} processes, which share the images cached in memory"
    return False, count.format("thread")


class HelperLost(Exception):
    """A helper ended, or could not do its work."""


class _Known(NamedTuple):
    """What changes during a run.

    Attributes:
        left_out: images left out with their first epochs.
        late: images whose reading takes too long.
        quality: how well each class is found.
    """

    left_out: list[tuple[int, int]]
    late: list[Found]
    quality: tuple[float, ...]


class _Order(NamedTuple):
    """What a helper is to do.

    Attributes:
        epoch, sample: as of `TrainSamples.get`.
        shape: (H, W, 3).
        known: what it has to know beforehand, when that has changed.
    """

    epoch: int
    sample: int
    shape: tuple[int, ...]
    known: _Known | None


class _Reply(NamedTuple):
    """What a helper has done: the objects and image of a sample, or why there is none.

    Attributes:
        found: images found to be faulty.
        refused: message and hint of a `DataError`.
        failed: an unexpected error.
    """

    objects: Objects | None
    image: int
    found: list[Found]
    refused: tuple[str, str] | None = None
    failed: str = ""


class Helpers:
    """Makes samples elsewhere for worker threads, and here for all others.

    Args:
        samples: what to make. Its store, if any, must be one that processes share.
    """

    def __init__(self, samples: TrainSamples) -> None:
        self.samples = samples
        self._shared: tuple[int, bytes] | None = None
        self._mine = threading.local()
        self._all: list[_Helper] = []
        self._lock = threading.Lock()

    def make(self, epoch: int, sample: int, out: Image) -> Sample:
        """Makes a sample, as `TrainSamples.get` does.

        Raises:
            HelperLost: it has to be made here.
        """
        if not isinstance(threading.current_thread(), Worker):
            return self.samples.get(epoch, sample, out=out)
        helper = self._helper()
        if helper is None:
            return self.samples.get(epoch, sample, out=out)
        known = _Known(self.samples.left_out, self.samples.faults.late, self.samples.quality)
        try:
            reply = helper.ask(_Order(epoch, sample, out.shape, known if known != helper.told else None))
        except (OSError, EOFError, ValueError, pickle.PickleError):
            self._mine.helper = None
            raise HelperLost(f"its process {helper.end()}") from None
        helper.told = known
        for found in reply.found:
            self.samples.faults.add(found)
        if reply.refused is not None:
            raise DataError(reply.refused[0], hint=reply.refused[1])
        if reply.objects is None:
            raise HelperLost(reply.failed)
        out[...] = helper.canvas(out.shape)
        return Sample(out, reply.objects, reply.image)

    def _helper(self) -> _Helper | None:
        """This thread's helper; None when too many were lost.

        Raises:
            HelperLost: this was one too many.
        """
        helper: _Helper | None = getattr(self._mine, "helper", None)
        if helper is None:
            starts = self._mine.starts = getattr(self._mine, "starts", 0) + 1
            if starts == MOST_STARTS + 1:
                raise HelperLost(f"{MOST_STARTS} of its processes were lost, it goes on without")
            if starts > MOST_STARTS:
                return None
            with self._lock:
                if self._shared is None:
                    self._shared = _share(self.samples)
                helper = _Helper(*self._shared)
                self._all.append(helper)
            self._mine.helper = helper
        return helper

    def close(self) -> None:
        """Ends all helpers; the next sample starts new ones."""
        with self._lock:
            for helper in self._all:
                helper.end()
            self._all = []
            self._mine = threading.local()
            if self._shared is not None:
                os.close(self._shared[0])
                self._shared = None


class _Helper:
    """A process that makes samples.

    Args:
        file: descriptor of the file with the large arrays.
        content: the samples without these arrays.
    """

    def __init__(self, file: int, content: bytes) -> None:
        self.told = _Known([], [], ())
        self._file = os.memfd_create("holdfast-sample", os.MFD_CLOEXEC)
        self._map: mmap.mmap | None = None
        self._canvas = np.zeros((0, 0, 3), np.uint8)
        package = str(Path(__file__).parents[2])
        command = [sys.executable or "python", "-c", _SERVE, package, *(path for path in sys.path if path)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=(file, self._file),
        )
        with suppress(OSError):  # it has ended already, and the first order will tell
            self._send((file, self._file, content))

    def ask(self, order: _Order) -> _Reply:
        """Has a sample made.

        Raises:
            OSError, EOFError, ValueError, PickleError: the helper is lost.
        """
        self._send(order)
        assert self._process.stdout is not None
        reply: _Reply = pickle.load(self._process.stdout)
        return reply

    def canvas(self, shape: Sequence[int]) -> Image:
        """The picture that the helper has drawn."""
        if self._canvas.shape != tuple(shape):
            self._canvas = _mapped(self._file, shape)
        return self._canvas

    def _send(self, message: object) -> None:
        assert self._process.stdin is not None
        pickle.dump(message, self._process.stdin, protocol=pickle.HIGHEST_PROTOCOL)
        self._process.stdin.flush()

    def end(self) -> str:
        """Ends the process and returns how it ended."""
        process = self._process
        if process.poll() is None:
            process.kill()
        code = process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):  # it was broken
                    pipe.close()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        return f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"


def serve() -> None:
    """What a helper does: makes the samples it is asked for until its input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library that prints must not garble replies
    orders = sys.stdin.buffer
    cv2.setNumThreads(0)
    with suppress(EOFError, BrokenPipeError):
        file, canvas, content = pickle.load(orders)
        samples = _unshare(file, content)
        epoch, out = -1, np.zeros((0, 0, 3), np.uint8)
        while True:
            order: _Order = pickle.load(orders)
            if order.known is not None:
                for number, start in order.known.left_out:
                    samples.leave_out([number], start=start)
                for found in order.known.late:
                    samples.faults.add(found)
                samples.faults.take()
                samples.weigh(order.known.quality)
            if order.epoch != epoch:
                epoch = order.epoch
                samples.faults.retry()
            if out.shape != order.shape:
                os.truncate(canvas, max(os.fstat(canvas).st_size, int(np.prod(order.shape))))
                out = _mapped(canvas, order.shape)
            pickle.dump(_answer(samples, order, out), replies, protocol=pickle.HIGHEST_PROTOCOL)
            replies.flush()
    os._exit(0)  # a read that hangs must not hold it


def _answer(samples: TrainSamples, order: _Order, out: Image) -> _Reply:
    try:
        made = samples.get(order.epoch, order.sample, out=out)
        return _Reply(made.objects, made.index, samples.faults.take())
    except DataError as error:
        return _Reply(None, order.sample, samples.faults.take(), refused=(error.message, error.hint))
    except Exception as error:
        return _Reply(None, order.sample, samples.faults.take(), failed=f"{type(error).__name__}: {error}")


def _mapped(file: int, shape: Sequence[int]) -> Image:
    count = int(np.prod(shape))
    return np.frombuffer(mmap.mmap(file, count), np.uint8).reshape(shape)


def _share(samples: TrainSamples) -> tuple[int, bytes]:
    """Puts the large arrays of samples into a file in memory: its descriptor, and the rest."""
    arrays: list[pickle.PickleBuffer] = []
    content = pickle.dumps(samples, protocol=5, buffer_callback=arrays.append)
    file = os.memfd_create("holdfast-index", os.MFD_CLOEXEC)
    places: list[tuple[int, int]] = []
    at = 0
    with os.fdopen(os.dup(file), "wb") as stream:
        for array in arrays:
            raw = array.raw()
            stream.seek(at)
            stream.write(raw)
            places.append((at, raw.nbytes))
            at += -(-raw.nbytes // _ALIGN) * _ALIGN
    os.truncate(file, max(at, 1))
    return file, pickle.dumps((places, content))


def _unshare(file: int, content: bytes) -> TrainSamples:
    places, rest = pickle.loads(content)
    memory = memoryview(mmap.mmap(file, 0, prot=mmap.PROT_READ))
    samples: TrainSamples = pickle.loads(rest, buffers=[memory[at : at + size] for at, size in places])
    return samples
