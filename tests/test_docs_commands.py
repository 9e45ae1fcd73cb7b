"""What the documents tell to type works: every command is read, and run in a cheap form on a drawn data set.

Blocks named `bash` hold commands, `python` programs, `sh` shell scripts and `yaml` files; other blocks show
output or layouts.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from holdfast import settings
from holdfast.cli import compat
from holdfast.cli import main as cli
from holdfast.cli.grammar import translated
from holdfast.cli.official import PROGRAMS
from holdfast.cli.parse import parse
from holdfast.data.dataset_file import read_dataset_file
from holdfast.data.shapes import write_demo

ROOT = Path(__file__).parents[1]
DOCS = [path for path in sorted((ROOT / "docs").glob("**/*.md")) if "records" not in path.parts]
PAGES = ["README.md", "CONTRIBUTING.md", *(path.relative_to(ROOT).as_posix() for path in DOCS)]
PAGES.remove("docs/adding-a-family.md")  # tests/models/test_adding_a_family.py runs it as it stands
# What the fast tests run. The others are read by the fast tests and run by the slow ones.
FAST = ["docs/recipes/broken-labels.md", "docs/recipes/export.md"]
SETUP = ("make", "pip")  # install the program that runs this test
CHEAP = {"epochs": "1", "imgsz": "64", "img": "64", "batch": "4", "workers": "0", "device": "cpu",
         "images": "8"}  # fmt: skip
LEAST = {"certify": {"epochs": "4", "images": "20", "repeats": "2", "faults": "no"}}
JUDGES = ("check", "certify")  # what so few images teach is worth a warning, and does not hold
BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str, *kinds: str) -> list[str]:
    """The code blocks of a page that are of some kinds."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [body for kind, body in BLOCK.findall(text) if kind in kinds]


def commands(page: str) -> Iterator[list[str]]:
    """The commands of a page, in their order, as words."""
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield words


def native(words: list[str]) -> list[str]:
    """The verb of a command with its words; `resume` is a training that resumes."""
    verb, *rest = translated(words[1:], verbs=cli._VERBS)
    if verb != "resume":
        return [verb, *rest]
    named = rest and not rest[0].startswith("--")
    return ["train", f"resume={rest[0]}" if named else "resume=true", *rest[1 if named else 0 :]]


def read(words: list[str]) -> None:
    """Checks the keys and values of a command, without running it."""
    if words[0] == "python":
        program = Path(words[1]).stem
        compat.read(program, words[2:], say=lambda text: None)
        return
    assert words[0] == "holdfast", words
    verb, *rest = native(words)
    kind = getattr(settings, f"{verb.capitalize()}Settings", None)
    if kind is None:
        assert verb in cli._VERBS
    elif "--help" not in rest:
        kind(**parse(kind, rest))


def cheap(words: list[str], keys: set[str], epochs: int, least: Mapping[str, str]) -> list[str]:
    """A command that does the same to small pictures, for a moment; `least` is what it asks for at least."""
    found: list[str] = []
    for word in words:
        before = found[-1] if found else ""
        key, equals, _ = word.partition("=")
        if before.startswith("--") and before[2:] in CHEAP:
            word = CHEAP[before[2:]]
        elif equals and key in CHEAP:
            word = f"{key}={CHEAP[key]}"
        elif re.fullmatch(r"(model=|models/detect/)?yolo(v9-\w|26\w)(\.yaml)?", word):
            word = "model=gelan-t" if key == "model" else "gelan-t"
        found.append(word)
    given = {word.removeprefix("--").partition("=")[0].replace("-", "_") for word in found}
    given |= {"imgsz"} if "img" in given else set()
    extra = {**CHEAP, "micro_batch": "4", "ckpt": "off", "plots": "no", **least}
    extra = {key: value for key, value in extra.items() if key in keys and key not in given}
    if "no_plots" in given or "resume" in given:
        kept = ("plots", "micro_batch", "ckpt", "batch")
        extra = {key: value for key, value in extra.items() if key not in kept}
    if "resume" in given and "auto" not in found:
        found = [word for word in found if word != "--epochs" and word != CHEAP["epochs"]]
        extra["epochs"] = str(epochs)
    return [*found, *(f"--{key.replace('_', '-')}={value}" for key, value in extra.items())]


def run(words: list[str], epochs: int) -> None:
    """Runs a command in its cheap form; one that resumes goes on until `epochs`."""
    if any("onnx" in word for word in words):
        for package in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(package, reason="the extra 'export' is not installed")
    if words[0] == "python":
        program = Path(words[1]).stem
        kind = getattr(settings, f"{PROGRAMS[program].verb.capitalize()}Settings")
        assert compat.main(program, cheap(words[2:], set(kind.model_fields), epochs, {})) == 0, words
        return
    verb, *rest = native(words)
    if verb == "download" or "--help" in rest:
        return  # needs a network; it was read
    kind = getattr(settings, f"{verb.capitalize()}Settings", None)
    keys = set() if kind is None or verb == "check" else set(kind.model_fields)
    allowed = (0, 1) if verb in JUDGES else (0,)
    assert cli.main([verb, *cheap(rest, keys, epochs, LEAST.get(verb, {}))]) in allowed, words


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data.yaml, photos, and a run that may go on for one more epoch."""
    folder = tmp_path_factory.mktemp("documents")
    data = write_demo(folder, images=12)
    shutil.copytree(folder / "images" / "val", folder / "photos")
    keys = {"model": "gelan-t", "imgsz": 64, "batch": 4, "epochs": 2, "workers": 0, "device": "cpu",
            "micro_batch": 4, "ckpt": "off", "plots": False, "project": folder / "runs" / "train"}
    from holdfast.running import run_train

    result = run_train(settings.TrainSettings(data=data, **keys), say=lambda text: None)
    for name in ("yolo26n.pt", "yolov9-s.pt"):  # as if they had been downloaded
        shutil.copy(result.best, folder / name)
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which is the working directory."""
    place = tmp_path / "work"
    shutil.copytree(trained, place)
    monkeypatch.chdir(place)
    return place


@pytest.mark.parametrize("page", PAGES)
def test_every_command_is_understood(page: str) -> None:
    for words in commands(page):
        if words[0] not in SETUP:
            read(words)


@pytest.mark.parametrize("page", PAGES)
def test_blocks_of_commands_are_named_so(page: str) -> None:
    for block in blocks(page, "", "text", "console", "shell"):
        assert not re.search(r"^(holdfast|python|pip|make) ", block, re.MULTILINE), block


@pytest.mark.parametrize("page", PAGES)
def test_make_and_pip_are_told_what_there_is(page: str) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for words in commands(page):
        if words[0] == "make":
            assert words[1] in targets
        elif words[0] == "pip":
            assert words == ["pip", "install", "."]


def everything(page: str, folder: Path) -> None:
    resumed = 0
    for words in commands(page):
        resumed += any("resume" in word for word in words)
        if words[0] not in SETUP:
            run(words, epochs=2 + resumed)  # the run that is there has done two
    for program in blocks(page, "python"):
        small = program.replace("640", "64").replace("epochs=100", "epochs=1, batch=4, device='cpu'")
        space: dict[str, Any] = {}
        exec(compile(small.replace("yolo26n", "gelan-t").replace("yolov9-t", "gelan-t"), page, "exec"), space)


@pytest.mark.parametrize("page", FAST)
def test_commands_of_quick_pages_run(page: str, folder: Path) -> None:
    everything(page, folder)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if page not in FAST])
def test_commands_of_the_other_pages_run(page: str, folder: Path) -> None:
    everything(page, folder)


@pytest.mark.parametrize("page", PAGES)
def test_scripts_and_files_are_well_formed(page: str, tmp_path: Path) -> None:
    for script in blocks(page, "sh"):
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    for content in blocks(page, "yaml"):
        found = list(yaml.safe_load_all(content))
        assert found
        if "names" in found[0]:
            (tmp_path / "data.yaml").write_text(content, encoding="utf-8")
            assert len(read_dataset_file(tmp_path / "data.yaml").names) == 3
    for text in blocks(page, "sh", "yaml"):
        for line in re.findall(r"holdfast train ([^\n;\"]+)", text.replace("\\\n", " ")):
            settings.TrainSettings(**parse(settings.TrainSettings, line.split()))
    for job in (yaml.safe_load(text) for text in blocks(page, "yaml")):
        if job.get("kind") == "Job":
            (container,) = job["spec"]["template"]["spec"]["containers"]
            verb, *words = container["args"]  # the entry point of the image is the program
            assert verb == "train"
            settings.TrainSettings(**parse(settings.TrainSettings, words))
