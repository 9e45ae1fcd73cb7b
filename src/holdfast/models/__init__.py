"""Detector families; `build` makes one by name."""

from __future__ import annotations

from holdfast.models.registry import available, build, from_header, recognise, resolve

__all__ = ["available", "build", "from_header", "recognise", "resolve"]
