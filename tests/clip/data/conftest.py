"""Shards of noise with several captions each, and runs on them in processes."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """Pattern of 3 shards of 8 pictures, each with 4 captions in JSON; the last cannot be read."""
    folder = tmp_path_factory.mktemp("shards")
    chance = np.random.default_rng(0)
    for shard in range(3):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for number in range(8):
                stream, key = io.BytesIO(), f"{shard:05d}{number:04d}"
                Image.fromarray(chance.integers(0, 256, (20, 24, 3), np.uint8)).save(stream, "PNG")
                picture = stream.getvalue() if (shard, number) != (2, 7) else b"torn"
                texts = {"caption": [f"caption {n} of picture {key}" for n in range(4)]}
                for suffix, content in (("png", picture), ("json", json.dumps(texts).encode())):
                    entry = tarfile.TarInfo(f"{key}.{suffix}")
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
    return str(folder / "{00000..00002}.tar")


@pytest.fixture(scope="module")
def launcher(start_launcher):
    """A process that has imported `program.py` and forks for each run."""
    with start_launcher(Path(__file__).parent) as submit:
        yield submit


@pytest.fixture
def launch(launcher, shards, tmp_path):
    """Function: run the program on `shards`; how it ended, and the digests of each process."""

    def run(output, *, workers=0, batch_size=4, ranks=1, **more):
        ended = launcher(
            [shards, str(output), str(workers), str(batch_size)],
            ranks=ranks, log=tmp_path / "log_of_rank", metrics=str(output / "metrics.jsonl"),
            **more,
        )  # fmt: skip
        seen = [Path(f"{output}.{rank}").read_text().split() for rank in range(ranks)]
        return ended, seen

    return run


@pytest.fixture
def equal():
    """Function: whether two pairs of tensors are equal bit for bit."""
    return lambda one, other: all(map(torch.equal, one, other))
