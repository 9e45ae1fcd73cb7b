"""The formats: a graph recorded and written, with its facts beside it.

TorchScript is recorded by tracing, in which sizes stay free anyway. torch calls it deprecated in favour of
`torch.export`, whose form is `.pt2`; the warning is kept from the user, who asked for that format by name.
ONNX of version 18 and later is made from `torch.export`; earlier versions from a trace, because the newer way
cannot write them.
"""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.jit._trace import TracerWarning

from holdfast.errors import MissingExtraError, SettingsError, WeightsError
from holdfast.export.graph import Graph
from holdfast.export.suppress import Suppression, with_suppression
from holdfast.models.exported import FACTS_FILE, INPUT, OUTPUT, Facts, first_line
from holdfast.nn.attention import Attention

OLDEST_WITH_ATTENTION = 14
OLDEST_EXPORTED = 18  # what torch.export's translation writes at least
MOST_CELLS = 256  # sides of a dynamic input, in strides
MOST_IMAGES = 4096
_AXES = {0: "batch", 2: "height", 3: "width"}


def write_torchscript(path: Path, graph: Graph, example: Tensor, facts: Facts) -> None:
    """Writes a TorchScript file.

    Args:
        path: the file.
        graph: what it computes.
        example: (B, 3, H, W), the input it is recorded with, on the device where the file is to run.
        facts: what it says about itself.
    """
    trace: Any = torch.jit.trace
    with _quiet(), torch.no_grad():
        traced = trace(graph, (example,), strict=False, check_trace=False)  # the parity check is ours
        torch.jit.save(traced, str(path), _extra_files={FACTS_FILE: json.dumps(facts.texts())})


def write_pt2(path: Path, graph: Graph, example: Tensor, facts: Facts) -> None:
    """Writes a program of `torch.export`; arguments as in `write_torchscript`."""
    program = _program(graph, example, facts)
    with _quiet(), path.open("wb") as file:
        torch.export.save(program, file, extra_files={FACTS_FILE: json.dumps(facts.texts())})


def write_onnx(
    path: Path,
    graph: Graph,
    example: Tensor,
    facts: Facts,
    *,
    opset: int | None,
    simplify: bool,
    suppression: Suppression | None,
) -> int:
    """Writes an ONNX file, and returns its operator-set version.

    Args:
        path, graph, example, facts: as in `write_torchscript`.
        opset: operator-set version; None: what torch writes by itself.
        simplify: fold constants and drop what does nothing.
        suppression: what to suppress inside the file.

    Raises:
        MissingExtraError: onnx or onnxscript is not installed.
        SettingsError: an operator-set version in which this network cannot be written.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401 (torch needs it)
    except ImportError as fault:
        raise MissingExtraError(
            f"Writing ONNX needs {fault.name}, which is not installed.",
            hint="Type pip install 'holdfast[export]'.",
        ) from None
    attention = any(isinstance(module, Attention) for module in graph.modules())
    if attention and opset is not None and opset < OLDEST_WITH_ATTENTION:
        raise SettingsError(
            f"{graph.model.name} needs opset {OLDEST_WITH_ATTENTION}, because of its attention.",
            hint="Raise or leave out --opset.",
        )
    common: dict[str, Any] = {"input_names": [INPUT], "output_names": [OUTPUT], "opset_version": opset}
    try:
        if opset is None or opset >= OLDEST_EXPORTED:
            program = _program(graph, example, facts)
            with _quiet(), torch.no_grad():
                written = torch.onnx.export(program, (), verbose=False, optimize=simplify, **common)
            assert written is not None
            written.save(path)
        else:
            answer = {0: "batch"} if graph.end_to_end else {0: "batch", 2: "anchors"}
            common["dynamic_axes"] = {INPUT: _AXES, OUTPUT: answer} if facts.dynamic else None
            with _quiet(), torch.no_grad():
                torch.onnx.export(
                    graph, (example,), str(path), dynamo=False, do_constant_folding=simplify, **common
                )
        model = onnx.load(path)
        onnx.checker.check_model(model)  # a version that torch does not know leaves operators of another
    except (torch.onnx.errors.OnnxExporterError, onnx.checker.ValidationError) as fault:
        version = f" of opset {opset}" if opset else ""
        raise SettingsError(
            f"{graph.model.name} cannot be written as ONNX{version} ({first_line(fault)}).",
            hint="Leave --opset out." if opset else "Give --format torchscript.",
        ) from fault
    if suppression is not None:
        model = with_suppression(model, suppression, classes=len(facts.names))
    onnx.helper.set_model_props(model, facts.texts())
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return next(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def _program(graph: Graph, example: Tensor, facts: Facts) -> torch.export.ExportedProgram:
    """The graph recorded by `torch.export`, sides being multiples of the stride where they are free."""
    shapes = None
    if facts.dynamic:
        dim = torch.export.Dim
        height, width = (facts.stride * dim(name, min=1, max=MOST_CELLS) for name in ("rows", "columns"))
        shapes = {INPUT: {0: dim("batch", min=1, max=MOST_IMAGES), 2: height, 3: width}}
    try:
        with _quiet(), torch.no_grad():
            return torch.export.export(graph, (example,), dynamic_shapes=shapes)
    except (torch._dynamo.exc.UserError, RuntimeError, NotImplementedError) as fault:
        raise WeightsError(
            f"torch.export cannot record {graph.model.name} ({first_line(fault)}).",
            hint="Leave --dynamic out." if facts.dynamic else "Give --format torchscript.",
        ) from fault


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps torch's notices to its own developers, on deprecated parts and on packages it looks for, out."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx._internal.exporter", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for kind in (DeprecationWarning, FutureWarning, UserWarning, TracerWarning):
                warnings.simplefilter("ignore", kind)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
