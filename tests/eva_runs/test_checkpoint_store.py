"""Checkpoints under a name that is there already, and the first one."""

import pytest
import torch

from eva_data.saving import write_text
from eva_runs import checkpoint_store
from eva_runs.checkpoint_store import CheckpointStore, Snapshots, find_newest


@pytest.fixture
def write():
    """Function: write a checkpoint."""
    store = CheckpointStore()

    def save(file, content):
        store.save(file, lambda stream: stream.write(content))
        store.writer.wait()

    return save


def test_a_kill_behind_a_checkpoint_that_replaces_another_does_not_damage_it(
    tmp_path, monkeypatch, write
):
    """The only checkpoint is written again after the best evaluation, as mmengine does."""

    def kill(file, text):
        if "[" in text:  # the digest
            raise KeyboardInterrupt
        write_text(file, text)

    file = tmp_path / "iter_4.pth"
    write(file, b"before")
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint_store, "write_text", kill)
        with pytest.raises(KeyboardInterrupt):
            write(file, b"with the best score")
    assert file.read_bytes() == b"with the best score"
    assert find_newest([file]) == file
    write(file, b"once more")
    file.write_bytes(b"Once more")
    with pytest.raises(ValueError, match="SHA-256"):
        find_newest([file])


def test_a_copy_of_a_state_takes_the_memory_of_the_one_before():
    snapshots, weight = Snapshots(), torch.arange(6.0).reshape(2, 3).requires_grad_()
    state = {"weight": weight, "twice": [weight, 3], "other": torch.zeros(2, dtype=torch.bfloat16)}
    first = snapshots.take("model", state)
    assert first["weight"] is not weight
    assert first["weight"].tolist() == weight.tolist()
    weight.data += 1
    assert first["twice"][0][0, 0] == 0
    second = snapshots.take("model", state | {"other": torch.ones(3)})
    assert second["weight"].data_ptr() == first["weight"].data_ptr()
    assert second["twice"][0].data_ptr() != second["weight"].data_ptr()
    assert second["twice"][0][0, 0] == 1
    assert second["other"].tolist() == [1, 1, 1]
