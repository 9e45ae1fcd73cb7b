"""What a rank prints leaves it line by line."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = str(Path(__file__).parents[2] / "src")
CODE = f"""
import sys
sys.path.insert(0, {SOURCE!r})
from holdfast.cli.rank import whole_lines
whole_lines()
print("one", 1)
print("two")
print("three", file=sys.stderr)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a socket shows each write as a message of its own")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_each_line_is_one_write(unbuffered: str) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.settimeout(30)
    with ours, theirs:
        environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        command = [sys.executable, "-c", CODE]
        subprocess.run(command, stdout=theirs, stderr=theirs, env=environment, check=True)
        assert [ours.recv(100) for _ in range(3)] == [b"one 1\n", b"two\n", b"three\n"]
