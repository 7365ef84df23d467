"""Masks of a dataset's split, on one machine and on Ray."""

import os
import signal
import subprocess
import sys
import threading
import time

import datasets
import numpy as np
import pytest
from PIL import Image

from fcn_hf import FCNForSemanticSegmentation, FCNImageProcessor, predict
from fcn_hf.errors import FCNError
from fcn_hf.files import ASIDE
from fcn_hf.kept_parts import MADE_OF
from fcn_hf.shards import SegmentationJob, ShardWriter, begin
from tests.helpers import run, save_tiny

IMAGE = datasets.Features({"image": datasets.Image()})


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("models") / "model")


def save_pictures(folder, count, size=40):
    """A dataset of pictures of three sizes, without labels."""
    generator = np.random.default_rng(0)
    pictures = [generator.integers(0, 256, (size + i % 3, size, 3), dtype=np.uint8) for i in range(count)]
    rows = datasets.Dataset.from_dict({"image": [Image.fromarray(picture) for picture in pictures]}, features=IMAGE)
    folder.mkdir()
    rows.to_parquet(folder / "train.parquet")
    return folder, pictures


def shards(out):
    return sorted(path.name for path in out.glob("rows-*.parquet"))


def written_at(out):
    return {name: (out / name).stat().st_mtime_ns for name in shards(out)}


def masks(out):
    """Class ids by row, None where a row has none; no row is there twice."""
    rows = datasets.load_dataset(str(out), split="train", cache_dir=str(out.parent / f"cache-{time.time_ns()}"))
    assert sorted(rows["row"]) == list(range(len(rows)))
    return {row["row"]: None if row["label"] is None else np.asarray(row["label"]) for row in rows}


def test_every_row_has_the_label_map_that_predict_gives(model, tmp_path):
    folder, pictures = save_pictures(tmp_path / "data", 7)
    rows = datasets.Dataset.from_parquet(str(folder / "train.parquet")).cast_column(
        "image", datasets.Image(decode=False)
    )
    broken = rows.to_list()
    broken[4]["image"]["bytes"] = broken[4]["image"]["bytes"][:300]
    datasets.Dataset.from_list(broken, features=IMAGE).to_parquet(folder / "train.parquet")
    arguments = ("segment", "--dataset", folder, "--model", model, "--shard-rows", 3, "--out")
    result = run(*arguments, tmp_path / "out")
    assert (
        result.exit_code == 1 and "Row 4 can't be read" in result.stderr and "1 of 7 rows have no mask" in result.stderr
    )
    names = ["rows-000000000-000000003", "rows-000000003-000000006", "rows-000000006-000000007"]
    assert shards(tmp_path / "out") == [f"{name}.parquet" for name in names]
    found = masks(tmp_path / "out")
    net, processor = FCNForSemanticSegmentation.from_pretrained(model).eval(), FCNImageProcessor()
    for number, picture in enumerate(pictures):
        if number == 4:
            assert found[number] is None
        else:
            np.testing.assert_array_equal(found[number], predict(net, processor, Image.fromarray(picture)))

    # What is there stays, what is not is made, and a row without a mask is told of once more.
    (tmp_path / "out" / f"{names[0]}.parquet").unlink()
    before = written_at(tmp_path / "out")
    again = run(*arguments, tmp_path / "out")
    assert again.exit_code == 1 and "Row 4" not in again.stderr and "1 of 7 rows have no mask" in again.stderr
    assert len(masks(tmp_path / "out")) == 7
    assert before.items() <= written_at(tmp_path / "out").items()

    other = run(*arguments, tmp_path / "out", "--mirror")
    assert other.exit_code == 1 and "made of something else (other mode)" in other.stderr
    assert run(*arguments, tmp_path).exit_code == 1 and not shards(tmp_path)
    with pytest.raises(FCNError, match="all machines need them"):
        from fcn_hf.shards_on_ray import Worker

        Worker(SegmentationJob(str(folder), "train", str(model), tmp_path / "not shared", 3))


def test_pictures_of_one_size_go_through_the_net_together(model, tmp_path, monkeypatch):
    folder, _ = save_pictures(tmp_path / "data", 8)
    alone, together = (
        ShardWriter(SegmentationJob(str(folder), "train", str(model), tmp_path / name))
        for name in ("alone", "together")
    )
    together.batch_size = 2
    batches = []

    def look(model, processor, pictures, mode):
        batches.append(len(pictures))
        if len(pictures) > 1 and len(batches) == 1:
            raise RuntimeError("out of memory")
        return predict_batch(model, processor, pictures, mode)

    from fcn_hf.shards import predict_batch

    monkeypatch.setattr("fcn_hf.shards.predict_batch", look)
    assert together.write(range(8)) == []
    assert sorted(batches) == [1, 1, 1, 1, 2, 2, 2], "a batch that fails is made one by one"
    assert alone.write(range(8)) == []
    expected, found = masks(tmp_path / "alone"), masks(tmp_path / "together")
    assert all((found[number] == expected[number]).all() for number in expected)


def test_a_folder_goes_on_after_a_kill_and_refuses_other_pictures_under_the_same_names(model, tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / "data" / folder).mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / "data" / folder / "a.png")
    job = SegmentationJob(str(tmp_path / "data"), "train", str(model), tmp_path / "out")
    (tmp_path / "out" / f"{ASIDE}left").mkdir(parents=True)
    assert begin(job)[1] == begin(job)[1] == [range(0, 1)]
    Image.new("L", (9, 9), 200).save(tmp_path / "data" / "images" / "a.png")
    with pytest.raises(FCNError, match="made of something else .other files"):
        begin(job)
    (tmp_path / "out" / MADE_OF).write_text("[]")
    with pytest.raises(FCNError, match="has files in it that are no masks"):
        begin(job)


def test_one_source_at_a_time_and_its_own_options(tmp_path):
    for arguments, message in [
        ((), "one of them"),
        (("a.jpg", "--dataset", "d"), "one of them"),
        (("--dataset", "d", "--tile"), "--tile is for pictures"),
        (("a.mp4", "--tile"), "--tile is for pictures"),
        (("a.jpg", "--opacity", "0.5"), "--opacity is for films"),
        (("a.jpg", "--engine", "ray"), "--engine is for --dataset"),
    ]:
        result = run("segment", *arguments, "--model", "m", "--out", tmp_path / "out")
        assert result.exit_code == 1 and message in result.stderr and result.stderr.count("\n") == 1


def test_ray_loses_no_row_when_a_worker_or_the_command_is_killed(model, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    psutil = pytest.importorskip("psutil")
    from fcn_hf.shards_on_ray import CORES_A_WORKER

    folder, _ = save_pictures(tmp_path / "data", 60, size=150)
    arguments = ("segment", "--dataset", folder, "--model", model, "--shard-rows", 1, "--out")
    assert run(*arguments, tmp_path / "alone").exit_code == 0
    out = tmp_path / "out"

    def wait_for(count):
        deadline = time.monotonic() + 240
        while len(shards(out)) < count:
            assert time.monotonic() < deadline, "workers write nothing"
            time.sleep(0.005)

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    # Two workers' worth of cores, whatever this machine has.
    ray.init(num_cpus=2 * CORES_A_WORKER, include_dashboard=False, log_to_driver=False)
    try:
        monkeypatch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
        # A process of its own from the start: what is forked isn't let into the cluster.
        parts = [sys.executable, "-m", "fcn_hf.cli", *map(str, arguments), str(out), "--engine", "ray"]
        with subprocess.Popen(parts, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as command:
            try:
                wait_for(1)
            finally:
                command.kill()
        done = len(shards(out))
        assert 0 < done < 60

        def kill_a_worker():
            wait_for(done + 3)
            workers = [process for process in psutil.Process().children(recursive=True) if is_worker(process)]
            killed.append(workers[0].pid)
            os.kill(workers[0].pid, signal.SIGKILL)

        killed = []
        killer = threading.Thread(target=kill_a_worker)
        killer.start()
        result = run(*arguments, out, "--engine", "ray")
        killer.join()
        assert result.exit_code == 0 and len(killed) == 1, result.output
    finally:
        ray.shutdown()
    expected, found = masks(tmp_path / "alone"), masks(out)
    assert len(found) == 60 and all((found[number] == expected[number]).all() for number in expected)


def is_worker(process):
    return "Worker)" in " ".join(process.cmdline())
