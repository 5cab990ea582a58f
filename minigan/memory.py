"""Floor 0: let the C library keep the memory that arrays give back.

glibc hands a large block that is freed back to the kernel at once, and the next array of that size
gets fresh pages: a page fault, and 4 kB of zeros written, for every 4 kB of it. In a training step,
which makes the same arrays each time, that is a fifth of the time. Two settings of malloc(3) keep
freed memory in the process instead. MINIGAN_KEEP_MEMORY=0 leaves malloc as it was.
"""

import ctypes
import os

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # <malloc.h>
LARGEST = (1 << 31) - 1  # an int: bytes


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed memory; return whether it did (elsewhere there is nothing to tell).

    The process then stays as large as it ever was, which is no more than it needs each step.
    """
    if os.environ.get("MINIGAN_KEEP_MEMORY") == "0":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
    return all([mallopt(M_MMAP_THRESHOLD, LARGEST), mallopt(M_TRIM_THRESHOLD, LARGEST)])
