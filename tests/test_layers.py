"""Imports point down: the layer rules of docs/ARCHITECTURE.md, held on the syntax trees of the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "holdfast"

LAYERS = (
    ("geometry", "locks"),
    ("nn",),
    ("models", "losses", "data", "evaluate", "weights"),
    ("post", "load", "loggers", "devices", "runs", "memory", "health", "console"),
    ("train", "val", "predict", "report", "export"),
    (
        "advising", "api", "benchmarking", "certify", "checking", "children", "cli", "comparing",
        "conversion", "demo", "downloads", "exporting", "functions", "launching", "planning", "reporting",
        "running", "tune", "watching", "__init__", "__main__",
    ),
)
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}
SIDE = ("errors", "settings")
SIBLINGS = {("losses", "models", "outputs"), ("weights", "models", "detector")}
ENTRY, DOORS = 4, 5
MODULES = sorted(SOURCE.rglob("*.py"))


def part_of(path: Path) -> str:
    """`data/image.py` -> data, `load.py` -> load."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_modules(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name below `holdfast` of every import, also those inside functions."""
    package = ("holdfast", *path.relative_to(SOURCE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{stem}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "holdfast":
                yield node.lineno, name.removeprefix("holdfast").removeprefix(".")


def fault(own: str, target: str) -> str | None:
    """Why a file of `own` may not import `target` (dotted, below holdfast), or None when it may."""
    part = target.split(".")[0]
    if part in ("", "__version__", own) or part == "errors":
        return None
    if own in SIDE:
        return "side modules import nothing of the project but errors"
    if part == "settings":
        return None if LEVEL[own] >= ENTRY else "settings are for entry functions and doors only"
    if part not in LEVEL:
        return f"{part} has no layer; add it to tests/test_layers.py and docs/ARCHITECTURE.md"
    if LEVEL[part] < LEVEL[own]:
        return None
    if (own, *target.split(".")[:2]) in SIBLINGS:
        return None
    if LEVEL[part] == LEVEL[own] == DOORS:
        return None
    return "upward" if LEVEL[part] > LEVEL[own] else "sideways"


def test_every_file_has_a_layer() -> None:
    assert MODULES
    unknown = {part_of(path) for path in MODULES} - set(LEVEL) - set(SIDE)
    assert not unknown


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_imports_point_down(path: Path) -> None:
    own = part_of(path)
    faults = [
        f"{path.relative_to(SOURCE)}:{line} imports holdfast.{target}: {why}"
        for line, target in imported_modules(path)
        if (why := fault(own, target))
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("own", "target", "allowed"),
    [
        ("losses", "geometry.iou.ciou", True),
        ("losses", "models.outputs.Branch", True),  # the two exceptions among siblings
        ("weights", "models.detector.Detector", True),
        ("weights", "models.yolov9.YOLOv9", False),
        ("losses", "models.yolov9.YOLOv9", False),
        ("models", "losses.detect", False),
        ("geometry", "nn.conv", False),
        ("data", "settings.TrainSettings", False),
        ("train", "settings.TrainSettings", True),
        ("train", "val.run.Evaluator", False),  # the trainer is handed an evaluator
        ("train", "__version__", True),
        ("settings", "train.loop", False),
        ("cli", "api", True),
    ],
)
def test_rule_says_what_the_design_says(own: str, target: str, allowed: bool) -> None:
    assert (fault(own, target) is None) == allowed


UNPACKS = {"train": ["parts.py", "session.py"]}  # the parts of a run, and the run


@pytest.mark.parametrize("part", LAYERS[ENTRY])
def test_settings_are_unpacked_in_one_place_per_program(part: str) -> None:
    users = [
        path.name for path in MODULES
        if part_of(path) == part and any(name.startswith("settings") for _, name in imported_modules(path))
    ]
    assert users == UNPACKS[part] if part in UNPACKS else len(users) <= 1, users


BELOW = [path for path in MODULES if part_of(path) in SIDE or LEVEL[part_of(path)] < ENTRY]


@pytest.mark.parametrize("path", BELOW, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_nothing_below_the_programs_prints_logs_or_reads_the_environment(path: Path) -> None:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name) and node.id == "print":
            found.append(f"line {node.lineno}: print")
        if isinstance(node, ast.Import) and any(a.name.split(".")[0] == "logging" for a in node.names):
            found.append(f"line {node.lineno}: logging")
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "logging":
            found.append(f"line {node.lineno}: logging")
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv"):
            found.append(f"line {node.lineno}: {node.attr}")
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            found += [f"line {node.lineno}: {a.name}" for a in node.names if a.name in ("environ", "getenv")]
    assert not found, f"{path.relative_to(SOURCE)}: {found}"


HEAVY = ("torch", "cv2", "numpy", "matplotlib", "PIL", "faster_coco_eval")


@pytest.mark.parametrize("part", ["geometry", "nn", "models", "losses"])
def test_tensor_code_needs_torch_and_numpy_only(part: str) -> None:
    found = {name for path in MODULES if part_of(path) == part for name in third_party(path)}
    assert found <= {"torch", "numpy"}


PACKAGES = [path for path in MODULES if path.name == "__init__.py"]


@pytest.mark.parametrize("path", PACKAGES, ids=lambda path: path.parent.relative_to(SOURCE).as_posix())
def test_package_files_import_no_pictures_or_plots(path: Path) -> None:
    assert not third_party(path) & {"cv2", "matplotlib", "PIL", "faster_coco_eval"}


def third_party(path: Path) -> set[str]:
    """Heavy packages a file imports when it is itself imported (not inside functions)."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").split(".")[0])
    return found & {*HEAVY, "scipy", "pandas", "polars", "torchvision"}
