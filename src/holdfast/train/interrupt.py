"""Requests to stop: the first ends a run after its step, saved; the second at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from holdfast.errors import Stopped

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM") if hasattr(signal, name))


class Interrupt:
    """Listens for SIGINT and SIGTERM while a run is under way.

    Only the main thread of a process can listen; elsewhere signals keep doing what they did.

    Attributes:
        signal: number of the signal that came, 0 before.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._at_once = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._heard) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before = {}

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Work that changes nothing and may be left anywhere: a request ends it by `Stopped`."""
        self._at_once = True
        try:
            if self.signal:
                raise self.stopped("")
            yield
        finally:
            self._at_once = False

    def stopped(self, message: str, hint: str = "") -> Stopped:
        """The exception that ends the run."""
        return Stopped(message, signal=self.signal, hint=hint)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        first, self.signal = not self.signal, number
        if first and not self._at_once:
            return
        if first:
            raise self.stopped("")
        # The second request: as if nobody had listened.
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
