"""Downloads end whole or not at all, whatever a server, the disk or a kill does; the server is a real one."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fileserver import Plan, running, sends, serve, stalled, status, truncated

from holdfast.errors import WeightsError
from holdfast.weights.claim import _same
from holdfast.weights.fetch import Fetched, download

CONTENT = random.Random(0).randbytes(200_000)
OTHER = random.Random(1).randbytes(200_000)
SHA = hashlib.sha256(CONTENT).hexdigest()
QUICK: dict[str, Any] = {"timeout": 0.3, "retries": 2, "pause": 0.01}


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def plan() -> Plan:
    return Plan(CONTENT)


@pytest.fixture
def site(plan: Plan) -> Iterator[str]:
    with running(plan) as address:
        yield address


def fetch(site: str, folder: Path, **keys: Any) -> Fetched:
    return download(f"{site}/w.pt", folder, "w.pt", **{**QUICK, **keys})


def refusal(site: str, folder: Path, **keys: Any) -> str:
    """The message of a download that must fail and leave nothing under the file's name."""
    with pytest.raises(WeightsError) as caught:
        fetch(site, folder, **keys)
    assert not (folder / "w.pt").exists()
    return str(caught.value)


def test_a_file_arrives_whole_with_progress_and_nothing_beside_it(site: str, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    got = fetch(site, tmp_path / "new" / "folder", sha256=SHA, size=len(CONTENT),
                report=lambda done, total: seen.append((done, total)))
    assert got == Fetched(tmp_path / "new" / "folder" / "w.pt", len(CONTENT), SHA)
    assert got.path.read_bytes() == CONTENT
    assert seen[0] == (0, len(CONTENT))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert seen == sorted(seen)
    assert [path.name for path in got.path.parent.iterdir()] == ["w.pt"]


def test_a_file_that_is_there_is_replaced(site: str, tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(b"old")
    assert fetch(site, tmp_path).path.read_bytes() == CONTENT


def test_a_broken_connection_is_continued_where_it_stopped(plan: Plan, site: str, tmp_path: Path) -> None:
    plan.answers = [truncated(70_000)]
    notes: list[str] = []
    assert fetch(site, tmp_path, note=notes.append).path.read_bytes() == CONTENT
    assert plan.asked[1][1]["Range"] == "bytes=70000-"
    assert plan.asked[1][1]["If-Range"] == '"one"'
    assert notes == ["the connection ended after 70000 of 200000 bytes; attempt 2 of 3 in 0.01 s"]


def test_a_stall_ends_after_the_timeout_and_is_continued(plan: Plan, site: str, tmp_path: Path) -> None:
    plan.answers = [stalled(3, 50_000)]
    began = time.monotonic()
    assert fetch(site, tmp_path).path.read_bytes() == CONTENT
    assert time.monotonic() - began < 2
    assert plan.asked[1][1]["Range"] == "bytes=50000-"


@pytest.mark.parametrize("code", [500, 502, 503, 429])
def test_passing_troubles_of_a_server_are_tried_again(
    plan: Plan, site: str, tmp_path: Path, code: int
) -> None:
    plan.answers = [status(code), status(code)]
    assert fetch(site, tmp_path, sha256=SHA).path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("answer", "requests", "message"),
    [
        (status(500), 3, "answered 500 Internal Server Error, and 3 attempts were made"),
        (status(404), 1, "answered 404 Not Found"),
        (status(403), 1, "answered 403 Forbidden"),
        (status(204), 1, "answered 204 No Content"),
        (stalled(1), 3, "nothing came for 0.1 s, and 3 attempts were made"),
        (truncated(0), 3, "the connection ended after 0 of 200000 bytes"),
        (sends(b"<html>sign in</html>", Content_Type="text/html; charset=utf-8"), 3, "a web page instead"),
        (sends(b"x", Content_Encoding="gzip"), 1, "compressed"),
        (sends(b"x" * 9, Content_Length="9"), 1, "has 9 bytes instead of 200000"),
        (sends(OTHER, Content_Length="200000"), 1, "so they were deleted"),
        (status(302, Location="file:///etc/passwd"), 1, "answered 302"),
        (status(302, Location="ftp://127.0.0.1/w.pt"), 1, "redirects from http to 'ftp://127.0.0.1/w.pt'"),
        (status(302, Location="/w.pt"), 1, "redirect"),
        (lambda plan, handler: handler.wfile.write(b"hello\r\n\r\n"), 3, "no connection"),
    ],
)
def test_every_failure_is_one_error_that_names_address_and_folder(
    plan: Plan, site: str, tmp_path: Path, answer: Any, requests: int, message: str
) -> None:
    plan.answers = [answer] * 20
    text = refusal(site, tmp_path, sha256=SHA, size=len(CONTENT), timeout=0.1)
    assert message in text
    assert f"{site}/w.pt" in text
    assert str(tmp_path) in text
    assert len(plan.asked) == requests or "redirect" in message  # a redirect to itself asks up to ten times
    assert list(tmp_path.iterdir()) == []


def test_nobody_listening_and_no_such_host_are_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert "no connection (Connection refused)" in refusal(f"http://127.0.0.1:{port}", tmp_path)
    assert "no connection (" in refusal("http://holdfast.invalid", tmp_path, retries=0)
    assert "no connection (" in refusal("http://127.0.0.1:port", tmp_path)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/w.pt", "file:///etc/passwd", "w.pt", "http:///w.pt"])
def test_only_http_addresses_are_downloaded_from(url: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no http or https address"):
        download(url, tmp_path / "a", "w.pt", **QUICK)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", ".", "..", "../w.pt", "a/w.pt", "/w.pt", "a\\w.pt", "C:w.pt", "w\0.pt"])
def test_a_name_cannot_lead_out_of_the_folder(name: str, site: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="is no file name"):
        download(f"{site}/w.pt", tmp_path / "a", name, **QUICK)
    assert list(tmp_path.iterdir()) == []


def test_a_link_in_place_of_the_part_is_not_followed(plan: Plan, site: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"mine")
    folder = tmp_path / "folder"
    left_behind(folder, CONTENT[:1000], url=f"{site}/w.pt")
    (folder / "w.pt.part").unlink()
    (folder / "w.pt.part").symlink_to(outside)
    assert fetch(site, folder).path.read_bytes() == CONTENT
    assert outside.read_bytes() == b"mine"


def test_redirects_within_http_are_followed_and_keep_the_range(
    plan: Plan, site: str, tmp_path: Path
) -> None:
    plan.answers = [truncated(100), status(302, Location="/elsewhere")]
    assert fetch(site, tmp_path).path.read_bytes() == CONTENT
    assert plan.asked[2][0] == "/elsewhere"
    assert plan.asked[2][1]["Range"] == "bytes=100-"


def test_a_server_that_ignores_ranges_sends_it_all_again(plan: Plan, site: str, tmp_path: Path) -> None:
    plan.ranges = False
    plan.answers = [truncated(70_000)]
    notes: list[str] = []
    assert fetch(site, tmp_path, note=notes.append).path.read_bytes() == CONTENT
    assert "from its beginning" in notes[-1]


def test_a_file_that_changed_between_attempts_is_taken_whole(plan: Plan, site: str, tmp_path: Path) -> None:
    def changes(plan: Plan, handler: Any) -> None:
        truncated(70_000)(plan, handler)
        plan.content, plan.etag = OTHER, '"two"'

    plan.answers = [changes]
    assert fetch(site, tmp_path).path.read_bytes() == OTHER


def test_a_changed_file_behind_a_careless_server_is_noticed(plan: Plan, site: str, tmp_path: Path) -> None:
    def careless(plan: Plan, handler: Any) -> None:  # 206 although If-Range names another version
        plan.content, plan.etag = OTHER, '"two"'
        del handler.headers["If-Range"]
        serve(plan, handler)

    plan.answers = [truncated(70_000), careless]
    notes: list[str] = []
    assert fetch(site, tmp_path, note=notes.append).path.read_bytes() == OTHER
    assert "the file on the server has changed; starting afresh" in notes


def test_a_mixture_is_unmasked_by_its_hash_and_fetched_afresh(
    plan: Plan, site: str, tmp_path: Path
) -> None:
    plan.etag = ""
    left_behind(tmp_path, OTHER[:70_000], url=f"{site}/w.pt", validator="")
    notes: list[str] = []
    assert fetch(site, tmp_path, sha256=SHA, note=notes.append).sha256 == SHA
    assert plan.asked[0][1]["Range"] == "bytes=70000-"
    assert "starting afresh" in notes[0]


def test_without_validator_and_hash_nothing_is_continued(plan: Plan, site: str, tmp_path: Path) -> None:
    plan.etag = ""
    left_behind(tmp_path, OTHER[:70_000], url=f"{site}/w.pt", validator="")
    assert fetch(site, tmp_path).path.read_bytes() == CONTENT
    assert "Range" not in plan.asked[0][1]


@pytest.mark.parametrize("shorter", [50_000, 70_000])
def test_bytes_beyond_the_end_of_a_shrunken_file_are_dropped(
    plan: Plan, site: str, tmp_path: Path, shorter: int
) -> None:
    left_behind(tmp_path, CONTENT[:70_000], url=f"{site}/w.pt")
    plan.content = CONTENT[:shorter]
    assert fetch(site, tmp_path).path.read_bytes() == plan.content


def test_a_part_of_another_address_is_not_used(plan: Plan, site: str, tmp_path: Path) -> None:
    left_behind(tmp_path, OTHER[:70_000], url="http://elsewhere/w.pt")
    assert fetch(site, tmp_path, sha256=SHA).sha256 == SHA
    assert len(plan.asked) == 1


@pytest.mark.parametrize("notes", [b"", b"{", b"[]", b'{"url": 3}', b"\xff"])
def test_notes_cut_short_by_a_kill_are_no_trouble(
    site: str, tmp_path: Path, notes: bytes
) -> None:
    left_behind(tmp_path, OTHER[:70_000])
    (tmp_path / "w.pt.part.json").write_bytes(notes)
    assert fetch(site, tmp_path).path.read_bytes() == CONTENT


def test_a_kill_before_the_renaming_costs_no_second_download(
    plan: Plan, site: str, tmp_path: Path
) -> None:
    left_behind(tmp_path, CONTENT, url=f"{site}/w.pt")
    assert fetch(site, tmp_path, sha256=SHA).path.read_bytes() == CONTENT
    assert plan.asked == []


def test_a_failure_keeps_what_came_and_the_next_run_continues(
    plan: Plan, site: str, tmp_path: Path
) -> None:
    plan.answers = [truncated(70_000), status(404)]
    assert "404" in refusal(site, tmp_path)
    assert (tmp_path / "w.pt.part").stat().st_size == 70_000
    assert fetch(site, tmp_path).path.read_bytes() == CONTENT
    assert plan.asked[2][1]["Range"] == "bytes=70000-"


def test_a_server_that_gives_no_length_is_believed(plan: Plan, site: str, tmp_path: Path) -> None:
    plan.answers = [sends(CONTENT)]
    seen: list[int | None] = []
    assert fetch(site, tmp_path, report=lambda done, total: seen.append(total)).path.read_bytes() == CONTENT
    assert set(seen) == {None}


def test_a_full_disk_is_named_before_the_first_byte(
    site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    text = refusal(site, tmp_path)
    assert "200000 more bytes are needed and the disk has 1000 free" in text
    assert str(tmp_path) in text


def test_a_disk_that_fills_on_the_way_is_named_and_the_part_kept(site: str, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # writing fails as on a full disk
    try:
        text = refusal(site, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "cannot be stored" in text
    assert "--folder" in text
    assert fetch(site, tmp_path).path.read_bytes() == CONTENT


def test_a_folder_that_cannot_be_written_is_named(site: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"cannot be stored as .*file/w\.pt.*--folder"):
        fetch(site, tmp_path / "file")
    if os.geteuid():  # for root nothing is read-only
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(WeightsError, match="Permission denied"):
            fetch(site, tmp_path / "locked")


def test_two_downloads_of_one_file_take_turns_and_the_second_takes_what_the_first_got(
    plan: Plan, site: str, tmp_path: Path
) -> None:
    plan.pause = 0.02
    results: list[Fetched] = []
    threads = [
        threading.Thread(target=lambda: results.append(fetch(site, tmp_path, sha256=SHA, timeout=2)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.sha256 for result in results] == [SHA] * 3
    assert (tmp_path / "w.pt").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["w.pt"]
    assert len(plan.asked) == 1


def test_a_lock_on_notes_that_the_last_process_deleted_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "w.pt.part.json"
    with path.open("a+b") as late:  # opened while the last process was about to delete it
        assert _same(late, path)
        path.unlink()
        assert not _same(late, path)
        path.touch()
        assert not _same(late, path)


def test_waiting_for_another_process_that_hangs_comes_to_an_end(site: str, tmp_path: Path) -> None:
    import fcntl

    with (tmp_path / "w.pt.part.json").open("wb") as notes:
        fcntl.flock(notes, fcntl.LOCK_EX)
        text = refusal(site, tmp_path, timeout=0.1, retries=0)
    assert "another process is downloading it, without progress" in text


def test_a_killed_download_leaves_no_damaged_file_and_the_next_run_continues(
    plan: Plan, site: str, tmp_path: Path
) -> None:
    plan.pause = 0.05  # 20 pieces, so about a second
    code = (
        "import sys; from pathlib import Path; from holdfast.weights.fetch import download; "
        f"download('{site}/w.pt', Path(sys.argv[1]), 'w.pt', timeout=5, retries=0)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    part = tmp_path / "w.pt.part"
    until = time.monotonic() + 20
    while not (part.exists() and part.stat().st_size > 20_000):
        assert time.monotonic() < until
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert not (tmp_path / "w.pt").exists()
    kept = part.stat().st_size
    assert 20_000 < kept < len(CONTENT)
    plan.pause = 0
    assert fetch(site, tmp_path, sha256=SHA).path.read_bytes() == CONTENT
    assert plan.asked[1][1]["Range"] == f"bytes={kept}-"


def left_behind(folder: Path, part: bytes, *, url: str = "", validator: str = '"one"') -> None:
    """What an earlier download of the 200,000 bytes left when it was interrupted."""
    folder.mkdir(exist_ok=True)
    (folder / "w.pt.part").write_bytes(part)
    notes = {"url": url, "validator": validator, "total": len(CONTENT)}
    (folder / "w.pt.part.json").write_text(json.dumps(notes))


def test_a_disk_error_at_the_last_moment_leaves_no_file(
    site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert "No space left on device" in refusal(site, tmp_path)
