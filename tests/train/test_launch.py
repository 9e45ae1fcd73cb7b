"""Children that are watched: started again when lost, ended with their parent, told of its signals."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import pytest
import torch.distributed as dist
import yaml

from holdfast.errors import RankError
from holdfast.train.launch import Child, Final, Store, supervise

SOURCE = str(Path(__file__).parents[2] / "src")


def children(*codes: str) -> Callable[[], Sequence[Child]]:
    """One child per text of Python."""
    command = [sys.executable, "-S", "-c"]
    return lambda: [Child([*command, code], {"RANK": str(i)}) for i, code in enumerate(codes)]


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


def test_a_lost_child_makes_all_start_again_and_is_said(tmp_path: Path) -> None:
    tries = tmp_path / "tries"
    first = f"import os; open('{tries}', 'a').write(os.environ['RANK'] + chr(10))"
    second = f"{first}; print('no ink', file=__import__('sys').stderr)"
    second += f"; open('{tries}').read().count('1') < 2 and os.kill(os.getpid(), 9)"
    said: list[str] = []
    waiting = f"{first}; import time; open('{tries}').read().count('0') < 2 and time.sleep(60)"
    supervise(children(waiting, second), mark=lambda: 0, final=(), say=said.append, pause=0.1)
    assert sorted(tries.read_text().split()) == ["0", "0", "1", "1"]
    assert said == ["rank 1: no ink", "rank 1 was ended by SIGKILL; all ranks start again in 0.1 s"]


def test_it_gives_up_when_nothing_is_gained_and_counts_anew_when_something_is() -> None:
    said: list[str] = []
    with pytest.raises(RankError, match="The training ended with code 70; 2 attempts in a row ended so"):
        supervise(
            children("raise SystemExit(70)"), mark=lambda: 0, final=(), say=said.append, retries=1, pause=0.1
        )
    assert said == ["the training ended with code 70; it starts again in 0.1 s"]
    marks = iter(range(100))
    code = "import os; raise SystemExit(70)"
    attempts = []

    def start() -> Sequence[Child]:
        attempts.append(1)
        return children(code if len(attempts) < 4 else "")()

    supervise(start, mark=lambda: next(marks), final=(), say=said.append, retries=1, pause=0.1)
    assert len(attempts) == 4


def test_a_mistake_of_the_user_is_final_and_explains_more_than_its_consequences() -> None:
    lost = f"raise SystemExit({RankError.exit_code})"
    with pytest.raises(Final) as caught:
        supervise(
            children(lost, "import time; time.sleep(0.3); print('bad key', file=__import__('sys').stderr); "
                     "raise SystemExit(2)"),
            mark=lambda: 0, final=range(1, 7), say=print,
        )  # fmt: skip
    assert (caught.value.loss.rank, caught.value.loss.code, caught.value.loss.tail) == (1, 2, ("bad key",))


PARENT = """
import sys
sys.path.insert(0, {source!r})
from holdfast.train.launch import Child, supervise
code = {child!r}
child = Child([sys.executable, "-c", code], {{}})
supervise(lambda: [child, child], mark=lambda: 0, final=(), say=print, grace=5.0)
"""
CHILD = f"""
import sys, os, time
sys.path.insert(0, {SOURCE!r})
from holdfast.train.launch import end_with_parent
end_with_parent()
os.write(1, f"{{os.getpid()}}\\n".encode())  # in one piece: two children write to this pipe
time.sleep(100)
"""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, -2)]
)
def test_no_child_outlives_its_parent(number: signal.Signals, code: int) -> None:
    program = PARENT.format(source=SOURCE, child=CHILD)
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pids = [int(parent.stdout.readline()) for _ in range(2)]
    assert all(psutil.pid_exists(pid) for pid in pids)
    parent.send_signal(number)
    parent.communicate(timeout=30)
    assert parent.returncode == code
    until(lambda: not any(psutil.pid_exists(pid) for pid in pids), 10)


def test_the_port_is_held_from_its_choice_on_and_ranks_meet_there() -> None:
    stores = [Store(2), Store(2)]
    places = [store.environment(1, threads=3) for store in stores]
    assert places[0]["MASTER_PORT"] != places[1]["MASTER_PORT"]
    port = int(places[0]["MASTER_PORT"])
    with pytest.raises(dist.DistNetworkError, match="in use"):  # nobody else gets it
        dist.TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
    client = dist.TCPStore("127.0.0.1", port, is_master=False)
    client.set("a", "b")
    assert stores[0].store.get("a") == b"b"
    assert (places[0]["RANK"], places[0]["WORLD_SIZE"], places[0]["LOCAL_RANK"]) == ("1", "2", "1")


def command(shapes: Path, project: Path, *words: str, ranks: int = 2) -> list[str]:
    keys = {"model": "gelan-t", "data": shapes, "imgsz": 64, "batch": 4, "epochs": 2, "workers": 0}
    keys |= {"device": "cpu", "project": project, "plots": False, "ranks": ranks}
    return ["train", *(f"{key}={value}" for key, value in keys.items()), *words]


def holdfast(words: Sequence[str], *, before: Sequence[str] = ("-m", "holdfast")) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *before, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def test_a_plain_command_trains_on_two_ranks(shapes: Path, tmp_path: Path) -> None:
    run = holdfast(command(shapes, tmp_path))
    out, err = run.communicate(timeout=200)
    assert run.returncode == 0, err
    assert len(re.findall(r"rank [01] of 2 on .*: cpu", out)) == 2
    assert out.count("epoch 2/2") == 1  # rank 0 alone speaks
    assert err == ""
    folder = tmp_path / "exp"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["exp"]
    assert len((folder / "results.csv").read_text().splitlines()) == 3
    assert yaml.safe_load((folder / "args.yaml").read_text())["ranks"] == 2
    assert json.loads((folder / "manifest.json").read_text())["device"].startswith("2 ranks, the first on")


def test_a_mistake_is_told_once_and_nothing_is_started_again(shapes: Path, tmp_path: Path) -> None:
    run = holdfast(command(shapes, tmp_path, "weights=nowhere.pt"))
    out, err = run.communicate(timeout=100)
    assert run.returncode == 4
    assert err.count("nowhere.pt") == 1
    assert "Traceback" not in err
    assert "start again" not in out


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_request_to_stop_reaches_the_ranks_which_save_and_go_on_later(
    shapes: Path, tmp_path: Path, number: signal.Signals
) -> None:
    run = holdfast(command(shapes, tmp_path, "epochs=200", "batch=2"))
    last = tmp_path / "exp" / "weights" / "last.pt"
    until(last.is_file)
    run.send_signal(number)
    _, err = run.communicate(timeout=120)
    assert run.returncode == 128 + number
    assert f"saved in {last}" in err
    assert "Traceback" not in err
    again = holdfast(["train", f"resume={last}", "epochs=200", "patience=1"])  # ranks as they were
    out, err = again.communicate(timeout=200)
    assert again.returncode == 0, err
    assert len(re.findall(r"rank [01] of 2 on .*: cpu", out)) == 2
    assert "resumed after" in out


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_run_whose_rank_is_killed_in_mid_step_finishes_by_itself(
    shapes: Path, tmp_path: Path, victim: int
) -> None:
    run = holdfast(command(shapes, tmp_path, "epochs=6", "batch=2"))
    last = tmp_path / "exp" / "weights" / "last.pt"
    until(last.is_file)
    ranks = psutil.Process(run.pid).children()
    victims = [rank for rank in ranks if rank.environ()["RANK"] == str(victim)]
    victims[0].kill()
    out, err = run.communicate(timeout=120)
    assert run.returncode == 0, err
    assert f"rank {victim} was ended by SIGKILL; all ranks start again in 1 s" in out
    assert "resumed after epoch" in out
    rows = (tmp_path / "exp" / "results.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["exp"]


@pytest.mark.slow
def test_torchrun_runs_it_and_a_restart_finds_its_run(shapes: Path, tmp_path: Path) -> None:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "2"]
    words = command(shapes, tmp_path, "epochs=6", "batch=2", ranks=1)
    run = holdfast(words, before=[*torchrun, "-m", "holdfast"])
    until((tmp_path / "exp" / "weights" / "last.pt").is_file)
    workers = psutil.Process(run.pid).children()
    next(worker for worker in workers if worker.environ().get("RANK") == "1").kill()
    out, err = run.communicate(timeout=120)
    assert run.returncode == 0, err
    assert "resumed after epoch" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["exp"]
    assert len((tmp_path / "exp" / "results.csv").read_text().splitlines()) == 7
