"""Holdfast: train and run real-time object detectors. Importing this pulls in nothing heavy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.api import YOLO
    from holdfast.functions import advise, check, convert, download, resume

__all__ = ["YOLO", "__version__", "advise", "check", "convert", "download", "resume"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Imports the facade when it is first asked for (PEP 562), so that `import holdfast` stays light."""
    if name == "YOLO":
        from holdfast.api import YOLO

        return YOLO
    if name in ("advise", "check", "convert", "download", "resume"):
        from holdfast import functions

        return getattr(functions, name)
    raise AttributeError(f"module 'holdfast' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), "YOLO", "advise", "check", "convert", "download", "resume"])
