"""Commands under torchrun."""

import multiprocessing
import os

import datasets
import numpy as np
from PIL import Image

from tests.helpers import free_port, run, save_tiny


def save_rows(folder, wrong_row=None):
    """Five pictures of several sizes, of which the last part has more than the first; one may have an unknown id."""
    generator = np.random.default_rng(0)
    pictures = [generator.integers(0, 256, (30 + i, 40, 3), dtype=np.uint8) for i in range(5)]
    labels = [generator.integers(0, 5, (30 + i, 40), dtype=np.uint8) for i in range(5)]
    if wrong_row is not None:
        labels[wrong_row][0, 0] = 9
    rows = {"image": list(map(Image.fromarray, pictures)), "label": list(map(Image.fromarray, labels))}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Image()})
    folder.mkdir()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / "validation.parquet")
    return folder


def run_as(rank, port, arguments, results):
    """What torchrun does for one of two processes."""
    os.environ |= {"WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    result = run(*arguments)
    results.put((rank, result.exit_code, result.stdout, result.stderr))


def test_processes_that_share_the_rows_write_the_scores_of_one(tmp_path):
    model, data = save_tiny(tmp_path / "model"), save_rows(tmp_path / "data")
    arguments = ("evaluate", "--model", model, "--dataset", data, "--boundary", "--json")
    alone = run(*arguments, tmp_path / "alone.json")
    assert alone.exit_code == 0, alone.output
    results = run_in_two((*arguments, tmp_path / "together.json"))
    assert [result[1] for result in results] == [0, 0], results
    assert (tmp_path / "together.json").read_text() == (tmp_path / "alone.json").read_text()
    assert results[0][2] == alone.stdout and results[1][2] == ""

    wrong = save_rows(tmp_path / "wrong", wrong_row=3)
    results = run_in_two(("evaluate", "--model", model, "--dataset", wrong, "--json", tmp_path / "wrong.json"), wait=1)
    assert results[0][:2] == (1, 1) and "Row 3: label 9 is outside 0..4" in results[0][3]
    assert not (tmp_path / "wrong.json").exists()
    results = run_in_two((*arguments, tmp_path / "no.json", "--per-image", tmp_path / "p.csv"))
    assert all(code == 1 and "leave them out, or torchrun" in error for _, code, _, error in results)


def run_in_two(arguments, wait=2):
    """Rank, status, stdout and stderr of the first `wait` of two processes that end, by rank."""
    # Forked, because fresh interpreters would take ten seconds to import torch.
    context = multiprocessing.get_context("fork")
    queue, port = context.Queue(), free_port()
    processes = [context.Process(target=run_as, args=(rank, port, arguments, queue)) for rank in range(2)]
    for process in processes:
        process.start()
    try:
        return sorted(queue.get(timeout=120) for _ in range(wait))
    finally:
        for process in processes:
            process.join(timeout=10 if wait == 2 else 0)
            process.kill()
