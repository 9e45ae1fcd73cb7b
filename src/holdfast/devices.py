"""Which device a run uses and in which precision. Layer 3; every decision comes with the sentence that
explains it.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import torch

from holdfast.errors import DeviceError, SettingsError


@dataclass(frozen=True)
class Device:
    """A device and why it was chosen.

    Attributes:
        device: where tensors go.
        note: one sentence for the start-up block.
        fallback: whether another one was asked for or should have been there; worth a line in a quiet run.
    """

    device: torch.device
    note: str
    fallback: bool = False


def choose_device(wanted: str) -> Device:
    """Turns `''`, `cpu`, `0`, `cuda:0` or `mps` into a device; a device that is not there, or cannot compute,
    falls back to the CPU, said so.

    Raises:
        DeviceError: several devices, or text that names none.
    """
    text = str(wanted).strip().lower().removeprefix("cuda:")
    if text == "":
        return _most_free()
    if text == "cpu":
        return Device(torch.device("cpu"), f"cpu ({torch.get_num_threads()} threads)")
    if text == "mps":
        if torch.backends.mps.is_available():
            return Device(torch.device("mps"), "mps")
        return Device(torch.device("cpu"), "cpu, because this machine has no MPS device", fallback=True)
    if "," in text:
        raise DeviceError(
            f"Device '{wanted}' names several devices, and only training runs on several.",
            hint="Name one, for example --device 0.",
        )
    if text == "cuda":
        text = "0"
    if not text.isdecimal():
        raise DeviceError(
            f"Device '{wanted}' is not a device.", hint="Use a number such as 0, or cpu, or mps."
        )
    number = int(text)
    count, reason = _cuda_devices()
    if number < count:
        reason = _fault(number)
        if not reason:
            name = torch.cuda.get_device_name(number)
            return Device(torch.device("cuda", number), f"cuda:{number} ({name})")
        found = f"it cannot be used: {reason}"
    elif reason:
        found = f"CUDA cannot be used: {reason}"
    elif count:
        found = f"this machine has only {count} CUDA device{'s' if count > 1 else ''}"
    else:
        found = "this machine has no CUDA device"
    note = f"cpu, because device {number} was asked for and {found}"
    return Device(torch.device("cpu"), note, fallback=True)


def choose_device_of_rank(wanted: str, *, local_rank: int, local_world: int) -> Device:
    """Chooses the device of one of several processes of this machine; none falls back by itself.

    Args:
        wanted: `cpu`, as many GPUs as there are processes (`0,1`), or `''` for the GPU of the process's
            number, and the CPU where there is no GPU.
        local_rank: number of the process on this machine, from 0.
        local_world: processes on this machine.

    Raises:
        DeviceError: a device that is not there or cannot compute, or another number of devices.
    """
    names = [word for word in wanted.strip().lower().removeprefix("cuda:").split(",") if word.strip()]
    if not names or names == ["cuda"]:
        count, reason = _cuda_devices()
        if not count and not names:
            why = f"CUDA cannot be used: {reason}" if reason else "no CUDA device found"
            note = f"cpu ({torch.get_num_threads()} threads each, {why})"
            return Device(torch.device("cpu"), note, fallback=bool(reason))
        names = [str(number) for number in range(count)]
        if count < local_world:
            raise DeviceError(
                f"{local_world} processes were started on this machine, which has {count} CUDA devices.",
                hint="Start one process per device, or give --device cpu.",
            )
        names = names[:local_world]
    if names == ["cpu"]:
        return Device(torch.device("cpu"), f"cpu ({torch.get_num_threads()} threads each)")
    if len(names) != local_world:
        raise DeviceError(
            f"Device '{wanted}' names {len(names)} for {local_world} processes on this machine.",
            hint="Leave --device out under torchrun: each process takes the GPU of its number.",
        )
    found = choose_device(names[local_rank])
    if found.fallback:
        raise DeviceError(
            f"Device {names[local_rank]} cannot be one of several: {found.note.partition(' and ')[2]}.",
            hint="Name others with --device; 'holdfast env' lists what is there.",
        )
    return found


def _most_free() -> Device:
    """The CUDA device with most free memory among those that compute, else the CPU."""
    count, reason = _cuda_devices()
    faults = {number: _fault(number) for number in range(count)}
    free = {number: torch.cuda.mem_get_info(number)[0] for number in range(count) if not faults[number]}
    broken = [f"cuda:{number} cannot be used: {fault}" for number, fault in faults.items() if fault]
    if reason:
        broken.append(f"CUDA cannot be used: {reason}")
    if free:
        best = max(free, key=free.__getitem__)
        why = "; ".join([torch.cuda.get_device_name(best) + ", most free memory", *broken])
        return Device(torch.device("cuda", best), f"cuda:{best} ({why})", fallback=bool(broken))
    why = "; ".join(broken) or "no CUDA device found"
    note = f"cpu ({torch.get_num_threads()} threads, {why})"
    return Device(torch.device("cpu"), note, fallback=bool(broken))


def _cuda_devices() -> tuple[int, str]:
    """Number of CUDA devices, and why there is none although this torch could use one."""
    with warnings.catch_warnings(record=True) as caught:  # torch warns of a driver that it cannot use
        warnings.simplefilter("always")
        try:
            count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        except RuntimeError as fault:
            return 0, _first_line(fault)
    return count, "" if count or not caught else _first_line(caught[0].message)


def _fault(number: int) -> str:
    """Why a CUDA device cannot compute, found by a try; empty where it can."""
    try:
        torch.ones(1, device=torch.device("cuda", number)).add_(1).item()
        torch.cuda.mem_get_info(number)
    except (RuntimeError, AssertionError) as fault:
        return _first_line(fault)
    return ""


def compile_fault(device: torch.device) -> str:
    """Why torch.compile cannot be used on a device, found by a try; empty where it can. Takes seconds."""
    twice = torch.compile(lambda x: x * 2 + 1, options={"fx_graph_cache": False})
    try:
        twice(torch.ones(64, device=device))
    except Exception as fault:  # compilers fail in many ways, and none of them may end a run
        return _first_line(fault)
    return ""


def _first_line(message: object) -> str:
    line = str(message).strip().split("\n")[0].split(" (Triggered internally")[0].rstrip(".")
    return line or type(message).__name__


@dataclass(frozen=True)
class Precision:
    """The number format of forward and backward passes.

    Attributes:
        dtype: torch.float32, torch.bfloat16 or torch.float16.
        scale_loss: True when gradients need a loss scaler (float16 only).
        note: one sentence for the start-up block.
    """

    dtype: torch.dtype
    scale_loss: bool
    note: str

    @property
    def mixed(self) -> bool:
        """True when autocast is on."""
        return self.dtype is not torch.float32


def cpu_has_bf16() -> bool:
    """Returns True on CPUs with bfloat16 matrix instructions (AVX512-BF16 or AMX); others emulate it
    slowly.
    """
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore")
    except OSError:
        return False
    words = set(next((line for line in flags.splitlines() if line.startswith("flags")), "").split())
    return bool(words & {"amx_bf16", "avx512_bf16"})


def choose_inference_precision(device: torch.device, half: str | bool) -> Precision:
    """Chooses the format of prediction: `auto` takes bfloat16 on CPUs that have it and float32 elsewhere.

    On such CPUs bfloat16 nearly halves the time of the network, moves boxes by a fraction of a pixel and
    scores by up to a few hundredths.
    """
    if half == "auto":
        half = device.type == "cpu" and cpu_has_bf16()
    return choose_precision(device, amp=bool(half), amp_dtype="auto")


def choose_precision(device: torch.device, *, amp: bool, amp_dtype: str) -> Precision:
    """Chooses the autocast format: bfloat16 where the hardware has it, float16 on older CUDA cards, else
    float32.

    Args:
        amp: False forces float32.
        amp_dtype: `auto`, `bfloat16` or `float16`.

    Raises:
        SettingsError: float16 on a device that cannot train in it.
    """
    if not amp:
        return Precision(torch.float32, False, "float32")
    if device.type == "cuda":
        if amp_dtype == "bfloat16" or (
            amp_dtype == "auto" and torch.cuda.is_bf16_supported(including_emulation=False)
        ):
            return Precision(torch.bfloat16, False, "bfloat16")
        return Precision(
            torch.float16, True, "float16 with loss scaling"
        )
    if amp_dtype == "float16":
        raise SettingsError(
            f"amp_dtype=float16 needs a CUDA device; this run is on {device.type}.",
            hint="Use amp_dtype=bfloat16 or --no-amp.",
        )
    if device.type == "cpu" and (amp_dtype == "bfloat16" or cpu_has_bf16()):
        return Precision(torch.bfloat16, False, "bfloat16, chosen because this CPU has instructions for it")
    return Precision(torch.float32, False, f"float32 (this {device.type} device has no fast bfloat16)")


def narrower_precision(device: torch.device, precision: Precision) -> Precision | None:
    """The format of 16 bits that training can fall back to where float32 does not fit; None where the run has
    one already, or the device has none. Slow on a CPU that only emulates it.
    """
    if precision.mixed or device.type == "mps":
        return None
    if device.type == "cuda":
        return choose_precision(device, amp=True, amp_dtype="auto")
    return Precision(torch.bfloat16, False, "bfloat16")
