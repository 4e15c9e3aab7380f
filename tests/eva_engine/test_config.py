"""Settings: what they refuse."""

from pathlib import Path

import pytest

from eva_engine.config import OptimizerConfig, RunConfig


@pytest.mark.parametrize(("changes", "message"), [
    ({"seed": 2**32}, "4294967296"),
    ({"ema_decay": 1.0}, r"ema_decay must be in \[0, 1\), got 1.0"),
    ({"precision": "fp8"}, "'fp8'"),
    ({"zero_stage": 0, "precision": "bf16"}, "zero_stage=0.* bf16"),
])  # fmt: skip
def test_run_refuses(changes, message):
    with pytest.raises(ValueError, match=message):
        RunConfig(output=Path("run"), **changes)


@pytest.mark.parametrize(("changes", "message"), [
    ({"lr": float("nan")}, "lr must be at least 0, got nan"),
    ({"lr": 1e-3, "min_lr": 1e-2}, "min_lr 0.01 is above lr 0.001"),
    ({"lr": 1e-3, "name": "lamb", "momentum": 0.8}, "momentum=0.8"),
    ({"lr": 1e-3, "name": "lars", "eps": 1e-6}, "eps=1e-06 has no effect on name=lars"),
])  # fmt: skip
def test_optimizer_refuses(changes, message):
    with pytest.raises(ValueError, match=message):
        OptimizerConfig(**changes)


def test_the_home_folder_is_meant():
    """Shells leave the `~` of `run.output=~/run` as it is."""
    assert RunConfig(output="~/run").output == Path.home() / "run"
