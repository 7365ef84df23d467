"""training/train.py with a model in shards on CPUs, which accelerate itself only offers on accelerators."""

import sys
from pathlib import Path

from accelerate.state import AcceleratorState, DistributedType

sys.path.insert(0, str(Path(__file__).parents[2]))
from training.train import main

initialise = AcceleratorState.__init__


def initialise_with_shards(self, *args, fsdp_plugin=None, **kwargs):
    initialise(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    plugin = fsdp_plugin or self.__dict__.get("fsdp_plugin")
    if plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, plugin


AcceleratorState.__init__ = initialise_with_shards
main(sys.argv[1:])
