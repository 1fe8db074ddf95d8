"""How much of what was freed glibc keeps, after its mallopt(3). Other C libraries are left alone.

Left to itself glibc has an arena for each thread, up to eight a core, and what is free in one is of
no use to the others. And each freed block that is larger than those before raises the size from
which on blocks go straight back to the system, up to 32 MiB, and what may stay free at the end of
an arena, up to twice that: after a few large answers a daemon looks as if it leaked.
"""

import ctypes
import os

__all__ = ["keep_little"]

# By the environment variable in which a person may set it: the number in malloc.h, and our value.
_PARAMETERS = {
    "MALLOC_ARENA_MAX": (-8, 2),  # Python's threads take turns as it is
    # Those that glibc starts with. Once they are set, nothing raises them.
    "MALLOC_MMAP_THRESHOLD_": (-3, 128 * 1024),
    "MALLOC_TRIM_THRESHOLD_": (-1, 128 * 1024),
}


def keep_little() -> bool:
    """Let this process keep little of what it frees; False when its C library took none of it.

    What the environment sets stays. For the start of a daemon: arenas that are there stay, too.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    wanted = [values for name, values in _PARAMETERS.items() if name not in os.environ]
    # In a list: what is refused keeps none of the others back.
    return all([mallopt(number, value) == 1 for number, value in wanted])
