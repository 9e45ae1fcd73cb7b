"""What a process may still take: machine, control groups of both versions, address space."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.data.host_memory import free_memory, groups, total_memory

GIB = 2**30


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_limits_of_all_groups_around_the_process_count(tmp_path: Path) -> None:
    root, membership = tmp_path / "cgroup", tmp_path / "membership"
    membership.write_text("0::/slice/job\n")
    stat = f"anon 5\ninactive_file {GIB}\n"
    write(root / "slice/job", memory__max=f"{4 * GIB}\n", memory__current=f"{3 * GIB}\n", memory__stat=stat)
    write(root / "slice", memory__max="max\n", memory__current="7\n", memory__stat=stat)
    write(root, memory__max=f"{9 * GIB}", memory__current="5", memory__stat="")
    assert list(groups(root, membership)) == [(4 * GIB, 2 * GIB), (9 * GIB, 5)]


def test_a_container_that_sees_only_its_own_root_is_limited_by_it(tmp_path: Path) -> None:
    root, membership = tmp_path / "cgroup", tmp_path / "membership"
    membership.write_text("5:cpuset:/x\n4:memory:/docker/0123\n0::/\n")
    write(
        root / "memory",
        memory__limit_in_bytes=f"{2 * GIB}",
        memory__usage_in_bytes=f"{GIB}",
        memory__stat=f"inactive_file 3\ntotal_inactive_file {GIB // 2}\n",
    )
    assert list(groups(root, membership)) == [(2 * GIB, GIB // 2)]


def test_a_system_without_control_groups_has_no_such_limit(tmp_path: Path) -> None:
    assert list(groups(tmp_path, tmp_path / "none")) == []


def test_free_memory_is_what_the_machine_can_give() -> None:
    assert 0 < free_memory() <= total_memory() < 2**60


@pytest.mark.skipif(sys.platform == "win32", reason="address spaces are limited elsewhere")
def test_a_limit_of_the_address_space_counts() -> None:
    script = """if True:
        import resource
        from holdfast.data.host_memory import free_memory
        import psutil
        resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + 50 * 2**20, -1))
        print(free_memory())
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert 0 < int(done.stdout) <= 50 * 2**20
