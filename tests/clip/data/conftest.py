"""Shards of noise with several captions each, and runs on them in processes."""

import io
import json
import tarfile

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


@pytest.fixture
def equal():
    """Function: whether two pairs of tensors are equal bit for bit."""
    return lambda one, other: all(map(torch.equal, one, other))
