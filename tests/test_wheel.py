"""The wheel holds everything a user needs and runs outside the source tree."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the tree, so that stale build folders cannot leak in."""
    pytest.importorskip("build")
    tree = tmp_path_factory.mktemp("tree")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    shutil.copytree(ROOT / "src", tree / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist"]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (path,) = (tree / "dist").glob("*.whl")
    return path


def test_wheel_holds_every_module_preset_and_the_type_marker(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    source = ROOT / "src"
    wanted = [path for path in (source / "holdfast").rglob("*") if path.suffix in (".py", ".yaml", ".typed")]
    assert len(wanted) > 50
    assert {path.relative_to(source).as_posix() for path in wanted} <= held
    assert not [name for name in held if name.startswith("tests")]


def test_wheel_runs_outside_the_tree(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)

    def run(code: str) -> str:
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True,
                              check=True, env={**os.environ, "PYTHONPATH": str(site)})
        return done.stdout

    assert str(site) in run("import holdfast; print(holdfast.__file__)")
    assert "yolov9-s" in run("from holdfast.cli.main import main; main(['models'])")
    preset = "from holdfast.settings import TrainSettings; print(TrainSettings(hyp='scratch-high').scale)"
    assert run(preset) == "0.9\n"


@pytest.mark.slow
def test_installed_wheel_trains_the_demo(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target",
                    str(site), str(wheel)], check=True)
    demo = ["demo", "--images", "8", "--epochs", "1", "--imgsz", "64", "--batch", "4", "--workers", "0"]
    code = f"import sys; from holdfast.cli.main import main; sys.exit(main({demo!r}))"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True,
                   env={**os.environ, "PYTHONPATH": str(site)})
    assert (tmp_path / "demo" / "train" / "weights" / "best.pt").is_file()
    assert list((tmp_path / "demo" / "detect").glob("*.jpg"))
