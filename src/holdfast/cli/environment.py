"""`holdfast env`: what this machine offers, and what will get in the way."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from holdfast import __version__
from holdfast.settings import EnvSettings

_PACKAGES = (
    "numpy", "opencv-python-headless", "pillow", "pydantic", "faster-coco-eval", "matplotlib", "safetensors",
    "psutil", "nvidia-ml-py",
)  # fmt: skip
_OPTIONAL = ("torchvision", "optuna", "tensorboard", "wandb", "mlflow", "onnx", "onnxruntime", "openvino")
_FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "avx_vnni", "asimd", "bf16")
_GUI = ("opencv-python", "opencv-contrib-python")
_GIB = 2**30
_LEAST = {"memory": 2.0, "shm": 1.0, "disk": 5.0}  # GiB free, below which there is a warning


@dataclass
class Environment:
    """What was found.

    Attributes:
        facts: name to plain data, in the order they are shown.
        lines: the same for people.
        warnings: sentences about what will get in the way.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, name: str, value: Any, text: str = "") -> None:
        """Adds a fact, as data and as a line."""
        self.facts[name.replace(" ", "_")] = value
        self.lines.append(f"{name:<12} {text or value}")

    def warn(self, text: str) -> None:
        """Adds a warning."""
        self.warnings.append(text)


def run_env(settings: EnvSettings, *, say: Callable[[str], None] = print) -> Environment:
    """Runs `holdfast env`.

    Args:
        settings: how to show it.
        say: where it goes.
    """
    found = inspect()
    if settings.as_json:
        say(json.dumps({**found.facts, "warnings": found.warnings}))
        return found
    for line in found.lines:
        say(line)
    for text in found.warnings:
        say(f"warning: {text}")
    if not found.warnings:
        say("no warnings")
    return found


def inspect() -> Environment:
    """Looks at this machine and at this Python."""
    found = Environment()
    found.add("holdfast", __version__)
    python = sys.version.split()[0]
    found.add("python", {"version": python, "executable": sys.executable}, f"{python} ({sys.executable})")
    found.add("platform", platform.platform())
    _torch(found)
    _cv2(found)
    _processor(found)
    _room(found)
    _packages(found)
    return found


def _torch(found: Environment) -> None:
    import torch

    from holdfast.devices import choose_device, choose_precision

    threads = torch.get_num_threads()
    found.add("torch", {"version": str(torch.__version__), "threads": threads},
              f"{torch.__version__}, {threads} threads")  # fmt: skip
    built = torch.version.cuda
    archs = torch.cuda.get_arch_list() if built else []
    built_text = f"{built}, architectures {' '.join(archs)}" if built else "none (CPU wheel)"
    found.add("cuda build", {"cuda": built, "architectures": archs}, built_text)
    driver, most = _driver()
    driver_text = f"{driver}, for CUDA up to {most}" if driver else "no NVIDIA driver found"
    found.add("driver", {"version": driver or None, "cuda": most or None}, driver_text)
    cudnn = torch.backends.cudnn.version() if built else None  # type: ignore[no-untyped-call]
    found.add("cudnn", cudnn, str(cudnn or "none (CPU wheel)"))
    if built and torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            _card(found, number, archs)
    elif built and driver:
        found.warn(f"torch is built for CUDA {built} and cannot use driver {driver}, which knows CUDA up to "
                   f"{most}; install a newer driver or a wheel for that CUDA.")  # fmt: skip
    elif driver:
        found.warn("this machine has an NVIDIA driver, but torch is a CPU wheel; see pytorch.org for "
                   "one with CUDA.")  # fmt: skip
    device = choose_device("")
    precision = choose_precision(device.device, amp=True, amp_dtype="auto")
    text = f"{device.note}; {precision.note}"
    found.add("would use", {"device": str(device.device), "precision": precision.note}, text)
    usable = _usable_cores()
    if device.device.type == "cpu" and threads < usable:
        limit = os.environ.get("OMP_NUM_THREADS")
        why = f" (OMP_NUM_THREADS={limit})" if limit else ""
        found.warn(f"torch computes with {threads} of {usable} usable cores{why}.")


def _card(found: Environment, number: int, archs: list[str]) -> None:
    import torch

    try:
        free, total = torch.cuda.mem_get_info(number)
        name = torch.cuda.get_device_name(number)
        major, minor = torch.cuda.get_device_capability(number)
    except RuntimeError as fault:  # busy, broken, or no memory left for another process
        found.warn(f"cuda:{number} cannot be used: {str(fault).splitlines()[0]}")
        return
    value = {"name": name, "capability": f"{major}.{minor}", "free_bytes": free, "total_bytes": total}
    text = f"{name}, compute capability {major}.{minor}, {free / _GIB:.1f} of {total / _GIB:.1f} GiB free"
    found.add(f"cuda:{number}", value, text)
    if not covered(f"{major}{minor}", archs):
        found.warn(f"cuda:{number} has compute capability {major}.{minor}, for which this torch is not built "
                   f"({' '.join(archs)}); install a wheel that names it.")  # fmt: skip


def covered(capability: str, archs: list[str]) -> bool:
    """Whether code for these architectures runs on a card: binaries of its generation up to its number, or
    portable code of any earlier one.

    Args:
        capability: such as "86".
        archs: such as "sm_80" and "compute_90".
    """
    found = [re.fullmatch(r"(sm|compute)_(\d+)([af]?)", arch) for arch in archs]
    for match in filter(None, found):
        kind, number, special = match.groups()
        if special:
            if number == capability:
                return True
        elif kind == "compute":
            if int(number) <= int(capability):
                return True
        elif number[:-1] == capability[:-1] and int(number) <= int(capability):
            return True
    return False


def _driver() -> tuple[str, str]:
    """Version of the NVIDIA driver and of the latest CUDA it knows; empty where there is none."""
    try:
        import pynvml

        pynvml.nvmlInit()
        try:
            most = int(pynvml.nvmlSystemGetCudaDriverVersion())
            return str(pynvml.nvmlSystemGetDriverVersion()), f"{most // 1000}.{most % 1000 // 10}"
        finally:
            pynvml.nvmlShutdown()
    except Exception:  # no library, no driver, no permission: all mean that there is none to use
        return "", ""


def _cv2(found: Environment) -> None:
    try:
        import cv2
    except ImportError as fault:
        found.add("cv2", None, "not usable")
        found.warn(f"cv2 cannot be imported ({fault}); run pip install opencv-python-headless.")
        return
    build = cv2.getBuildInformation()
    video = re.search(r"FFMPEG:\s+(\w+)", build)
    can = bool(video and video[1] == "YES")
    found.add("cv2", {"version": cv2.__version__, "ffmpeg": can},
              f"{cv2.__version__}, {'with' if can else 'without'} FFmpeg for videos")  # fmt: skip
    both = [name for name in _GUI if _version(name)]
    if both and _version("opencv-python-headless"):
        found.warn(f"{both[0]} is installed beside opencv-python-headless; both write the folder cv2; remove "
                   "one of them.")  # fmt: skip


def _processor(found: Environment) -> None:
    from holdfast.data.host_memory import free_memory, total_memory

    lines = _read("/proc/cpuinfo").splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "").split()
    usable, cores = _usable_cores(), os.cpu_count() or 1
    name = model or platform.machine()
    found.add("cpu", {"name": name, "usable_cores": usable, "cores": cores},
              f"{name}, {usable} of {cores} cores usable")  # fmt: skip
    features = [feature for feature in _FEATURES if feature in flags]
    found.add("features", features, " ".join(features) or "unknown")
    free, total = free_memory(), total_memory()
    found.add("memory", {"free_bytes": free, "total_bytes": total}, _of(free, total))
    if free < _LEAST["memory"] * _GIB:
        found.warn(f"only {free / _GIB:.1f} GiB of memory are free.")
    if usable == 1:
        found.warn("only one core is usable; loading images and computing share it.")


def _room(found: Environment) -> None:
    for name, folder, least in (
        ("shm", Path("/dev/shm"), _LEAST["shm"]),
        ("disk here", Path.cwd(), _LEAST["disk"]),
        ("temporary", Path(tempfile.gettempdir()), _LEAST["shm"]),
    ):
        if not folder.is_dir():
            continue
        usage = shutil.disk_usage(folder)
        value = {"folder": str(folder), "free_bytes": usage.free, "total_bytes": usage.total}
        found.add(name, value, f"{_of(usage.free, usage.total)} in {folder}")
        if usage.free < least * _GIB:
            more = "; in a container give more with --shm-size" if name == "shm" else ""
            found.warn(f"{folder} has only {usage.free / _GIB:.1f} GiB free{more}.")
    if not os.access(Path.cwd(), os.W_OK):
        found.warn(f"{Path.cwd()} cannot be written to; give --project for runs.")


def _packages(found: Environment) -> None:
    versions = {name: _version(name) for name in (*_PACKAGES, *_OPTIONAL)}
    known = {name: number for name, number in versions.items() if number}
    found.add("packages", known, ", ".join(f"{name} {number}" for name, number in known.items()))
    for name in _PACKAGES:
        if not versions[name] and not (name.startswith("opencv") and any(_version(gui) for gui in _GUI)):
            found.warn(f"{name} is not installed; run pip install {name}.")


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _of(free: float, total: float) -> str:
    return f"{free / _GIB:.1f} of {total / _GIB:.1f} GiB free"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
