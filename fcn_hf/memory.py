"""What becomes of the memory of tensors that are gone: choices of the GNU C library, for commands and for servers.

Other C libraries have no such switches; nothing is done there.
"""

import ctypes
from typing import Any

# mallopt's parameters in malloc.h of the GNU C library, what they are set to, and what they are by themselves.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
NEVER, STEP = 2**31 - 1, 2**26
USUAL_SPARE, USUAL_MMAP_MAX = 2**17, 2**16


def keep_freed_memory() -> None:
    """Let this process keep freed memory for the tensors that come.

    The library hands large blocks back to the system and gets them anew for the next feature map, page by page: much of
    a small net's time, and of its training's. A process then stays as large as it was at its largest, and with pictures
    of ever other sizes it grows: it is for commands that end, not for servers.
    """
    _set({M_MMAP_MAX: 0, M_TRIM_THRESHOLD: NEVER, M_TOP_PAD: STEP})


def spare_memory() -> None:
    """The opposite of `keep_freed_memory`, from now on: for what barely fits, at the cost of time."""
    _set({M_MMAP_MAX: USUAL_MMAP_MAX, M_TRIM_THRESHOLD: USUAL_SPARE, M_TOP_PAD: USUAL_SPARE})
    hand_back_freed_memory()


def hand_back_freed_memory() -> None:
    """Give freed memory back to the system, now.

    The library keeps blocks of up to 32 MB, and those that pictures of ever other sizes leave behind don't fit the next
    ones: for servers, once in a while.
    """
    malloc_trim = _function("malloc_trim")
    if malloc_trim:
        malloc_trim(0)


def _set(parameters: dict[int, int]) -> None:
    mallopt = _function("mallopt")
    if mallopt:
        for parameter, value in parameters.items():
            mallopt(parameter, value)


def _function(name: str) -> Any:
    try:
        return getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):
        return None
