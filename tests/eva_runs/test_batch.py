"""Shards that are computed exactly once, whatever dies; and memory that does not grow."""

import contextlib
import io
import json
import os
import random
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import fsspec
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from eva_data.records import plan_records, read_shard
from eva_runs.batch import run_shards
from eva_runs.errors import TooManyUnreadableError
from eva_runs.interruption import StopSignal
from eva_runs.shard_workers import Outcome
from eva_runs.shards import merge_parts, read_manifest, summarise, write_manifest

PROGRAM = Path(__file__).with_name("batch_program.py")
CLUSTER = """
import sys
from ray.cluster_utils import Cluster
head = {"num_cpus": 4, "node_ip_address": "127.0.0.1", "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args=head)
node = cluster.add_node(num_cpus=4)
print(cluster.address, flush=True)
sys.stdin.readline()
cluster.remove_node(node, allow_graceful=False)
print("gone", flush=True)
sys.stdin.readline()
cluster.shutdown()
"""


@pytest.fixture(scope="session")
def program(load_module):
    return load_module(PROGRAM)


def encoded(*color):
    stream = io.BytesIO()
    Image.new("RGB", (2, 2), color).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def table(tmp_path):
    """Function: a Parquet file of tiny images; of `bad` rows the content is no image."""

    def write(count, bad=(), red=()):
        images = [encoded(0, index % 256, 7) for index in range(256)]
        bad, red = {*bad}, {*red}
        schema = pa.schema({"image": pa.binary()})
        with pq.ParquetWriter(tmp_path / "images.parquet", schema) as writer:
            for start in range(0, count, 2000):
                rows = range(start, min(start + 2000, count))
                cells = [b"bad" if row in bad else images[row % 256] for row in rows]
                cells = [
                    encoded(255, 0, 0) if r in red else c for r, c in zip(rows, cells, strict=True)
                ]
                writer.write_table(pa.table({"image": cells}, schema))
        return tmp_path / "images.parquet"

    return write


def variables():
    path = os.pathsep.join([str(PROGRAM.parent), *filter(None, sys.path)])
    loopback = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    return os.environ | loopback | {"PYTHONPATH": path}


@pytest.fixture
def started():
    """Function: start the program on a folder; it and its children end with the test."""
    running = []

    def start(folder, **options):
        words = [sys.executable, PROGRAM, folder, json.dumps(options)]
        running.append(subprocess.Popen(list(map(str, words)), env=variables()))
        return running[-1]

    yield start
    for process in running:
        with contextlib.suppress(psutil.NoSuchProcess):
            for one in psutil.Process(process.pid).children(recursive=True):
                one.kill()
        process.kill()
        process.wait()


def merged(folder):
    merge_parts(folder, folder / "merged.parquet")
    return (folder / "merged.parquet").read_bytes()


@pytest.fixture
def alone(program, tmp_path):
    """Function: the merged bytes of an input in one process."""

    def compute(source, **options):
        program.begin(tmp_path / "alone", source, **options)
        assert program.compute(tmp_path / "alone") == 0
        return merged(tmp_path / "alone")

    return compute


def test_processes_give_the_bytes_of_one_and_leave_out_what_kills_them(
    program, table, tmp_path, alone, started
):
    """Five shards on two processes; the one with the red image dies thrice."""
    source, folder = table(100, red=[50]), tmp_path / "two"
    whole = alone(source, size=20)
    (tmp_path / "poison").touch()
    program.begin(folder, source, size=20, poison=str(tmp_path / "poison"))
    assert started(folder, processes=2).wait(60) == 1
    known = summarise(folder)
    assert known.done == {0, 1, 3, 4}
    assert "died 3 times" in known.failed[2]
    with pytest.raises(ValueError, match=r"1.*5.*part-000002"):
        merged(folder)
    (tmp_path / "poison").unlink()
    assert program.compute(folder) == 0
    assert not summarise(folder).failed
    assert merged(folder) == whole


def test_where_memory_ends_a_call_is_halved(program, table, tmp_path, alone):
    """Twelve shards, of which no call has the memory for all of its records."""
    source, folder = table(120), tmp_path / "out"
    whole = alone(source, size=10)
    program.begin(folder, source, size=10, memory=3)
    assert program.compute(folder) == 0
    assert merged(folder) == whole


def test_a_record_that_no_memory_takes_is_listed(program, table, tmp_path):
    program.begin(tmp_path / "out", table(120), size=10, memory=0)
    assert program.compute(tmp_path / "out") == 0
    known = summarise(tmp_path / "out", rows=True)
    assert (known.rows, known.failed, sum(known.errors.values())) == (0, {}, 120)


class Pool:
    """Shard 0 dies whenever another one is computed, which takes longer."""

    size = 2

    def __init__(self):
        self.flying, self.deaths = set(), 0

    def submit(self, slot, number, deaths):
        def end():
            self.flying.discard(number)
            self.deaths += (dies := bool(number == 0 and self.flying))
            failure = "died 3 times" * (self.deaths == 3)
            future.set_result(Outcome(deaths=self.deaths * dies, failure=failure * dies))

        future = Future()
        self.flying.add(number)
        threading.Timer(0.5 if number else 0.05, end).start()
        return future


def test_a_shard_whose_process_dies_in_company_goes_on_alone(program, table, tmp_path):
    program.begin(tmp_path / "out", table(4), size=1)
    pool = Pool()
    assert run_shards(tmp_path / "out", range(4), pool, StopSignal(), 0) == 0
    assert pool.deaths == 2


def test_of_two_starts_at_once_one_plans(tmp_path):
    """The other has found one image more."""
    inputs = [str(tmp_path / name) for name in ("a.png", "b.png")]
    for file in inputs:
        Path(file).write_bytes(encoded(0, 0, 0))

    def plan(*, first):
        if not first:
            write_manifest(tmp_path / "out", {}, {}, lambda: plan(first=True))
        return plan_records(inputs[: 1 if first else 2], tmp_path / "out", size=1)

    write_manifest(tmp_path / "out", {}, {}, lambda: plan(first=False))
    assert summarise(tmp_path / "out").shards == 1
    (record,) = read_shard(read_manifest(tmp_path / "out")["plan"], tmp_path / "out", 0)
    assert record.name == inputs[0]
    assert len([*(tmp_path / "out").glob("*.parquet")]) == 1


def test_a_process_that_is_killed_leaves_no_copy_of_a_shard(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(encoded(0, 0, 0))
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        tar.add(tmp_path / "a.png", "a.png")
    fsspec.filesystem("memory").put(str(tmp_path / "0.tar"), "/kept/0.tar")
    plan = plan_records(["memory://kept/*.tar"], tmp_path)
    (tmp_path / "copies").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "copies"))
    with contextlib.closing(read_shard(plan, tmp_path, 0)) as records:
        assert next(records).image().size == (2, 2)
        assert not [*(tmp_path / "copies").iterdir()]


def test_a_signal_ends_a_run_that_the_same_command_continues(
    program, table, tmp_path, alone, started
):
    source, folder = table(60), tmp_path / "stopped"
    whole = alone(source, size=6)
    program.begin(folder, source, size=6, seconds=0.15)
    process = started(folder, processes=1)
    while not summarise(folder).done:
        time.sleep(0.05)
    process.terminate()
    assert process.wait(30) == 75
    assert 0 < len(summarise(folder).done) < 10
    assert program.compute(folder) == 0
    assert merged(folder) == whole


# ---- slow ----------------------------------------------------------------------------------------
@pytest.mark.slow
def test_a_thousand_damaged_of_twenty_thousand_are_listed_exactly(program, table, tmp_path):
    bad = sorted(random.Random(0).sample(range(20_000), 1000))
    source, folder = table(20_000, bad=bad), tmp_path / "out"
    program.begin(folder, source)
    with pytest.raises(TooManyUnreadableError, match=r"max-errors.*500"):
        program.compute(folder, max_errors=500)
    assert program.compute(folder, max_errors=1000) == 0
    files = sorted((folder / "parts").glob("*.errors.jsonl"))
    listed = [json.loads(line)["name"] for file in files for line in file.read_text().splitlines()]
    assert listed == [f"{source}:{row}" for row in bad]
    assert summarise(folder, rows=True).rows == 19_000


def kill_workers(parent, stopped, count=30, *, name):
    """Kill one of the four workers below a process, again and again, when all are there."""
    done, generator = 0, random.Random(1)
    while not stopped() and done < count:
        children = psutil.Process(parent).children(recursive=True)
        with contextlib.suppress(psutil.NoSuchProcess):
            victims = [child for child in children if name in " ".join(child.cmdline())]
            if len(victims) == 4:
                time.sleep(generator.uniform(0.5, 1))
                generator.choice(victims).kill()
                done += 1
        time.sleep(0.05)
    return done


@pytest.mark.slow
def test_thirty_kills_of_four_processes(program, table, tmp_path, alone, started):
    source, folder = table(16_000), tmp_path / "killed"
    whole = alone(source, size=16)
    program.begin(folder, source, size=16, seconds=0.3)
    process = started(folder, processes=4)
    time.sleep(3)
    assert kill_workers(process.pid, lambda: process.poll() is not None, name="spawn_main") == 30
    assert process.wait(300) == 0
    assert merged(folder) == whole


@pytest.mark.slow
def test_thirty_kills_and_the_loss_of_a_node_of_ray(program, table, tmp_path, alone, started):
    source, folder = table(16_000), tmp_path / "ray"
    whole = alone(source, size=16)
    program.begin(folder, source, size=16, seconds=0.3)
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    words = [sys.executable, "-c", CLUSTER]
    with subprocess.Popen(words, env=variables(), **pipes) as cluster:
        address = cluster.stdout.readline().strip()
        process = started(folder, address=address, actors=4)
        while not summarise(folder).done:
            time.sleep(0.1)
        ended = lambda: process.poll() is not None  # noqa: E731
        killed = kill_workers(cluster.pid, ended, 15, name="ray::Worker")
        cluster.stdin.write("\n")
        cluster.stdin.flush()
        assert cluster.stdout.readline() == "gone\n"
        killed += kill_workers(cluster.pid, ended, 15, name="ray::Worker")
        assert killed == 30
        assert process.wait(300) == 0
        cluster.communicate("\n")
    assert merged(folder) == whole


@pytest.mark.slow
def test_memory_is_flat_from_ten_thousand_to_a_million_records(program, table, tmp_path, started):
    peaks = []
    for count in (10_000, 1_000_000):
        folder = tmp_path / str(count)
        program.begin(folder, table(count), size=4096)
        process = started(folder)
        peak = 0
        while process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                peak = max(peak, psutil.Process(process.pid).memory_info().rss)
            time.sleep(0.05)
        assert process.returncode == 0
        assert summarise(folder, rows=True).rows == count
        peaks.append(peak)
    assert peaks[1] < 1.2 * peaks[0]
