"""Tensors and arrays in `.safetensors` files, completely or not at all."""

import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from eva_data.files import UnwritableError, write_tensors
from eva_data.index import Table

WRITERS = {
    "tensors": lambda file: write_tensors({"a": torch.zeros(1_000_000)}, file),
    "arrays": lambda file: write_tensors({"a": np.zeros(1_000_000, np.float32)}, file),
    "index": lambda file: Table({"a": np.zeros(1_000_000, np.int64)}).save(file),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_full_disk_is_one_sentence_and_leaves_what_was_there(write, tmp_path, full_disk):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"before")
    message = re.escape(f"{file} cannot be written: File too large")
    with pytest.raises(UnwritableError, match=f"^{message}$"):
        write(file)
    assert file.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_whoever_may_read_a_text_file_may_read_it(write, tmp_path):
    (tmp_path / "text").touch()
    write(tmp_path / "model.safetensors")
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_views_are_written_as_they_look(tmp_path):
    weights = {"turned": torch.arange(6.0).view(2, 3).T, "part": torch.arange(9)[::2]}
    write_tensors(weights, tmp_path / "a.safetensors", {"note": "text"})
    for name, value in load_file(tmp_path / "a.safetensors").items():
        assert torch.equal(value, weights[name])
