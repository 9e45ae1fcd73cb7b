"""Fixtures shared by all tests: where the golden numbers and the small data sets are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from colour import ColourDetector


def pytest_configure() -> None:
    """One thread per test process: several processes share the cores, and threads that wait spin."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden numbers and data sets; tests that need it skip, saying so, where it is absent."""
    folder = Path(os.environ.get("HOLDFAST_SHARED", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip("shared fixtures are absent: put them beside the repository or set HOLDFAST_SHARED")
    return folder


@pytest.fixture(scope="session")
def fixtures_v9(shared: Path) -> Path:
    return shared / "fixtures" / "yolov9"


@pytest.fixture(scope="session")
def fixtures_26(shared: Path) -> Path:
    return shared / "fixtures" / "yolo26"


@pytest.fixture(scope="session")
def data_dir(shared: Path) -> Path:
    return shared / "data"


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def detector() -> ColourDetector:
    """A detector whose answers are known: coloured cells."""
    return ColourDetector()
