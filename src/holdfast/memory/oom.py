"""Which errors mean that memory ran out.

Only some say so. cuDNN and cuBLAS report that they could not be set up or found no way to compute, and oneDNN
that it "could not create a primitive": that is all a CPU run says when an address-space limit stops it inside
a convolution. Words are looked for only in the kinds of errors that such libraries raise, so that a sentence
of somebody else about memory is not taken for one.
"""

from __future__ import annotations

import errno
import re

_SAID = re.compile(
    r"out[ _]of[ _](?:\w+[ _])?memory"  # CUDA, HIP, MPS, XPU, NCCL, OpenCL and their status names
    r"|can(?:'t|not) allocate memory"
    r"|not enough memory: you tried to allocate"
    r"|enforce fail at alloc_cpu\.cpp"
    r"|std::bad_alloc|bad allocation"
    r"|insufficient memory|failed to allocate \d+ bytes"  # OpenCV
    r"|unable to allocate .* for an array with shape",  # numpy, where it was turned into text
    re.IGNORECASE,
)
_DISGUISED = re.compile(
    r"\bCU[A-Z]+_(?:STATUS_)?ALLOC_FAILED"  # cuBLAS, cuDNN, cuSOLVER, cuSPARSE, cuFFT
    r"|CUDNN_STATUS_NOT_INITIALIZED"
    r"|CUDNN_STATUS_INTERNAL_ERROR_(?:HOST|DEVICE)_ALLOCATION_FAILED"
    r"|CUBLAS_STATUS_NOT_INITIALIZED\W+when calling `?cublasCreate"
    r"|unable to find an engine to execute this computation"
    r"|could not create a (?:primitive|memory object)$",
    re.MULTILINE,
)
_BROKEN = re.compile(r"illegal memory access|device-side assert", re.IGNORECASE)


def is_out_of_memory(error: BaseException) -> bool:
    """Tells whether an error, or one that led to it, means that memory ran out.

    Args:
        error: what was caught. Errors that it was raised `from`, or while handling, count as well.

    Returns:
        True where less memory could help. False for everything that is no `Exception` (Ctrl-C, exit), and
        for a CUDA context that is broken, because nothing can be repeated there.
    """
    seen: set[int] = set()
    current: BaseException | None = error
    while isinstance(current, Exception) and id(current) not in seen:
        seen.add(id(current))
        if _ran_out(current):
            return True
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return False


def _ran_out(error: Exception) -> bool:
    if isinstance(error, MemoryError):  # numpy's is one
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if not isinstance(error, RuntimeError) and type(error).__module__ != "cv2":
        return False
    text = str(error)
    if _BROKEN.search(text):
        return False
    return type(error).__name__ == "OutOfMemoryError" or bool(_SAID.search(text) or _DISGUISED.search(text))
