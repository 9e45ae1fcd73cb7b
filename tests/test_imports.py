"""Start-up is an interface: importing the package and asking for help pull in nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "cv2", "numpy", "matplotlib", "PIL", "faster_coco_eval", "safetensors", "psutil", "pynvml")
PROBE = """
import sys
{run}
print("loaded:", *[name for name in {heavy!r} if name in sys.modules])
"""


def loaded_after(run: str) -> list[str]:
    code = PROBE.format(run=run, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()[1:]


@pytest.mark.parametrize(
    "run",
    [
        "import holdfast",
        "import holdfast.settings",
        "from holdfast.cli.main import main; main(['--help'])",
        "from holdfast.cli.main import main; main(['version'])",
        "from holdfast.cli.main import main; main(['train', '--help'])",
        "from holdfast.cli.main import main; main(['help', 'predict'])",
        "from holdfast.cli.main import main; assert main(['train', '--epoch', '3']) == 2",
    ],
)
def test_light_commands_load_nothing_heavy(run: str) -> None:
    assert loaded_after(run) == []


def test_bare_import_and_help_do_not_even_load_the_settings() -> None:
    run = "from holdfast.cli.main import main; main(['--help']); assert 'pydantic' not in sys.modules"
    assert loaded_after(run) == []


def test_probe_sees_a_heavy_import() -> None:
    assert loaded_after("import numpy") == ["numpy"]
