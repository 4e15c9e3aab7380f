"""Checkpoints of a run: complete or not there, and no code in them runs."""

import errno
import logging
import shutil

import pytest
import torch

from eva_data import saving
from eva_data.saving import UnwritableError
from eva_engine.checkpoints.files import find_damage, mark_complete
from eva_engine.checkpoints.run_checkpoint import RunCheckpoints
from eva_runs.data_order import SampleError

STATE = "optimizer_00000.pt"


@pytest.fixture
def checkpoints(start, tmp_path):
    """Those of a short run: steps 2, 4, 6, 8."""
    start(epochs=1, checkpoint_every=2, keep_checkpoints=9, ema_decay=0.9)
    return RunCheckpoints(tmp_path / "run", keep=9)


def truncate(folder):
    file = folder / STATE
    file.write_bytes(file.read_bytes()[:-1])


def flip_a_bit(folder):
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-5] ^= 1
    (folder / "model.safetensors").write_bytes(content)


def list_again(folder):
    """Make the list of a checkpoint fit what was done to its files."""
    (folder / "COMPLETE").unlink()
    mark_complete(folder)


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("spoil", [
    truncate,
    flip_a_bit,
    lambda folder: (folder / "COMPLETE").write_text('{"run.json"'),
])  # fmt: skip
def test_a_damaged_one_is_passed_over_and_kept(
    checkpoints, start, metrics, tmp_path, spoil, caplog
):
    before = metrics(tmp_path / "run")
    newest = checkpoints.folder / "step_00000008"
    spoil(newest)
    damaged = [(path.relative_to(newest), content) for path, content in contents(newest).items()]
    start(epochs=1, checkpoint_every=2, keep_checkpoints=9, ema_decay=0.9, resume=True)
    assert "passed over the damaged checkpoint step_00000008: " in caplog.text
    assert metrics(tmp_path / "run") == before
    assert find_damage(newest) is None
    kept = checkpoints.folder / "damaged_step_00000008"
    assert [
        (path.relative_to(kept), content) for path, content in contents(kept).items()
    ] == damaged


def test_a_run_without_a_checkpoint_begins_again_only_with_resume(start, metrics, tmp_path, caplog):
    with pytest.raises(SampleError):
        start(epochs=1, rest={"bug": 5})
    logged = (tmp_path / "run/metrics.jsonl").read_bytes()
    assert 1 <= logged.count(b"\n") < 8
    with pytest.raises(ValueError, match=r"reached step ."):
        start(epochs=1)
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == logged
    with caplog.at_level(logging.INFO):
        start(epochs=1, resume=True)
    assert "has no checkpoint to continue from: the run begins at step 1" in caplog.text
    assert len(metrics(tmp_path / "run")) == 9


def test_a_log_that_goes_further_than_a_first_checkpoint_is_kept(start, metrics, tmp_path):
    """The first is certain when the second begins: it is written in the background."""
    start(epochs=3)
    shutil.rmtree(tmp_path / "run/checkpoints")
    before = contents(tmp_path / "run")
    with pytest.raises(ValueError, match="reached step 24"):
        start(epochs=3, resume=True)
    assert contents(tmp_path / "run") == before
    log = tmp_path / "run/metrics.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:15]))
    start(epochs=2, resume=True)
    assert len(metrics(tmp_path / "run")) == 18


def test_a_run_that_never_saved_begins_again_with_larger_steps(start, metrics, tmp_path):
    """Six steps of 8 of 64 samples; as steps of 32 they would be three epochs."""
    start(epochs=1)
    shutil.rmtree(tmp_path / "run/checkpoints")
    log = tmp_path / "run/metrics.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:6]))
    start(epochs=1, batch_size=32, resume=True)
    assert len(metrics(tmp_path / "run")) == 3


@pytest.mark.parametrize("point", ["torch", "safetensors", "folder"])
def test_a_failed_save_leaves_the_earlier_one(start, tmp_path, monkeypatch, point):
    """An error of the system in any file of it: one sentence, and no half checkpoint."""
    start(epochs=1, ema_decay=0.9)
    kept = contents(tmp_path / "run/checkpoints")
    original = saving.flush

    def full(path):
        name = str(path)
        if ".writing_step" in name and {
            "torch": "optimizer_" in name, "safetensors": "model" in name,
            "folder": "COMPLETE" in name}[point]:  # fmt: skip
            raise OSError(errno.ENOSPC, "No space left on device", name)
        original(path)

    monkeypatch.setattr(saving, "flush", full)
    with pytest.raises(UnwritableError, match=r"/\.writing_step_00000016/"):
        start(epochs=2, ema_decay=0.9, resume=True)
    assert contents(tmp_path / "run/checkpoints") == kept
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["step_00000008"]


def test_the_newest_ones_are_kept(start, tmp_path):
    start(epochs=1, checkpoint_every=1, keep_checkpoints=2)
    folder = RunCheckpoints(tmp_path / "run", keep=2).folder
    entries = sorted(path.name for path in folder.iterdir())
    assert entries == ["step_00000007", "step_00000008"]


def test_code_in_a_file_is_not_run(checkpoints, start, malice, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = checkpoints.complete()[-1]
    content = torch.load(folder / STATE, weights_only=False)
    torch.save(content | {"more": malice("ran_code")}, folder / STATE)
    list_again(folder)
    with pytest.raises(ValueError, match="is refused: it is damaged"):
        start(epochs=2, ema_decay=0.9, resume=True)
    assert not (tmp_path / "ran_code").exists()
    torch.load(folder / STATE, weights_only=False)  # proves that it would have
    assert (tmp_path / "ran_code").exists()
