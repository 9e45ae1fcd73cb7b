"""`holdfast env`: what this machine offers, and what will get in the way."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from holdfast import __version__

_PACKAGES = (
    "numpy", "opencv-python-headless", "pillow", "pydantic", "faster-coco-eval", "matplotlib", "safetensors",
    "psutil", "nvidia-ml-py", "torchvision",
)
_FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "avx_vnni", "asimd", "bf16")


def report() -> str:
    """The facts, one per line, then warnings."""
    warnings: list[str] = []
    facts = [
        ("holdfast", __version__),
        ("python", f"{sys.version.split()[0]} ({sys.executable})"),
        ("platform", platform.platform()),
        *_torch(warnings),
        *_processor(warnings),
        *_room(warnings),
        ("packages", ", ".join(_installed(warnings))),
    ]
    lines = [f"{name:<12} {text}" for name, text in facts]
    lines += [f"warning: {text}" for text in warnings] or ["no warnings"]
    return "\n".join(lines)


def _torch(warnings: list[str]) -> list[tuple[str, str]]:
    import torch

    from holdfast.devices import choose_device, choose_precision

    built = torch.version.cuda
    build = f"{built}, architectures {' '.join(torch.cuda.get_arch_list())}" if built else "none (CPU wheel)"
    facts = [
        ("torch", f"{torch.__version__}, {torch.get_num_threads()} threads"),
        ("cuda build", build),
        ("driver", _driver() or "no NVIDIA driver found"),
    ]
    if built and torch.cuda.is_available():
        facts.append(("cudnn", str(torch.backends.cudnn.version())))  # type: ignore[no-untyped-call]
        for number in range(torch.cuda.device_count()):
            try:
                free, total = torch.cuda.mem_get_info(number)
                name = torch.cuda.get_device_name(number)
            except RuntimeError as fault:  # busy, broken, or no memory left for another process
                warnings.append(f"cuda:{number} cannot be used: {str(fault).splitlines()[0]}")
                continue
            facts.append((f"cuda:{number}", f"{name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"))
    elif built and _driver():
        warnings.append("torch cannot use the NVIDIA driver; it may be older than the wheel's CUDA.")
    elif _driver():
        warnings.append("this machine has an NVIDIA driver, but torch is a CPU wheel.")
    device = choose_device("")
    precision = choose_precision(device.device, amp=True, amp_dtype="auto")
    return [*facts, ("would use", f"{device.note}; {precision.note}")]


def _driver() -> str:
    try:
        import pynvml

        pynvml.nvmlInit()
        try:
            return str(pynvml.nvmlSystemGetDriverVersion())
        finally:
            pynvml.nvmlShutdown()
    except Exception:  # no library, no driver, no permission: all mean that there is none to use
        return ""


def _processor(warnings: list[str]) -> list[tuple[str, str]]:
    import psutil

    lines = _read("/proc/cpuinfo").splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "").split()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = psutil.virtual_memory()
    if memory.available < 2 * 2**30:
        warnings.append(f"only {memory.available / 2**30:.1f} GiB of memory are free.")
    return [
        ("cpu", f"{model or platform.machine()}, {usable} of {os.cpu_count()} cores usable"),
        ("features", " ".join(name for name in _FEATURES if name in flags) or "unknown"),
        ("memory", f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free"),
    ]


def _room(warnings: list[str]) -> list[tuple[str, str]]:
    facts = []
    for name, folder, least in (("shm", Path("/dev/shm"), 1.0), ("disk here", Path.cwd(), 5.0)):
        if folder.is_dir():
            usage = shutil.disk_usage(folder)
            facts.append((name, f"{usage.free / 2**30:.1f} of {usage.total / 2**30:.1f} GiB free"))
            if usage.free < least * 2**30:
                warnings.append(f"{folder} has only {usage.free / 2**30:.1f} GiB free.")
    return facts


def _installed(warnings: list[str]) -> list[str]:
    found = []
    for name in _PACKAGES:
        number = _version(name)
        if number:
            found.append(f"{name} {number}")
        elif name != "torchvision":
            warnings.append(f"{name} is not installed; run pip install {name}.")
    gui = [name for name in ("opencv-python", "opencv-contrib-python") if _version(name)]
    if gui:
        warnings.append(f"{gui[0]} is installed beside opencv-python-headless; both write the folder cv2.")
    return found


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
