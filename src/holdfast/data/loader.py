"""Batches made ahead of time by workers, in an order that only (seed, epoch) decides.

Decoding, warping and colour run in OpenCV, which lets go of the interpreter lock, so threads do most of it
side by side: samples draw straight into the batch, and an error arrives as it was raised. Where images are in
memory that processes share, each thread has a process make its samples (`helpers.py`), a tenth faster. A
thread that ends is replaced (`workers.py`). Work is handed out sample by sample: memory holds the batches
being made and no more, and the first batch is ready soon. Whoever waits for a batch makes samples of it too,
so a run that its data holds up has one worker more than it was given.

Loaders with workers switch OpenCV's own threads off (a setting of the whole process): they would fight with
the workers and with the trainer for the same cores.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import NamedTuple

import cv2
import torch
from torch import Tensor

from holdfast.data.batch import Batch, Buffers, collate
from holdfast.data.eval_samples import EvalSamples
from holdfast.data.files import TimedFiles
from holdfast.data.helpers import Helpers
from holdfast.data.image import Image
from holdfast.data.rasterise import numbered
from holdfast.data.samples import Sample, TrainSamples
from holdfast.data.upload import uploaded
from holdfast.data.workers import WorkerLost, Workers
from holdfast.errors import HoldfastError
from holdfast.geometry.targets import BOXES, Needs

_LOOK = 0.2  # seconds between looks at a worker that is waited for
AHEAD = 2  # batches being made while one is used: more would hold memory and gain nothing

Make = Callable[[int, Image], Sample]  # (position, where to draw) -> sample


class _Part(NamedTuple):
    """A sample of a batch: how to make it, and the worker's promise to do so if there are workers."""

    make: Callable[[], Sample]
    promise: Future[Sample] | None

    def result(self, failed: Callable[[BaseException], None], look: Callable[[], None]) -> Sample:
        """Returns the sample, made here unless a worker has begun it, or when that went wrong.

        Args:
            failed: told what went wrong.
            look: called now and then while a worker is waited for.
        """
        if self.promise is None or self.promise.cancel():
            return self.make()
        while not self.promise.done():
            wait([self.promise], timeout=_LOOK)
            look()
        error = self.promise.exception()
        if error is None:
            return self.promise.result()
        if isinstance(error, HoldfastError):
            raise error
        if not isinstance(error, WorkerLost):
            failed(error)
        return self.make()


class _Maker:
    """Makes batches here (no workers) or in threads, which live until `close`.

    What a worker did not bring to an end is made again by whoever waits for it; what fails then, too, is
    raised.
    """

    def __init__(
        self,
        workers: int,
        *,
        ahead: int,
        pin: bool,
        files: TimedFiles,
        say: Callable[[str], None],
        news: Callable[[], list[str]],
        needs: Needs,
    ) -> None:
        if workers < 0:
            raise ValueError(f"workers must be 0 or more, got {workers}")
        if ahead < 1:
            raise ValueError(f"ahead must be 1 or more, got {ahead}")
        self.workers = workers
        self.ahead = ahead if workers else 1
        self.buffers = Buffers(pin=pin, spare=ahead + 2)
        self.files = files
        self.say = say
        self.news = news
        self.needs = needs
        self._said: set[str] = set()
        self._workers: Workers[Sample] = Workers(workers)

    def batches(
        self,
        plan: Sequence[tuple[tuple[int, int], Sequence[int]]],
        make: Make,
        *,
        path: Callable[[int], str],
    ) -> Iterator[Batch]:
        """Yields one batch per entry of `plan`, in its order; an entry is the batch's (H, W) and lists the
        positions of its samples, of which there may be none.

        At most `ahead` batches are being made beyond the one handed out. Leaving the loop early takes back
        what has not been started.
        """
        pending: deque[tuple[Tensor, list[_Part]]] = deque()
        waiting = iter(plan)
        if self.workers:
            cv2.setNumThreads(0)

        def start() -> None:
            self._tend()
            for shape, positions in itertools.islice(waiting, 1):
                buffer = self.buffers.take(len(positions), *shape)
                rows = buffer.numpy()
                parts = [
                    self._start(partial(_finished, make, at, rows[i], self.needs))
                    for i, at in enumerate(positions)
                ]
                pending.append((buffer, parts))

        try:
            for _ in range(self.ahead):
                start()
            while pending:
                buffer, parts = pending[0]
                # From the last one back: a thread that waits makes what no worker has begun.
                samples = [part.result(self._failed, self._tend) for part in reversed(parts)][::-1]
                pending.popleft()
                start()  # before the batch is used, which may take long
                for line in self.news():
                    self.say(line)
                yield collate(buffer, samples, [path(sample.index) for sample in samples])
        finally:
            for _, parts in pending:
                for part in parts:
                    if part.promise is not None:
                        part.promise.cancel()

    def _start(self, make: Callable[[], Sample]) -> _Part:
        return _Part(make, self._workers.submit(make) if self.workers else None)

    def _tend(self) -> None:
        """Has workers replaced that have ended or hang."""
        if self.files.limit:
            for path, thread in self._workers.give_up(self.files.limit):
                self.files.give_up(path, thread)
        for error in self._workers.tend():
            self._once(f"a loader worker ended ({_named(error)}); another one takes its place")

    def _failed(self, error: BaseException) -> None:
        self._once(f"a loader worker did not bring a sample to its end ({_named(error)}); it is made again")

    def _once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self.say(text)

    def clear(self) -> None:
        self._workers.clear()

    def close(self) -> None:
        self._workers.close()


class TrainLoader:
    """Shuffled batches of augmented samples, or one part of each batch.

    Args:
        samples: what to draw from.
        batch: images per batch; the last batch of an epoch may be smaller.
        workers: threads; 0 makes samples in the calling thread.
        ahead: batches being made while one is used; without workers each is made when it is asked for.
        pin: page-locked memory, for copies to a GPU that overlap with its work.
        say: told of images that could not be read, each once, and of workers that were replaced.
        processes: worker threads have samples made by processes of their own (`helpers.py`); the store of
            `samples`, if any, must be one that processes share.
        part, parts: which of how many parts of each batch to make. The parts of a batch of n images are as
            equal as can be and make up the batch in their order; some are empty where n < parts.
        device: a CUDA device that images are copied to, one batch ahead; None leaves them on the host.
        needs: what the loss reads of targets: masks are made where it does.
    """

    def __init__(
        self,
        samples: TrainSamples,
        *,
        batch: int,
        workers: int,
        ahead: int = AHEAD,
        pin: bool = False,
        say: Callable[[str], None] = lambda text: None,
        processes: bool = False,
        part: int = 0,
        parts: int = 1,
        device: torch.device | None = None,
        needs: Needs = BOXES,
    ) -> None:
        if batch < 1:
            raise ValueError(f"batch must be 1 or more, got {batch}")
        if not 0 <= part < parts:
            raise ValueError(f"part must be from 0 to below {parts}, got {part}")
        self.samples = samples
        self.batch = batch
        self.part = part
        self.parts = parts
        self.device = device
        self._helpers = Helpers(samples) if processes else None
        self._maker = _Maker(
            workers,
            ahead=ahead,
            pin=pin,
            files=samples.files,
            say=say,
            news=self._news,
            needs=needs,
        )

    def __len__(self) -> int:
        return -(-len(self.samples) // self.batch)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yields the batches of an epoch, or this loader's part of each.

        Args:
            epoch: epoch from 0.
            start: batches to leave out at the front (resume in the middle); the others do not change.

        Raises:
            DataError: too many images cannot be read any more.
        """
        self.samples.faults.retry()
        order = self.samples.order(epoch, batch=self.batch).tolist()
        batches = [order[at : at + self.batch] for at in range(start * self.batch, len(order), self.batch)]
        plan = [
            (self.samples.shape(epoch, number, whole), self._own(whole))
            for number, whole in enumerate(batches, start)
        ]

        def make(sample: int, out: Image) -> Sample:
            try:
                if self._helpers is not None:
                    return self._helpers.make(epoch, sample, out)
                return self.samples.get(epoch, sample, out=out)
            except Exception as error:
                _name_file(error, self.samples.index.path(sample % len(self.samples)))
                raise

        made = self._maker.batches(plan, make, path=self.samples.index.path)
        return made if self.device is None else uploaded(made, self.device)

    def images(self, number: int) -> int:
        """Returns how many images batch `number` of an epoch has, all parts together."""
        return min(self.batch, len(self.samples) - number * self.batch)

    def _news(self) -> list[str]:
        return [f"{fault}; other images take its place" for fault in self.samples.faults.fresh()]

    def _own(self, whole: list[int]) -> list[int]:
        count = len(whole)
        return whole[count * self.part // self.parts : count * (self.part + 1) // self.parts]

    def close(self) -> None:
        """Ends the workers."""
        if self._helpers is not None:
            self._maker.clear()
            self._helpers.close()
        self._maker.close()
        self.samples.files.close()

    def __enter__(self) -> TrainLoader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class EvalLoader:
    """Batches of letterboxed samples in evaluation order; iterate as often as needed.

    An image that cannot be read is plain gray and named in `Batch.unread`; each time it is tried again.

    Args:
        samples: what to draw from; its `batch` must be the one given here, because it decides the shapes.
        batch: images per batch.
        workers: threads; 0 makes samples in the calling thread.
        ahead: batches being made while one is used; without workers each is made when it is asked for.
        pin: page-locked memory, for copies to a GPU that overlap with its work.
        say: told of workers that were replaced.
        part, parts: make only the batches `part`, `part + parts`, ... of all.
        needs: as of `TrainLoader`.
    """

    def __init__(
        self,
        samples: EvalSamples,
        *,
        batch: int,
        workers: int,
        ahead: int = AHEAD,
        pin: bool = False,
        say: Callable[[str], None] = lambda text: None,
        part: int = 0,
        parts: int = 1,
        needs: Needs = BOXES,
    ) -> None:
        if batch != samples.batch:
            raise ValueError(f"batch is {batch}, but the samples were shaped for batches of {samples.batch}")
        if not 0 <= part < parts:
            raise ValueError(f"part must be from 0 to below {parts}, got {part}")
        self.samples = samples
        self.batch = batch
        self.part = part
        self.parts = parts
        self._maker = _Maker(
            workers,
            ahead=ahead,
            pin=pin,
            files=samples.files,
            say=say,
            news=list,
            needs=needs,
        )

    def __len__(self) -> int:
        return len(range(self.part * self.batch, len(self.samples), self.parts * self.batch))

    def __iter__(self) -> Iterator[Batch]:
        self.samples.read.faults.retry()
        count = len(self.samples)
        starts = range(self.part * self.batch, count, self.parts * self.batch)
        plan = [(self.samples.shape(at), range(at, min(at + self.batch, count))) for at in starts]

        def make(position: int, out: Image) -> Sample:
            try:
                return self.samples.get(position, out=out)
            except Exception as error:
                _name_file(error, self.samples.index.path(int(self.samples.order[position])))
                raise

        return self._maker.batches(plan, make, path=self.samples.index.path)

    def close(self) -> None:
        """Ends the worker threads."""
        self._maker.close()
        self.samples.files.close()

    def __enter__(self) -> EvalLoader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _finished(make: Make, at: int, out: Image, needs: Needs) -> Sample:
    """Makes a sample, and its masks where they are asked for."""
    sample = make(at, out)
    if not needs.mask_stride:
        return sample
    masks = numbered(sample.objects, *out.shape[:2], stride=needs.mask_stride, hidden=needs.hidden)
    return replace(sample, masks=masks)


def _name_file(error: Exception, path: str) -> None:
    """Adds the sample's file to an unexpected error, where Python can carry a note (3.11)."""
    if hasattr(error, "add_note"):
        error.add_note(f"while making the sample of {path}")


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")
