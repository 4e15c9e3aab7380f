"""Runs that continue on another number of processes, or with another ZeRO stage."""

import shutil

import pytest
import torch
from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler
from safetensors.torch import load_file

from eva_engine.config import OptimizerConfig
from eva_engine.steps.parameter_groups import ParameterGroup

STEP = 12  # samples: five steps are an epoch
RUN = {"run__resume": True, "run__ema_decay": 0.9, "run__keep_checkpoints": 9}


def assert_same_run(metrics, one, other, *, close, exact=False):
    """Two runs had the same samples, augmented alike, in each step, and their losses agree."""
    lines, others = metrics(one), metrics(other)
    assert [line["step"] for line in lines] == [line["step"] for line in others]
    for first, second in zip(lines, others, strict=True):
        for name in ("key", "input"):
            assert first.get(name, 0) == pytest.approx(second.get(name, 0), rel=1e-12)
        for name in ("loss", "val_error", "val_ema_error"):
            assert first.get(name, 0) == pytest.approx(second.get(name, 0), abs=close), (
                name,
                first,
            )
    assert not exact or lines == others
    for name in ("model", "model_ema"):
        first, second = (load_file(last_of(run) / f"{name}.safetensors") for run in (one, other))
        assert max((first[key] - second[key]).abs().max() for key in first) <= 10 * close


def last_of(run):
    return max((run / "checkpoints").iterdir())


def cut_off(source, output, *, step):
    """Copy a run as it was when the checkpoint of a step was the last."""
    shutil.copytree(source, output)
    for folder in (output / "checkpoints").iterdir():
        if int(folder.name.removeprefix("step_")) > step:
            shutil.rmtree(folder)


@pytest.mark.parametrize(("first", "second", "name"), [
    (0, 1, "adamw"), (1, 0, "adamw"), (1, 2, "deepspeed_lamb"),
    *(pytest.param(*one, marks=pytest.mark.slow)
      for one in [(1, 2, "adamw"), (0, 2, "lamb"), (2, 0, "lamb")])
])  # fmt: skip
def test_another_zero_stage(start, program, metrics, tmp_path, first, second, name):
    """In one process, and where a group has one tensor, LAMB too gives the same numbers."""
    decay = 0.8 if "lamb" in name else 1.0
    optimizer = OptimizerConfig(name=name, lr=3e-2, warmup_epochs=1, layer_decay=decay, eps=1e-6)
    settings = {"epochs": 2, "ema_decay": 0.9, "accumulate": 2, "batch_size": 4, "resume": True,
                "checkpoint_every": 6, "rest": {"optimizer": optimizer}}  # fmt: skip

    def run(output, stage):
        torch.manual_seed(0)
        model = program.Model(0.1)
        group = ParameterGroup(name="all", params=[*model.parameters()], weight_decay=0.05)
        changes = {} if "lamb" in name else {"model": model, "groups": [group]}
        start(output, zero_stage=stage, keep_checkpoints=9, changes=changes, **settings)

    run("whole", first)
    cut_off(tmp_path / "whole", tmp_path / "changed", step=6)
    run("changed", second)
    assert_same_run(metrics, tmp_path / "whole", tmp_path / "changed", close=1e-6)


def test_the_loss_scale_comes_along(start):
    """It is the same in the files of all processes; fp16 itself needs a GPU."""
    engine = start(epochs=1)._engine
    engine.optimizer.loss_scaler = DynamicLossScaler(512.0, 500, 1, 2, consecutive_hysteresis=False)
    saved = engine.optimizer_state()
    engine.optimizer.loss_scaler = DynamicLossScaler(
        65536.0, 500, 1, 2, consecutive_hysteresis=False
    )
    engine.load_optimizer_state(saved)
    assert engine.loss_scale == 512


@pytest.mark.slow
def test_killed_on_three_in_the_first_save_of_one_and_ended_on_two(launch, metrics, tmp_path):
    """The micro-batch stays, so that dropout draws the same as well."""
    options = RUN | {
        "run__checkpoint_every": 2, "run__batch_size": 2, "run__accumulate": 2, "run__epochs": 2,
    }  # fmt: skip
    whole = launch(tmp_path / "whole", ranks=3, **options)
    assert whole.codes == [0] * 3, whole.texts
    run = tmp_path / "run"
    assert launch(run, ranks=3, kill_at=9, **options).codes == [-9] * 3
    assert launch(run, ranks=1, kill_in_save=4, **options).codes == [-9]
    assert last_of(run).name == "step_00000002", "that of step 4 was still being written"
    refused = launch(run, ranks=5, **options)
    assert refused.codes == [1] * 5
    assert (
        "5 processes cannot share a step of 12 samples equally: take 1, 2, 3, 4, 6, 12"
        in "".join(refused.texts)
    )
    ended = launch(run, ranks=2, **options)
    assert ended.codes == [0] * 2, ended.texts
    assert "processes=2 (before: 3), batch_size=2 and accumulate=3" in ended.texts[0]
    assert_same_run(metrics, tmp_path / "whole", run, close=1e-6)


@pytest.mark.slow
def test_lamb_of_deepspeed_on_two_as_on_one(launch, metrics, tmp_path):
    """Its norms are of entire groups, of which each process holds a half; also continued."""
    options = RUN | {
        "optimizer__name": "deepspeed_lamb", "dropout": 0.0, "run__batch_size": STEP // 2,
        "run__accumulate": 2, "run__zero_stage": 1, "run__checkpoint_every": 7,
    }  # fmt: skip
    one = launch(tmp_path / "one", **options)
    two = launch(tmp_path / "two", ranks=2, **options | {"run__accumulate": 1})
    cut_off(tmp_path / "two", tmp_path / "two_then_one", step=7)
    other = launch(tmp_path / "two_then_one", **options)
    assert one.codes + two.codes + other.codes == [0] * 4, (one.texts, two.texts, other.texts)
    assert not any("LAMB's steps change" in text for text in other.texts)
    for run in ("two", "two_then_one"):
        assert_same_run(metrics, tmp_path / "one", tmp_path / run, close=1e-6)


CASES = [
    (stage, precision, accumulated, name)
    for precision in ("fp32", "bf16") for stage in (0, 1, 2) for accumulated in (False, True)
    for name in ("adamw", "deepspeed_lamb", "lamb")  # timm's steps depend on ZeRO's processes
    if (stage or precision == "fp32") and not (stage and name == "lamb")
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("before", [1, 2, 3])
@pytest.mark.parametrize(("stage", "precision", "accumulated", "name"), CASES)
def test_each_number_on_each(
    launch, metrics, tmp_path, stage, precision, accumulated, name, before
):
    """Where forward passes keep their size, dropout and the like draw the same."""
    options = RUN | {
        "optimizer__name": name,
        "run__checkpoint_every": 7, "run__epochs": 2, "run__zero_stage": stage,
        "run__precision": precision, "run__batch_size": 2 if accumulated else STEP // before,
        "run__accumulate": STEP // 2 // before if accumulated else 1,
        "dropout": 0.1 if accumulated else 0.0,
    }  # fmt: skip
    whole = launch(tmp_path / "whole", ranks=before, **options)
    assert whole.codes == [0] * before, whole.texts
    for now in (1, 2, 3):
        run = tmp_path / str(now)
        cut_off(tmp_path / "whole", run, step=7)
        ended = launch(run, ranks=now, **options)
        assert ended.codes == [0] * now, ended.texts
        close = 1e-6 if precision == "fp32" else 0.01
        assert_same_run(metrics, tmp_path / "whole", run, close=close, exact=now == before)
