"""Starts the processes of a run, watches them, and starts them again when one is lost.

Unusual: nothing here knows what the processes do. They are a command, environments, the codes that end it for
good, and a mark that moves when they get on. Each child's standard input is a pipe whose other end only
this process holds: however this process ends, the pipe ends with it, and `end_with_parent` in the child
ends the child. Children have process groups of their own, so that Ctrl-C reaches them once, from here.

The store where ranks meet lives in this process, on a port that the system chose and that is held from then
on: it cannot be taken by another program in between.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType
from typing import IO

from holdfast.errors import RankError

CRASHED = 70  # exit code of a child whose program failed in a way nobody expected (EX_SOFTWARE)

_TAIL = 20  # lines of a lost child that are shown
_POLL = 0.05
_SETTLE = 3.0  # seconds for the others to notice a loss, and for the one at fault to be seen
_LONGEST_WAIT = 30.0


@dataclass(frozen=True)
class Child:
    """What to start.

    Attributes:
        command: program and words.
        environment: what it gets beside this process's own.
    """

    command: Sequence[str]
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Loss:
    """The child whose end ended an attempt.

    Attributes:
        rank: its number.
        code: its exit code; negative for a signal.
        tail: what it said last on its standard error; that of rank 0 was shown at once.
        alone: whether there was no other child.
    """

    rank: int
    code: int
    tail: tuple[str, ...]
    alone: bool = False

    def __str__(self) -> str:
        who = "the training" if self.alone else f"rank {self.rank}"
        if self.code >= 0:
            return f"{who} ended with code {self.code}"
        try:
            name = signal.Signals(-self.code).name
        except ValueError:
            name = f"signal {-self.code}"
        return f"{who} was ended by {name}"

    @property
    def title(self) -> str:
        """The same as the beginning of a sentence."""
        text = str(self)
        return text[0].upper() + text[1:]


class Final(Exception):
    """A child ended with a code that no new start would mend."""

    def __init__(self, loss: Loss) -> None:
        super().__init__(str(loss))
        self.loss = loss


class Store:
    """Where the ranks of one attempt meet, held by this process.

    Args:
        world: number of ranks.
    """

    def __init__(self, world: int) -> None:
        import torch.distributed as dist

        self.store = dist.TCPStore(  # type: ignore[attr-defined]
            "127.0.0.1", 0, is_master=True, wait_for_workers=False
        )
        self.world = world

    def environment(self, rank: int, *, threads: int) -> dict[str, str]:
        """Returns what torchrun would set for a rank.

        Args:
            threads: of each rank's own computations, unless the user has set them.
        """
        values = {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(self.world),
            "LOCAL_WORLD_SIZE": str(self.world),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(self.store.port),
            "TORCHELASTIC_USE_AGENT_STORE": "True",  # the store is there; rank 0 must not make one
        }
        choices = {"OMP_NUM_THREADS": str(threads)}
        if sys.platform == "linux":
            choices["GLOO_SOCKET_IFNAME"] = "lo"  # or a host name that cannot be resolved would be in the way
        return values | {name: value for name, value in choices.items() if name not in os.environ}


def supervise(
    start: Callable[[], Sequence[Child]],
    *,
    mark: Callable[[], object],
    final: Collection[int],
    say: Callable[[str], None],
    lost: Callable[[Loss, str], None] | None = None,
    retries: int = 3,
    pause: float = 1.0,
    grace: float = 10.0,
) -> None:
    """Runs children until rank 0 ends well; starts all again when one is lost.

    Args:
        start: what to start, asked before each attempt.
        mark: something that changes when a lost attempt has got on, such as the time of its checkpoint.
        final: exit codes that no new start would mend.
        say: where lines go.
        lost: told each loss, and what is done about it, a sentence.
        retries: starts in a row that may bring nothing.
        pause: seconds before the first new start; twice as long after each that brought nothing.
        grace: seconds between asking children to end, after a loss, and killing them. When this process is
            asked to stop they have the time they need, until it is asked once more.

    Raises:
        Final: a child ended with a code of `final`.
        RankError: lost more often than `retries` without getting on.
        KeyboardInterrupt: this process got SIGINT; the children have ended.
        SystemExit: likewise for SIGTERM.
    """
    with _Signals() as signals:
        barren, seen = 0, mark()
        while True:
            loss = _attempt(start(), signals, final, grace)
            if loss is None:
                return
            if loss.code in final:
                raise Final(loss)
            for line in loss.tail if loss.rank else ():
                say(f"rank {loss.rank}: {line}")
            barren, seen = (1 if mark() != seen else barren + 1), mark()
            if barren > retries:
                count = f"{barren} attempts in a row ended so without getting on" if retries else ""
                if lost is not None:
                    lost(loss, f"given up: {count or 'nothing is started again'}")
                raise RankError(
                    f"{loss.title}{'; ' if count else ''}{count}.",
                    hint="See what it said above; the run can be continued with --resume.",
                )
            wait = min(pause * 2.0 ** (barren - 1), _LONGEST_WAIT)
            again = f" (start {barren} of {retries} without progress)" if barren > 1 else ""
            done = f"{'it starts' if loss.alone else 'all ranks start'} again in {wait:g} s{again}"
            say(f"{loss}; {done}")
            if lost is not None:
                lost(loss, done)
            signals.sleep(wait)


def end_with_parent() -> None:
    """Makes this process end when the one that started it is gone; to be called early by a child."""
    threading.Thread(target=_wait_for_end, name="holdfast-parent", daemon=True).start()


def _wait_for_end() -> None:
    with suppress(OSError):
        while os.read(0, 1):
            pass
    os.kill(os.getpid(), signal.SIGKILL)


def _attempt(
    children: Sequence[Child], signals: _Signals, final: Collection[int], grace: float
) -> Loss | None:
    """Runs all children to their end; None when rank 0 ended well."""
    crew: list[_Running] = []
    try:
        for rank, child in enumerate(children):
            crew.append(_Running(rank, child, alone=len(children) == 1))
        lost_at = 0.0
        while any(member.alive for member in crew):
            if signals.caught:
                _stop(crew, signals)
                break
            ended = [member for member in crew if not member.alive]
            if any(member.process.returncode for member in ended) or not crew[0].alive:
                lost_at = lost_at or time.monotonic()
                if time.monotonic() - lost_at > _SETTLE:
                    break
            time.sleep(_POLL)
        losses = [member.loss() for member in crew if not member.alive and member.process.returncode]
        done = crew[0].process.returncode == 0
    finally:
        _end(crew, grace)
        for member in crew:
            member.close()
    if signals.caught:
        signals.leave()
    return None if done else min(losses, key=lambda loss: _guilt(loss, final))


def _guilt(loss: Loss, final: Collection[int]) -> int:
    """Sorts by what a loss explains: a mistake of the user, a death, and last having lost the others."""
    return 2 if loss.code == RankError.exit_code else int(loss.code not in final)


def _stop(crew: Sequence[_Running], signals: _Signals) -> None:
    """Passes requests to stop on, and waits: for children that save what they did, until the second one."""
    told = 0
    while any(member.alive for member in crew) and told < 2:
        if told < signals.count:
            told += 1
            for member in crew:
                member.send(signals.caught)
        time.sleep(_POLL)


def _end(crew: Sequence[_Running], grace: float) -> None:
    """Asks children to end, and kills those that do not."""
    for member in crew:
        member.send(signal.SIGTERM)
    deadline = time.monotonic() + grace
    while any(member.alive for member in crew) and time.monotonic() < deadline:
        time.sleep(_POLL)
    for member in crew:
        member.send(signal.SIGKILL)
        member.process.wait()


class _Running:
    """A child that was started."""

    def __init__(self, rank: int, child: Child, *, alone: bool) -> None:
        self.rank = rank
        self.alone = alone
        self.tail: deque[str] = deque(maxlen=_TAIL)
        self.process = subprocess.Popen(
            list(child.command),
            env={**os.environ, **child.environment},
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert self.process.stderr is not None
        self._reader = threading.Thread(target=self._read, args=(self.process.stderr,), daemon=True)
        self._reader.start()

    def _read(self, pipe: IO[bytes]) -> None:
        with suppress(ValueError, OSError):
            for line in pipe:
                self.tail.append(line.decode(errors="replace").rstrip())
                if self.rank == 0:
                    sys.stderr.write(line.decode(errors="replace"))
                    sys.stderr.flush()

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def send(self, number: int) -> None:
        if self.alive:
            with suppress(ProcessLookupError):
                self.process.send_signal(number)

    def loss(self) -> Loss:
        self._reader.join(1.0)
        return Loss(self.rank, self.process.returncode, tuple(self.tail), self.alone)

    def close(self) -> None:
        self._reader.join(1.0)
        for pipe in (self.process.stdin, self.process.stderr):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


class _Signals:
    """Takes SIGINT and SIGTERM while children run, so that they end first; not outside the main thread,
    where Python takes no signals.

    Attributes:
        caught: number of the first signal, 0 before.
        count: how many came.
    """

    def __init__(self) -> None:
        self.caught = 0
        self.count = 0
        self._before: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> _Signals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        self.caught = self.caught or number
        self.count += 1

    def sleep(self, seconds: float) -> None:
        """Waits, unless a signal came."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self.caught:
                self.leave()
            time.sleep(_POLL)

    def leave(self) -> None:
        """Ends this process the way the signal would have."""
        if self.caught == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + self.caught)
