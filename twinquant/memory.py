"""Keeps freed memory in the process, or hands it back: both are up to glibc's malloc."""

import contextlib
import ctypes
import gc
import sys
from collections.abc import Iterator

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of <malloc.h>
_largest_kept = 1 << 25  # blocks below are kept for reuse: 32 MiB, where glibc's own adaptation ends


def keep_freed_memory() -> None:
    """Tells glibc's malloc to reuse large blocks instead of handing them back to the system after every use.

    Both frameworks allocate and free large tensors all the time on a CPU. By default each tensor above 32 MiB at most
    is mapped anew and its pages zeroed on first touch; elementwise passes (fake quantization above all) then wait for
    page faults more than for memory. Elsewhere than on glibc nothing is changed. The peak memory of the process stays
    the same; what it frees stays with it.
    """
    global _largest_kept
    library = _glibc()
    if library is not None:
        _largest_kept = 1 << 30
        library.mallopt(_MMAP_THRESHOLD, _largest_kept)
        library.mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)


@contextlib.contextmanager
def large_blocks_freed_at_once() -> Iterator[None]:
    """While something is loaded: large blocks that it needs meanwhile are mapped apart, and go back when it frees them.

    By default glibc keeps blocks of up to 32 MiB for reuse once the process has freed one of that size.
    """
    library = _glibc()
    if library is None:
        yield
        return
    library.mallopt(_MMAP_THRESHOLD, 1 << 17)
    try:
        yield
    finally:
        library.mallopt(_MMAP_THRESHOLD, _largest_kept)


def release_freed_memory() -> None:
    """Hands back to the system what objects that nobody refers to any more have left, before something else is loaded.

    glibc keeps most of it by itself, so that what is loaded one after the other adds up. Elsewhere only the objects are
    collected.
    """
    gc.collect()
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None
