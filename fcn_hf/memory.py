"""What becomes of the memory of tensors that are gone: choices of the GNU C library, for commands and for servers.

Other C libraries have no such switches; nothing is done there.
"""

import ctypes
from typing import Any

# mallopt's names in malloc.h of the GNU C library, and what they are set to.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
NEVER, STEP = 2**31 - 1, 2**26


def keep_freed_memory() -> None:
    """Let this process keep freed memory for the tensors that come.

    The library hands large blocks back to the system and gets them anew for the next feature map, page by page: much of
    a small net's time, and of its training's. A process then stays as large as it was at its largest, and with pictures
    of ever other sizes it grows: it is for commands that end, not for servers.
    """
    mallopt = _function("mallopt")
    if mallopt:
        for parameter, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, NEVER), (M_TOP_PAD, STEP)):
            mallopt(parameter, value)


def hand_back_freed_memory() -> None:
    """Give freed memory back to the system, now.

    The library keeps blocks of up to 32 MB, and those that pictures of ever other sizes leave behind don't fit the next
    ones: for servers, once in a while.
    """
    malloc_trim = _function("malloc_trim")
    if malloc_trim:
        malloc_trim(0)


def _function(name: str) -> Any:
    try:
        return getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):
        return None
