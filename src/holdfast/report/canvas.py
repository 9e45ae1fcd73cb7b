"""The common look of all charts, and saving them.

Figures are made without pyplot: no global figure list, no display, safe in any thread. Colours are
Okabe-Ito's, which colour-blind readers can tell apart.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import matplotlib.font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from holdfast.runs import write_atomic

BLUE, ORANGE, GREEN, PINK, RED, SKY = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9"
INK, PALE, GRID = "#222222", "#B8B8B8", "#E6E6E6"
# Solid colours first, then the same colours dashed: 12 lines that can be told apart.
LINES: tuple[tuple[str, str], ...] = tuple(
    (color, style) for style in ("-", "--") for color in (BLUE, ORANGE, GREEN, PINK, RED, SKY)
)
WIDE_FAMILIES = (
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "WenQuanYi Micro Hei",
    "Microsoft YaHei",
    "PingFang SC",
)


def new_figure(width: float, height: float) -> Figure:
    """Returns an empty figure of the given size in inches, laid out so that nothing is cut off."""
    figure = Figure(figsize=(width, height), facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
    FigureCanvasAgg(figure)
    return figure


def dress(axes: Axes, *, title: str = "", x: str = "", y: str = "", grid: bool = True) -> None:
    """Gives axes the common look: title at the left, light grid, no upper and right frame."""
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK)
    axes.set_xlabel(x, fontsize=9, color=INK)
    axes.set_ylabel(y, fontsize=9, color=INK)
    axes.tick_params(labelsize=8, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(PALE)
    if grid:
        axes.grid(color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)


def legend(axes: Axes, **options: Any) -> None:
    """Adds a legend without a frame, when there is something to tell apart."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(**{"fontsize": 8, "frameon": False, "labelcolor": INK, **options})


def save(figure: Figure, path: Path, *, dpi: int = 150) -> Path:
    """Writes the figure in the format of the suffix, whole or not at all, and returns the path."""
    finish_texts(figure)
    drawn = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(drawn, dpi=dpi, format=path.suffix[1:])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, drawn.getvalue())
    return path


def finish_texts(figure: Figure) -> None:
    """Makes all texts of a figure plain: names of classes and files are user text, in any script, and dollar
    signs in them start no formula.
    """
    known = {font.name for font in matplotlib.font_manager.fontManager.ttflist}
    families = ["DejaVu Sans", *(family for family in WIDE_FAMILIES if family in known)]
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_fontfamily(families)
        text.set_parse_math(False)


def shorten(name: str, length: int = 24) -> str:
    """Cuts a long name in the middle, so that both its ends stay readable."""
    if len(name) <= length:
        return name
    half = (length - 1) // 2
    return f"{name[: length - 1 - half]}\u2026{name[-half:]}"
