"""Keeps freed memory in the process: both frameworks allocate and free large tensors all the time on a CPU."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of <malloc.h>


def keep_freed_memory() -> None:
    """Tells glibc's malloc to reuse large blocks instead of handing them back to the system after every use.

    By default each tensor above 32 MiB at most is mapped anew and its pages zeroed on first touch; elementwise passes
    (fake quantization above all) then wait for page faults more than for memory. Elsewhere than on glibc nothing is
    changed. The process's peak memory stays the same; what it frees stays with it.
    """
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return
    library.mallopt(_MMAP_THRESHOLD, 1 << 30)
    library.mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)
