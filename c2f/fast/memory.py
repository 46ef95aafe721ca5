"""Freed memory stays with the process, so that the next tensor need not be made of pages that are new and all zero.

On a CPU PyTorch asks malloc for every tensor. glibc's gives a large block back to Linux when it is freed, and Linux
fills its pages with zeros before it lends them again, one fault for each 4 KiB: in an inference pass of
`conv2former_n_cifar` a third of the time. PyTorch's tuning guide advises another allocator for this
(https://docs.pytorch.org/tutorials/recipes/recipes/tuning_guide.html); glibc's own can be told as well, by mallopt(3).
"""

import contextlib
import ctypes
import threading
from collections.abc import Iterator
from functools import cache

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # parameters of mallopt, from malloc.h
MMAP_THRESHOLD = 32 * 2**20  # what glibc itself comes to where large blocks are freed; it trims at twice that

_lock = threading.Lock()
_inside = 0  # how many `keep_memory` there are now, of all threads


@contextlib.contextmanager
def keep_memory(device: torch.device | str = "cpu") -> Iterator[None]:
    """Inside, what is freed on a CPU waits for the next tensors; at the end it goes back to the system.

    The results are the same, and the process is as large as at its largest moment until the end. Can be nested, and
    used as a decorator. Does nothing for other devices, and where the C library is not glibc.
    """
    global _inside
    libc = _glibc() if torch.device(device).type == "cpu" else None
    if libc is None:
        yield
        return
    with _lock:
        _inside += 1
        if _inside == 1:
            libc.mallopt(M_MMAP_THRESHOLD, 2**30)
            libc.mallopt(M_TRIM_THRESHOLD, -1)  # never
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                libc.mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD)
                libc.mallopt(M_TRIM_THRESHOLD, 2 * MMAP_THRESHOLD)
                libc.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 - raises AttributeError where another library answers
    except (AttributeError, TypeError, OSError):  # TypeError: Windows
        return None
    return libc
