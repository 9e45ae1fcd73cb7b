"""Device and precision choice: what was asked, what is there, and the sentence that says so."""

from __future__ import annotations

import pytest
import torch

from holdfast.devices import choose_device, choose_precision
from holdfast.errors import DeviceError, SettingsError

CPU = torch.device("cpu")


def test_a_missing_gpu_falls_back_to_the_cpu_and_says_so() -> None:
    absent = str(torch.cuda.device_count() + 7)
    choice = choose_device(absent)
    assert choice.device == CPU
    assert f"device {absent} was asked for" in choice.note


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
