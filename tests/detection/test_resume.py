"""`--resume`: from the run's own checkpoint, exactly, or a sentence; nothing in a file runs."""

import copy
import pickle

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn

from eva_detection.training.checkpoint import RunCheckpointer
from eva_detection.training.output_folder import TrainingFolder
from eva_detection.training.trainer import DetectionTrainer

LAST, OLDER = "model_0000001.pth", "model_0000000.pth"


class Losses(nn.Linear):
    """A model with a loss."""

    def forward(self, batch):
        return {"loss": super().forward(batch).square().mean()}


def _checkpointer(folder, *, optimizer=torch.optim.AdamW):
    model = Losses(4, 3)
    parts = [{"params": [model.weight]}, {"params": [model.bias], "weight_decay": 0.0}]
    trainer = DetectionTrainer(model, [torch.ones(2, 4)] * 9, optimizer(parts, lr=0.1))
    return RunCheckpointer(model, str(folder), trainer=trainer), trainer


@pytest.fixture
def resume(tmp_path):
    """Function: save after two steps, change something in the folder, restore."""
    run = tmp_path / "run"
    run.mkdir()
    checkpointer, trainer = _checkpointer(run)
    with EventStorage() as trainer.storage:
        for trainer.iter in range(2):
            trainer.run_step()
            checkpointer.save(f"model_{trainer.iter:07d}", iteration=trainer.iter)
            checkpointer.store.writer.wait()
            saved = torch.load(run / f"model_{trainer.iter:07d}.pth", weights_only=True)
            saved["trainer"]["stream"] = dict(
                seed=1, processes=1, total_batch_size=2, images=9, batches=trainer.iter + 1
            )
            saved["trainer"]["hooks"] = {
                "LRScheduler": {"base_lrs": [0.1, 0.1], "last_epoch": 2},
            }
            torch.save(saved, run / f"model_{trainer.iter:07d}.pth")

    def restore(change=lambda folder: None):
        change(run)
        again, other = _checkpointer(run)
        before = copy.deepcopy(again.model.state_dict())
        try:
            again.restore(again.read(TrainingFolder(run).newest, other.optimizer, 9))
        except ValueError:  # nothing was changed
            for name, value in again.model.state_dict().items():
                assert torch.equal(value, before[name]), name
            assert not other.optimizer.state
            raise
        assert torch.equal(again.model.weight, trainer.model.weight)
        return other

    return restore


def _edit(change):
    """A change of what the last checkpoint holds."""

    def edit(folder):
        saved = torch.load(folder / LAST, weights_only=True)
        change(saved)
        torch.save(saved, folder / LAST)

    return edit


def test_no_code_in_a_file_runs(resume, malice, tmp_path):
    proof = tmp_path / "proof"

    def plant(folder):
        (folder / LAST).write_bytes(pickle.dumps(malice(proof)))

    with pytest.raises(ValueError, match="is refused"):
        resume(plant)
    assert not proof.exists()


@pytest.mark.parametrize("name", ["", "..", "/etc/passwd", "../model.pkl", "https://a.org/x.pth"])
def test_only_a_file_of_the_folder(resume, malice, tmp_path, name):
    """The run goes on from its own newest checkpoint, never from the beginning without a word."""
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(malice(tmp_path / "proof")))
    assert resume(lambda folder: (folder / "last_checkpoint").write_text(name)).iter == 1
    assert not (tmp_path / "proof").exists()


def _halve(names):
    for name in list(names)[::2]:
        del names[name]


WRONG = {
    "half the model": lambda s: _halve(s["model"]),
    "another shape": lambda s: s["model"].update({next(iter(s["model"])): torch.ones(2)}),
    "another optimizer": lambda s: [
        one.pop("exp_avg") for one in s["trainer"]["optimizer"]["state"].values()
    ],
    "NaN moments": lambda s: s["trainer"]["optimizer"]["state"][0]["exp_avg"].fill_(torch.nan),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_what_belongs_to_another_run_is_refused(resume, change):
    with pytest.raises(ValueError, match=f"{LAST}"):
        resume(_edit(change))


def test_old_checkpoints_go_at_a_continuation_too(tmp_path):
    """Those behind the one that was restored will be written again."""
    for number in (3, 5, 9):
        (tmp_path / f"model_{number:07d}.pth").touch()
    (tmp_path / "model_mine.pth").touch()
    checkpointer, _ = _checkpointer(tmp_path)
    checkpointer.keep = 2
    for iteration in (7, 9):
        checkpointer.save(f"model_{iteration:07d}", iteration=iteration)
        checkpointer.store.writer.wait()
    found = sorted(path.name for path in tmp_path.glob("*.pth"))
    assert found == ["model_0000007.pth", "model_0000009.pth", "model_mine.pth"]


def test_detectron2s_own_checkpoint_continues(resume):
    """Its trainer does not save our place in the data."""

    def simplify(saved):
        for name in ("stream", "grad_scaler", "hooks"):
            del saved["trainer"][name]

    assert resume(_edit(simplify)).iter == 1
