"""Every known spelling of an out-of-memory error is recognised, and nothing else is."""

from __future__ import annotations

import errno
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

from holdfast.memory.oom import is_out_of_memory

SPELLINGS = [
    "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 3.94 GiB",
    "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call",
    "HIP out of memory. Tried to allocate 2.00 GiB",
    "MPS backend out of memory (MPS allocated: 8.00 GB, other allocations: 1.00 GB, max allowed: 9.07 GB)",
    "XPU out of memory. Tried to allocate 512.00 MiB",
    "Native API failed. Native API returns: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)",
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
    "allocate 4000000000000000 bytes. Error code 12 (Cannot allocate memory)",
    "[enforce fail at alloc_cpu.cpp:80] DefaultCPUAllocator: not enough memory: you tried to allocate 9 B",
    "unable to mmap 4096 bytes from file </torch_1>: Cannot allocate memory (12)",
    "std::bad_alloc",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "FIND was unable to find an engine to execute this computation",
    "GET was unable to find an engine to execute this computation",
    "RuntimeError: unable to find an engine to execute this computation",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
    "cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`",
    "cuFFT error: CUFFT_ALLOC_FAILED",
    "NCCL Error 1: unhandled cuda error: Cuda failure 2 'out of memory'",
    "could not create a primitive",
    "could not create a memory object",
]

OTHERS = [
    "mat1 and mat2 shapes cannot be multiplied (4x8 and 4x8)",
    "Expected more than 1 value per channel when training, got input size torch.Size([1, 8, 1, 1])",
    "CUDA error: an illegal memory access was encountered",
    "CUDA error: device-side assert triggered",
    "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED after CUDA error: an illegal memory access was encountered",
    "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
    "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasSgemm(handle)`",
    "NCCL Error 1: unhandled cuda error (run with NCCL_DEBUG=INFO for details)",
    "could not create a primitive descriptor for a convolution forward propagation primitive",
    "CUDA error: no kernel image is available for execution on the device",
    "unable to open shared memory object </torch_1> in read-write mode: Too many open files (24)",
    "Tensor on device meta is not on the expected device cpu!",
]


@pytest.mark.parametrize("text", SPELLINGS)
def test_spellings_of_libraries_are_recognised(text: str) -> None:
    assert is_out_of_memory(RuntimeError(text))


@pytest.mark.parametrize("text", OTHERS)
def test_other_failures_do_not_count(text: str) -> None:
    assert not is_out_of_memory(RuntimeError(text))


def test_classes_made_for_it_are_recognised_whatever_they_say() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError(""))
    assert is_out_of_memory(torch.cuda.OutOfMemoryError("allocation failed"))
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(OSError(errno.ENOMEM, "Cannot allocate memory"))
    assert not is_out_of_memory(OSError(errno.ENOSPC, "No space left on device, out of memory"))


def test_libraries_that_really_fail_to_allocate_are_recognised() -> None:
    with pytest.raises(RuntimeError) as by_torch:
        torch.empty(2**60)
    with pytest.raises(MemoryError) as by_numpy:
        np.empty(2**50)
    with pytest.raises(cv2.error) as by_opencv:
        cv2.resize(np.zeros((8, 8, 3), np.uint8), (2**20, 2**20))
    assert all(is_out_of_memory(caught.value) for caught in (by_torch, by_numpy, by_opencv))


def test_a_convolution_stopped_by_a_limit_of_the_system_is_recognised() -> None:
    """With torch on oneDNN the error is "could not create a primitive" or the allocator's, as it happens."""
    pytest.importorskip("resource")
    script = """if True:
        import resource, torch
        from holdfast.memory.oom import is_out_of_memory
        torch.set_num_threads(1)
        layer = torch.nn.Conv2d(64, 64, 3)
        layer(torch.zeros(1, 64, 32, 32)).sum().backward()
        for extra in range(0, 64, 2):
            x = torch.zeros(1, 64, 256, 256)
            size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (size + extra * 2**20, -1))
            try:
                layer(x).sum().backward()
            except RuntimeError as error:
                print(is_out_of_memory(error), error)
            resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
    """
    if not sys.platform.startswith("linux"):
        pytest.skip("address-space limits are a matter of Linux")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines
    assert all(line.startswith("True") for line in lines)


def test_the_error_behind_an_error_counts() -> None:
    def fail(how: str) -> None:
        try:
            raise MemoryError
        except MemoryError as inner:
            if how == "from":
                raise ValueError("the batch could not be built") from inner
            if how == "from None":
                raise ValueError("the batch could not be built") from None
            raise ValueError("the batch could not be built")  # noqa: B904 - while handling, on purpose

    for how, counts in (("from", True), ("while handling", True), ("from None", False)):
        with pytest.raises(ValueError, match="batch") as caught:
            fail(how)
        assert is_out_of_memory(caught.value) is counts


def test_a_chain_that_closes_on_itself_ends() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert not is_out_of_memory(first)


def test_ctrl_c_during_a_failure_is_ctrl_c() -> None:
    stopped = KeyboardInterrupt()
    stopped.__context__ = MemoryError()
    assert not is_out_of_memory(stopped)


def test_somebodys_sentence_about_memory_does_not_count() -> None:
    assert not is_out_of_memory(ValueError("cache=ram would run out of memory"))
