"""Device and precision choice: what was asked, what is there, and the sentence that says so."""

from __future__ import annotations

import warnings

import pytest
import torch

from holdfast.devices import Device, choose_device, choose_device_of_rank, choose_precision
from holdfast.errors import DeviceError, SettingsError
from holdfast.settings import TrainSettings

CPU = torch.device("cpu")


def test_a_missing_gpu_falls_back_to_the_cpu_and_says_so() -> None:
    absent = str(torch.cuda.device_count() + 7)
    choice = choose_device(absent)
    assert (choice.device, choice.fallback) == (CPU, True)
    assert f"device {absent} was asked for" in choice.note


@pytest.mark.parametrize("given", ["0", 0, [0], "cuda:0", "cuda", torch.device("cuda:0")])
def test_every_spelling_of_the_first_gpu_means_it(given: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    choice = choose_device(TrainSettings(device=given).device)
    assert choice.note == "cpu, because device 0 was asked for and this machine has no CUDA device"


@pytest.mark.parametrize("given", ["0,1", [0, 1], (0, 1), "cuda:0,1"])
def test_several_devices_are_refused_in_one_sentence(given: object) -> None:
    with pytest.raises(DeviceError, match=r"several devices, and only training runs on several\. Name one"):
        choose_device(TrainSettings(device=given).device)


def test_ranks_on_the_cpu_and_devices_are_counted() -> None:
    assert TrainSettings(device=[0, 2]).processes == 2
    assert TrainSettings(device="cuda:0,1,3").processes == 3
    assert TrainSettings(device="cpu", ranks=4).processes == 4
    assert TrainSettings().processes == 1
    with pytest.raises(SettingsError, match="ranks=2 is for device=cpu; name the GPUs"):
        TrainSettings(ranks=2)
    with pytest.raises(SettingsError, match="names 1 twice"):
        TrainSettings(device="1,1")


class Driver:
    """Stands in for torch.cuda on a machine whose GPUs are as told: free memory, or a fault."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, gpus: list[int | str]) -> None:
        self.gpus = gpus
        self.ones = torch.ones
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(gpus))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: f"card {number}")
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda number: (gpus[number], 99))
        monkeypatch.setattr(torch, "ones", self.compute)

    def compute(self, size: int, *, device: torch.device) -> torch.Tensor:
        state = self.gpus[device.index]
        if isinstance(state, str):
            raise RuntimeError(state)
        return self.ones(size)


def test_a_gpu_that_cannot_compute_is_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    Driver(monkeypatch, ["CUDA error: out of memory\nCompile with TORCH_USE_CUDA_DSA", 5, 7])
    asked = choose_device("0")
    assert (asked.device, asked.fallback) == (CPU, True)
    assert asked.note.endswith("device 0 was asked for and it cannot be used: CUDA error: out of memory")
    chosen = choose_device("")
    assert (chosen.device, chosen.fallback) == (torch.device("cuda", 2), True)
    assert chosen.note == (
        "cuda:2 (card 2, most free memory; cuda:0 cannot be used: CUDA error: out of memory)"
    )
    assert choose_device("1") == Device(torch.device("cuda", 1), "cuda:1 (card 1)")
    assert choose_device("3").note.endswith("this machine has only 3 CUDA devices")


def test_a_driver_that_torch_cannot_use_is_one_sentence_and_no_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unusable() -> bool:
        warnings.warn(
            "CUDA initialization: The NVIDIA driver on your system is too old (found version 11040). "
            "(Triggered internally at CUDAFunctions.cpp:109.)", stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", unusable)
    for given in ("0", ""):
        choice = choose_device(given)
        assert (choice.device, choice.fallback) == (CPU, True)
        assert "CUDA cannot be used: CUDA initialization: The NVIDIA driver on your" in choice.note
        assert "internally" not in choice.note


def test_a_driver_that_raises_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def raises() -> bool:
        raise RuntimeError("No CUDA GPUs are available")

    monkeypatch.setattr(torch.cuda, "is_available", raises)
    assert "CUDA cannot be used: No CUDA GPUs are available" in choose_device("").note


@pytest.mark.parametrize("text", ["0,1", "gpu", "cuda:x", "-1"])
def test_text_that_names_no_single_device_is_refused(text: str) -> None:
    with pytest.raises(DeviceError, match=f"'{text}'"):
        choose_device(text)


def test_cpu_is_cpu() -> None:
    assert choose_device("cpu").device == CPU
    assert choose_device("CPU").device == CPU


def test_mixed_precision_can_be_switched_off_and_forced_on_the_cpu() -> None:
    assert choose_precision(CPU, amp=False, amp_dtype="auto").dtype is torch.float32
    forced = choose_precision(CPU, amp=True, amp_dtype="bfloat16")
    assert (forced.dtype, forced.scale_loss, forced.mixed) == (torch.bfloat16, False, True)


def test_float16_on_the_cpu_is_refused() -> None:
    with pytest.raises(SettingsError, match="float16"):
        choose_precision(CPU, amp=True, amp_dtype="float16")


def test_each_rank_takes_the_device_of_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    Driver(monkeypatch, [5, 7, "CUDA error: broken"])
    chosen = [choose_device_of_rank("", local_rank=rank, local_world=2).device for rank in range(2)]
    assert chosen == [torch.device("cuda:0"), torch.device("cuda:1")]
    assert choose_device_of_rank("1,0", local_rank=0, local_world=2).device == torch.device("cuda:1")
    assert choose_device_of_rank("cpu", local_rank=1, local_world=2).device == CPU
    with pytest.raises(DeviceError, match=r"Device 2 cannot be one of several: it cannot be used: CUDA"):
        choose_device_of_rank("0,2", local_rank=1, local_world=2)
    with pytest.raises(DeviceError, match="names 1 for 2 processes"):
        choose_device_of_rank("0", local_rank=0, local_world=2)
    with pytest.raises(DeviceError, match="4 processes were started on this machine, which has 3"):
        choose_device_of_rank("", local_rank=0, local_world=4)


def test_ranks_without_a_gpu_share_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    choice = choose_device_of_rank("", local_rank=1, local_world=2)
    assert (choice.device, choice.fallback) == (CPU, False)
