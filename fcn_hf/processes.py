"""One command in several processes, as torchrun starts them."""

import atexit
import os

import torch
from torch import distributed


def join_processes() -> tuple[int, int]:
    """Meet the other processes of a `torchrun`; each has an accelerator of its own, where there are several.

    Returns:
        The number of this process, from 0, and how many there are: (0, 1) outside of `torchrun`.
    """
    count = int(os.environ.get("WORLD_SIZE", 1))
    if count == 1:
        return 0, 1
    if torch.accelerator.is_available():
        torch.accelerator.set_device_index(int(os.environ["LOCAL_RANK"]) % torch.accelerator.device_count())
    # Counts are added on the CPU, whatever computes.
    distributed.init_process_group("gloo")
    atexit.register(distributed.destroy_process_group)
    return distributed.get_rank(), count
