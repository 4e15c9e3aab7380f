"""Checkpoints of a run: complete or not there, and no code in them runs."""

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file

from eva_engine import distributed
from eva_engine.run_checkpoint import RunCheckpoints, is_complete, read_run

STATE = "deepspeed/mp_rank_00_model_states.pt"


@pytest.fixture
def checkpoints(start, tmp_path):
    """Those of a short run: steps 2, 4, 6, 8."""
    start(epochs=1, checkpoint_every=2, keep_checkpoints=9, ema_decay=0.9)
    return RunCheckpoints(tmp_path / "run", keep=9)


def truncate(folder):
    file = folder / STATE
    file.write_bytes(file.read_bytes()[:-1])


def names(folders):
    return [folder.name for folder in folders]


def test_what_is_in_one(checkpoints):
    folder = checkpoints.complete()[-1]
    listed = json.loads((folder / "COMPLETE").read_text())
    assert {"model.safetensors", "model_ema.safetensors", "run.json", STATE} <= listed.keys()
    assert read_run(folder) == {
        "step": 8, "seed": 0, "processes": 1, "precision": "fp32", "zero_stage": 1,
        "step_batch": 8, "samples_of_data": 64, "bad_samples": 0, "skipped_in_a_row": 0,
    }  # fmt: skip


@pytest.mark.parametrize("spoil", [
    truncate,
    lambda folder: (folder / "COMPLETE").unlink(),
    lambda folder: (folder / "COMPLETE").write_text('{"run.json"'),
    lambda folder: (folder / "model.safetensors").unlink(),
    lambda folder: shutil.rmtree(folder / "deepspeed"),
])  # fmt: skip
def test_an_incomplete_one_is_passed_over(checkpoints, start, metrics, tmp_path, spoil):
    before = metrics(tmp_path / "run")
    spoil(checkpoints.complete()[-1])
    assert not is_complete(checkpoints.folder / "step_00000008")
    assert names(checkpoints.complete()) == ["step_00000002", "step_00000004", "step_00000006"]
    start(epochs=1, checkpoint_every=2, keep_checkpoints=9, ema_decay=0.9, resume=True)
    assert metrics(tmp_path / "run") == before
    assert is_complete(checkpoints.folder / "step_00000008")


def test_the_newest_ones_are_kept(start, tmp_path):
    start(epochs=1, checkpoint_every=1, keep_checkpoints=2)
    folder = RunCheckpoints(tmp_path / "run", keep=2).folder
    entries = sorted(path.name for path in folder.iterdir())
    assert entries == ["latest", "step_00000007", "step_00000008"]
    assert (folder / "latest").read_text() == "step_00000008"


class Malicious:
    def __reduce__(self):
        return os.system, ("touch ran_code",)


@pytest.mark.parametrize("file", [
    STATE, "deepspeed/zero_pp_rank_0_mp_rank_00_optim_states.pt", "average_00000.pt",
])  # fmt: skip
def test_code_in_a_file_is_not_run(checkpoints, start, tmp_path, monkeypatch, file):
    monkeypatch.chdir(tmp_path)
    folder = checkpoints.complete()[-1]
    content = torch.load(folder / file, weights_only=False)
    torch.save(content | {"more": Malicious()}, folder / file)
    listed = json.loads((folder / "COMPLETE").read_text())
    listed[file] = (folder / file).stat().st_size
    (folder / "COMPLETE").write_text(json.dumps(listed))
    with pytest.raises(ValueError, match="holds more than a run's state"):
        start(epochs=2, ema_decay=0.9, resume=True)
    assert not (tmp_path / "ran_code").exists()
    torch.load(folder / file, weights_only=False)  # proves that it would have
    assert (tmp_path / "ran_code").exists()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_weights_file(start, precision):
    run = start(epochs=1, precision=precision)
    saved = load_file(run.run.output / "checkpoints/step_00000008/model.safetensors")
    module = run._engine.module.state_dict()
    assert saved.keys() == module.keys()
    for name, value in module.items():
        assert saved[name].dtype == torch.float32
        assert saved[name].to(value.dtype).equal(value)
    exact = all(value.bfloat16().float().equal(value) for value in saved.values())
    assert not exact  # float32 master weights in both


def test_a_folder_that_one_process_does_not_see(tmp_path, monkeypatch):
    """As the first of three processes, of which the last is on another file system."""
    answers = iter([["token"] * 3, [True, True, False]])
    monkeypatch.setattr(distributed, "gather", lambda value: next(answers))
    with pytest.raises(ValueError, match=r"processes \[2\] do not see .* all machines share"):
        RunCheckpoints(tmp_path, keep=1).newest()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
