"""What can be said of the Dockerfiles without Docker: what they copy exists and is let through, torch has one
version, and nothing has to be activated."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = ["docker/Dockerfile", "docker/Dockerfile.cuda"]


def instructions(name: str) -> list[tuple[str, str]]:
    """(instruction, arguments) of a Dockerfile, without comments."""
    text = re.sub(r"\\\n", " ", (ROOT / name).read_text(encoding="utf-8"))
    lines = [line.strip() for line in text.splitlines() if line.strip()[:1] not in ("", "#")]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


@pytest.mark.parametrize("name", FILES)
def test_what_is_copied_is_there_and_not_ignored(name: str) -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [part for word, text in instructions(name) if word == "COPY" for part in text.split()[:-1]]
    assert {"src", "pyproject.toml", "constraints.txt"} <= set(copied)
    assert [part for part in copied if not (ROOT / part).exists() or part not in allowed] == []


@pytest.mark.parametrize("name", FILES)
def test_the_command_is_the_entry_point_and_runs_as_a_user(name: str) -> None:
    found = dict(instructions(name))
    assert json.loads(found["ENTRYPOINT"]) == ["holdfast"]
    assert json.loads(found["CMD"]) == ["help"]
    assert found["USER"] != "root"
    assert "activate" not in (ROOT / name).read_text(encoding="utf-8")


def test_torch_has_one_pinned_version() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line.startswith("torch==")]
    assert len(pins) == 1
    assert re.fullmatch(r"torch==[\d.]+", pins[0].split(" ")[0])


def test_the_page_says_that_nothing_was_built() -> None:
    assert "Not built here" in (ROOT / "docker" / "README.md").read_text(encoding="utf-8")
