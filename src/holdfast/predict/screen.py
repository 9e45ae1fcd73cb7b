"""Pictures of a prediction run on the screen, through the system's own viewer.

Each picture opens a window of its own, so a video or stream shows its first frame only. Where nothing can be
opened, one line says so and the run goes on.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from holdfast.post.results import Results
from holdfast.predict.source import Frame


class Screen:
    """Opens results as they come.

    Args:
        look: how pictures are drawn, options of `Results.plot`.
        say: told what is not opened, and why.
    """

    def __init__(self, look: Mapping[str, Any], say: Callable[[str], None]) -> None:
        self.look = look
        self.say = say
        self.open = _has_screen()
        self._video = ""
        if not self.open:
            say("show: nothing is opened, this machine has no screen (DISPLAY and WAYLAND_DISPLAY are empty)")

    def show(self, frame: Frame, result: Results) -> None:
        """Opens one picture, or the first frame of a video."""
        if not self.open:
            return
        if frame.video is not None:
            if self._video == frame.path:
                return
            self._video = frame.path
            self.say(f"show: only the first frame of {frame.path}; --save writes an annotated video")
        self.open = result.show(**self.look)
        if not self.open:
            self.say("show: nothing is opened, no picture viewer was found (on Linux, install xdg-utils)")


def _has_screen() -> bool:
    """Whether this session can open a window; on Linux and its like, whether it knows of a display."""
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
