"""Whole runs in this process: resume, what is not finite, samples that cannot be read."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from eva_backbone.checkpoints.run_folders import complete_checkpoints
from eva_engine import loop
from eva_engine.config import OptimizerConfig
from eva_engine.steps import engine as compilation
from eva_runs.errors import TooManyUnreadableError

ALL = tuple(range(64))


def weights(output, name="model", step=24):
    return load_file(output / f"checkpoints/step_{step:08d}/{name}.safetensors")


def assert_equal(one, other):
    assert one.keys() == other.keys()
    assert all(one[name].equal(other[name]) for name in one)


LAMB = {"lr": 3e-2, "warmup_epochs": 1, "layer_decay": 0.8, "eps": 1e-6}
SHORT = {"epochs": 2, "batch_size": 16, "checkpoint_every": 3, "ema_decay": 0.9, "resume": True}


@pytest.mark.parametrize(("batch", "accumulate", "steps", "said"), [
    (128, 1, 1, "batch_size is 64 and accumulate 1"),
    (25, 4, 1, "14 of 64 samples are left out of each epoch"),
    (8, 1, 8, ""),
])  # fmt: skip
def test_little_data_make_a_small_step(batch, accumulate, steps, said, start, metrics, tmp_path,
                                       caplog):  # fmt: skip
    with caplog.at_level("INFO"):
        start(epochs=2, batch_size=batch, accumulate=accumulate)
    assert said in caplog.text
    assert ("left out" in caplog.text) == ("left out" in said)
    assert len([one for one in metrics(tmp_path / "run") if "loss" in one]) == 2 * steps


@pytest.fixture
def killed_and_resumed(start, killed, metrics, tmp_path):
    """Function: end a run before its sixth step, continue it, compare with an uninterrupted one."""

    def run(settings):
        start("whole", **settings)
        with killed(loop.TrainingRun, "_step", 6):
            start("killed", **settings)
        assert complete_checkpoints(tmp_path / "killed")
        start("killed", **settings)
        assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")
        for kind in ("model", "model_ema"):
            one, other = (weights(tmp_path / one, kind, step=8) for one in ("whole", "killed"))
            assert_equal(one, other)

    return run


@pytest.mark.parametrize(("name", "stage", "precision", "accumulate"), [
    ("lamb", 1, "bf16", 2), ("deepspeed_lamb", 0, "fp32", 2),
    pytest.param("lamb", 0, "fp32", 1, marks=pytest.mark.slow),
    pytest.param("deepspeed_lamb", 1, "bf16", 1, marks=pytest.mark.slow),
])  # fmt: skip
def test_resumed_with_lamb(killed_and_resumed, name, stage, precision, accumulate):
    """Its counter of steps, by which the first ones have another length, is one of the groups."""
    settings = SHORT | {
        "zero_stage": stage, "precision": precision, "accumulate": accumulate,
        "batch_size": 16 // accumulate, "rest": {"optimizer": OptimizerConfig(name=name, **LAMB)},
    }  # fmt: skip
    killed_and_resumed(settings)


def test_evaluation_does_not_change_training(start, metrics, tmp_path):
    start("often", ema_decay=0.9)
    start("never", ema_decay=0.9, changes={"evaluate": None})
    lines = [line for line in metrics(tmp_path / "often") if "loss" in line]
    assert lines == metrics(tmp_path / "never")


def test_a_loss_that_is_not_finite_stops_before_the_step(start, metrics, tmp_path):
    message = r"The loss \(nan\) or a gradient became .* step [1-8], .* rank0_nonfinite.json"
    with pytest.raises(FloatingPointError, match=message):
        start(rest={"poison": (7,)}, checkpoint_every=1)
    dump = json.loads((tmp_path / "run/rank0_nonfinite.json").read_text())
    assert "file-7.jpg" in dump["samples"]
    assert len(dump["samples"]) == 8
    assert dump["step"] == len(metrics(tmp_path / "run"))
    assert dump["seeds"] == [[0, dump["step"], 0, 0]]
    for value in weights(tmp_path / "run", step=dump["step"]).values():
        assert value.isfinite().all()


@pytest.mark.parametrize(("stage", "accumulate"), [(0, 1), (1, 4)])
def test_steps_that_are_not_finite_are_skipped(start, metrics, tmp_path, stage, accumulate):
    settings = {"zero_stage": stage, "accumulate": accumulate, "batch_size": 8 // accumulate}
    start(nonfinite="skip", ema_decay=0.9, rest={"poison": (7,)}, checkpoint_every=1,
          keep_checkpoints=24, **settings)  # fmt: skip
    lines = [line for line in metrics(tmp_path / "run") if "lr" in line]
    skipped = [line for line in lines if "skipped" in line]
    assert [line["step"] // 8 for line in skipped] == [0, 1, 2]  # once an epoch
    assert all(line["loss"] is None for line in skipped)
    assert sum(line["loss"] is None for line in lines) == 3
    step = skipped[1]["step"]
    for kind in ("model", "model_ema"):
        before, after, later = (
            weights(tmp_path / "run", kind, step=number) for number in (step, step + 1, step + 2)
        )
        assert_equal(before, after)
        assert not before["head.weight"].equal(later["head.weight"])


def test_only_so_many_steps_are_skipped(start, metrics, tmp_path):
    message = r"For 3 steps in a row, the loss \(nan\) .* became infinite or NaN"
    with pytest.raises(FloatingPointError, match=message):
        start(nonfinite="skip", max_skipped=2, rest={"poison": ALL}, checkpoint_every=1)
    assert len(metrics(tmp_path / "run")) == 2
    with pytest.raises(FloatingPointError, match="For 3 steps"):  # counted on after a resume
        start(
            nonfinite="skip", max_skipped=2, rest={"poison": ALL}, checkpoint_every=1, resume=True
        )
    assert len(metrics(tmp_path / "run")) == 2


def test_unreadable_samples_are_counted_once_and_limited(start, metrics, tmp_path, caplog):
    """Sample 3 is drawn once an epoch, and 4 for itself and for 3."""
    bad = {"bad": (3, 4)}
    start(rest=bad)
    lines = metrics(tmp_path / "run")
    assert lines[-2]["bad_samples"] == 2
    text = "replaced a sample that cannot be read: file-3.jpg: OSError: cannot id"
    assert caplog.text.count(text) == 1
    with pytest.raises(TooManyUnreadableError, match=r"2.*max_bad_samples.*1"):
        start("limited", rest=bad, max_bad_samples=1, checkpoint_every=1)
    with pytest.raises(TooManyUnreadableError, match="2 samples"):  # remembered after a resume
        start("limited", rest=bad, max_bad_samples=1, checkpoint_every=1, resume=True)
    start("limited", rest=bad, max_bad_samples=2, checkpoint_every=1, resume=True)
    assert metrics(tmp_path / "limited") == lines
    caplog.clear()
    shutil.rmtree(tmp_path / "limited/checkpoints/step_00000024")
    start("limited", rest=bad, max_bad_samples=2, checkpoint_every=1, resume=True)
    assert metrics(tmp_path / "limited") == lines
    assert "replaced" not in caplog.text


def test_a_checkpoint_of_another_run_is_refused(start, program, tmp_path):
    def contents():
        files = (path for path in (tmp_path / "run").rglob("*") if path.is_file())
        return {path: path.read_bytes() for path in files}

    start(epochs=1)
    before, lamb = contents(), OptimizerConfig(name="lamb", lr=1e-3)
    for settings, message in (
        ({"precision": "bf16"}, "precision=fp32 and cannot continue with bf16"),
        ({"rest": {"optimizer": lamb}}, "optimizer=adamw and cannot continue with lamb"),
        ({"ema_decay": 0.9}, "step_00000008 has no moving average: set ema_decay=0"),
        ({"changes": {"model": program.Model(0.1, width=8)}}, "has the state of another model"),
    ):
        with pytest.raises(ValueError, match=message):
            start(resume=True, epochs=2, **settings)
        assert contents() == before


@pytest.mark.parametrize(("name", "stage"), [("adamw", 1), ("lamb", 0)])
def test_settings_of_the_optimizer_may_change(start, stage, name):
    first = OptimizerConfig(name=name, lr=3e-2, warmup_epochs=1, layer_decay=0.8)
    start(epochs=1, zero_stage=stage, rest={"optimizer": first})
    changed = OptimizerConfig(name=name, lr=1e-3, weight_decay=0.3, betas=(0.5, 0.6), eps=1e-3,
                              clip_grad=0.5)  # fmt: skip
    run = start(epochs=2, zero_stage=stage, resume=True, rest={"optimizer": changed})
    group = next(group for group in run._engine.optimizer.param_groups if group["weight_decay"])
    assert (group["weight_decay"], group["betas"], group["eps"]) == (0.3, (0.5, 0.6), 1e-3)
    assert group["lr_scale"] == 1.0
    assert run._engine.clip_grad == 0.5


def test_seed_and_samples_of_a_step_stay(start, metrics, tmp_path, caplog):
    start("whole", epochs=2, rest={"dropout": 0.0})
    start(epochs=2, checkpoint_every=8, rest={"dropout": 0.0})
    shutil.rmtree(tmp_path / "run/checkpoints/step_00000016")
    with caplog.at_level("INFO"):
        start(epochs=2, resume=True, seed=5, batch_size=5, rest={"dropout": 0.0})
    assert "seed=5 has no effect: the run began with 0" in caplog.text
    assert "batch_size=4 and accumulate=2: steps of 8 samples, as before" in caplog.text
    for one, other in zip(metrics(tmp_path / "whole"), metrics(tmp_path / "run"), strict=True):
        assert one.get("loss", 0) == pytest.approx(other.get("loss", 0), abs=1e-6)
        assert one.get("key", 0) == pytest.approx(other.get("key", 0), rel=1e-12)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # dynamo in their hook
def test_compiled(start, metrics, tmp_path, monkeypatch):
    """With dynamo's graph, but without code that a compiler has to make; resumed too."""
    monkeypatch.setattr(compilation, "BACKEND", "eager")
    torch._dynamo.utils.counters.clear()
    start("plain", epochs=2)
    assert not torch._dynamo.utils.counters["stats"]
    start("compiled", epochs=2, compile=True, checkpoint_every=3)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 1
    shutil.rmtree(tmp_path / "compiled/checkpoints/step_00000016")
    start("compiled", epochs=2, compile=True, resume=True)
    one, other = (weights(tmp_path / name, step=16) for name in ("plain", "compiled"))
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(other[name], value)
    assert [line["step"] for line in metrics(tmp_path / "compiled")] == [
        line["step"] for line in metrics(tmp_path / "plain")
    ]
