"""Documents agree with the code: settings page, file trees, links, versions, dependencies."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import holdfast
from holdfast.cli.flags import settings_page
from holdfast.cli.moving import moving_page

ROOT = Path(__file__).parents[1]
PAGES = [
    "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docker/README.md",
    *(path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").glob("**/*.md"))
      if "records" not in path.parts),
]  # fmt: skip


def test_settings_page_is_the_generated_one() -> None:
    assert (ROOT / "docs/SETTINGS.md").read_text(encoding="utf-8") == settings_page() + "\n", "run: make docs"


def test_page_of_moving_is_the_generated_one() -> None:
    assert (ROOT / "docs/moving.md").read_text(encoding="utf-8") == moving_page() + "\n", "run: make docs"


@pytest.mark.parametrize("page", ["README.md", "docs/ARCHITECTURE.md"])
def test_page_names_every_folder_of_the_package(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    folders = sorted(path.parent.name for path in (ROOT / "src/holdfast").glob("*/__init__.py"))
    assert [name for name in folders if f"{name}/" not in text] == []


def test_architecture_names_every_top_file_of_the_package() -> None:
    text = (ROOT / "docs/ARCHITECTURE.md").read_text(encoding="utf-8")
    files = sorted(path.name for path in (ROOT / "src/holdfast").glob("*.py"))
    assert [name for name in files if name not in text] == []


def test_paths_named_in_the_pages_exist() -> None:
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}"


@pytest.mark.parametrize("page", PAGES)
def test_pages_hold_no_path_of_one_machine(page: str) -> None:
    assert not re.search(r"(?<![\w.])/(root|home|work|tmp)/", (ROOT / page).read_text(encoding="utf-8"))


def test_the_site_lists_every_page() -> None:
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = [path.removeprefix("docs/") for path in PAGES if path.startswith("docs/")]
    assert [page for page in pages if f": {page}\n" not in site] == []


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the extra 'docs' is not installed")
    pytest.importorskip("material", reason="the extra 'docs' is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "site" / "zh" / "index.html").is_file()
    page = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"fonts\.(googleapis|gstatic)", page)


def test_changelog_and_package_tell_the_same_version() -> None:
    assert f"## {holdfast.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_core_dependency_is_imported_somewhere() -> None:
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    imported = {"opencv-python-headless": "cv2", "pillow": "PIL", "pyyaml": "yaml", "nvidia-ml-py": "pynvml"}
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    for requirement in project["dependencies"]:
        name = re.split(r"[<>=]", requirement)[0]
        module = imported.get(name, name.replace("-", "_"))
        assert re.search(rf"^\s*(import|from) {module}\b", source, re.MULTILINE), f"{name} is not used"
