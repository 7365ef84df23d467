"""Shards written by many processes, of one machine or many, by Ray Data."""

import logging
import os
from collections.abc import Iterator, Sequence
from typing import Any

from .errors import FCNError
from .kept_parts import made_of
from .shards import SegmentationJob, ShardWriter

CORES_A_WORKER = 4
"""Of a worker where there are no GPUs; each worker holds the model once."""


class Worker:
    """A writer of shards in a process of its own, to which Ray Data gives ranges of rows.

    Raises:
        `FCNError`: if this machine has another model or dataset, or not the folder for the shards.
    """

    def __init__(self, job: SegmentationJob):
        self.writer = ShardWriter(job)
        if made_of(job.out) != self.writer.facts:
            raise FCNError(
                f"A worker's {job.out}, model or dataset isn't the one that the command was given; all machines need "
                "them, as from a disk that they share or from the Hub."
            )

    def __call__(self, shards: dict[str, Any]) -> dict[str, list[list[str]]]:
        ranges = zip(shards["start"].tolist(), shards["stop"].tolist(), strict=True)
        return {"errors": [self.writer.write(range(start, stop)) for start, stop in ranges]}


def write_on_ray(job: SegmentationJob, shards: Sequence[range]) -> Iterator[list[str]]:
    """Write shards on the Ray cluster that this process is part of (`RAY_ADDRESS`), or on this machine's cores.

    Each worker has a GPU or, where there is none, four cores. The shards of a worker that dies go to another one.

    Returns:
        What `ShardWriter.write` gives, for one shard after another, in the order in which they are done.

    Raises:
        `ImportError`: if Ray isn't installed.
        `FCNError`: if workers can't do their work.
    """
    # Nothing calls out unless the user has it so.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ImportError("--engine ray needs Ray: pip install 'fcn-hf[ray]'.") from error
    if not ray.is_initialized():
        ray.init(log_to_driver=False, logging_level=logging.WARNING)
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    ray.data.DataContext.get_current().enable_progress_bars = False
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus, cores = ([int(each.get(what, 0)) for each in machines] for what in ("GPU", "CPU"))
    # A worker is on one machine: it asks for no more cores than the largest one has.
    needs: dict[str, Any] = {"num_gpus": 1} if any(gpus) else {"num_cpus": max(1, min(CORES_A_WORKER, max(cores)))}
    workers = sum(gpus) or sum(each // needs["num_cpus"] for each in cores)
    ranges = [{"start": rows.start, "stop": rows.stop} for rows in shards]
    written = ray.data.from_items(ranges, override_num_blocks=len(ranges)).map_batches(
        Worker,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=max(1, min(len(shards), workers))),
        fn_constructor_args=(job,),
        **needs,
    )
    try:
        for shard in written.iter_rows():
            yield list(shard["errors"])
    except ray.exceptions.RayError as error:
        cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else error
        said = str(cause).strip().splitlines() or [type(cause).__name__]
        raise FCNError(f"Workers of Ray failed: {said[-1]}") from error
