"""Run folders: numbering, atomic files, CSV rows that survive a resume."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.errors import SettingsError
from holdfast.runs import CsvLog, JsonLog, SideFiles, new_run_folder, write_atomic


def test_folders_are_numbered_unless_existing_ones_may_be_used(tmp_path: Path) -> None:
    names = [new_run_folder(tmp_path, "exp", exist_ok=False).name for _ in range(3)]
    assert names == ["exp", "exp2", "exp3"]
    assert new_run_folder(tmp_path, "exp", exist_ok=True).name == "exp"


def test_a_file_in_the_way_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(SettingsError, match="cannot be created"):
        new_run_folder(tmp_path / "runs", "exp", exist_ok=False)
    with pytest.raises(SettingsError, match="is a file"):
        new_run_folder(tmp_path, "runs", exist_ok=True)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_atomic(path, b"old")
    with pytest.raises(TypeError):
        write_atomic(path, "text, not bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_resumed_log_keeps_the_rows_of_finished_epochs_only(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    log = CsvLog(path, ("epoch", "loss"))
    for epoch in (1, 2, 3):
        log.append({"epoch": epoch, "loss": None if epoch == 2 else 0.5})
    CsvLog(path, ("epoch", "loss"), keep_rows=2).append({"epoch": 3, "loss": 0.25})
    assert path.read_text().split() == ["epoch,loss", "1,0.5", "2,", "3,0.25"]


def test_rows_that_a_disk_refuses_come_with_the_next_one(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    log = CsvLog(folder / "results.csv", ("epoch",))
    log.append({"epoch": 1})
    folder.rename(tmp_path / "gone")
    with pytest.raises(OSError, match="No such file"):
        log.append({"epoch": 2})
    (tmp_path / "gone").rename(folder)
    assert (folder / "results.csv").read_text().split() == ["epoch", "1"]
    log.append({"epoch": 3})
    assert (folder / "results.csv").read_text().split() == ["epoch", "1", "2", "3"]


def test_a_log_takes_its_rows_from_the_checkpoint_where_that_has_them(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text("epoch\n1\n")  # a row is missing
    log = CsvLog(path, ("epoch",), keep_rows=2, known=[["1"], ["2"], ["3"]])
    log.append({"epoch": 3})
    assert path.read_text().split() == ["epoch", "1", "2", "3"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_side_files_that_a_full_disk_refuses_are_said_once_and_come_later(tmp_path: Path) -> None:
    said: list[str] = []
    files = SideFiles(said.append)
    for name in ("args.yaml", "manifest.json"):
        (tmp_path / f".{name}.part").symlink_to("/dev/full")  # a failed write removes it
    files.write(tmp_path / "args.yaml", b"a")
    (tmp_path / ".args.yaml.part").symlink_to("/dev/full")
    files.write_json(tmp_path / "manifest.json", {"b": 1})
    with files.spared(tmp_path / "labels.jpg"):
        Path("/dev/full").write_bytes(b"x")
    full = "cannot be written (No space left on device); the run goes on, and it is tried again"
    assert said == [f"{tmp_path}/args.yaml {full}"]
    assert not list(tmp_path.iterdir())
    files.write(tmp_path / "results.json", b"c")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["args.yaml", "manifest.json", "results.json"]
    assert said[1].endswith("could be written again")


def lines(path: Path) -> list[dict[str, int]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_log_of_json_lines_begins_with_what_it_is_given_and_grows(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    JsonLog(path, [{"a": 1}]).append({"a": 2}, {"a": 3})
    assert lines(path) == [{"a": 1}, {"a": 2}, {"a": 3}]
    JsonLog(path).append({"a": 4})
    assert lines(path) == [{"a": 4}]


def test_json_lines_that_a_disk_refuses_come_with_the_next_one(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    log = JsonLog(folder / "log.jsonl")
    folder.rename(tmp_path / "gone")
    with pytest.raises(OSError, match="No such file"):
        log.append({"a": 1})
    (tmp_path / "gone").rename(folder)
    log.append({"a": 2})
    assert lines(log.path) == [{"a": 1}, {"a": 2}]


FILL = """
import sys
from pathlib import Path
from holdfast.runs import JsonLog
log = JsonLog(Path(sys.argv[1]))
count = 0
try:
    while True:
        log.append({"number": count})
        count += 1
except OSError:
    print(count)
"""


def test_a_disk_that_is_full_in_the_middle_of_a_line_leaves_no_part_of_it(tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))  # writing beyond fails as on a full disk
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    path = tmp_path / "log.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", FILL, path], preexec_fn=limit, capture_output=True, text=True, check=True
    )
    assert path.read_text().endswith("}\n")
    assert len(lines(path)) == int(done.stdout) > 100
