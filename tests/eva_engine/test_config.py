"""Settings: what they refuse, and their plain form."""

import json
from pathlib import Path

import pytest

from eva_engine.config import OptimizerConfig, RunConfig, as_plain


@pytest.mark.parametrize(("changes", "message"), [
    ({"epochs": 0}, "epochs must be at least 1, got 0"),
    ({"ema_decay": 1.0}, r"ema_decay must be in \[0, 1\), got 1.0"),
    ({"precision": "fp8"}, "precision must be one of fp32, bf16, fp16, got 'fp8'"),
    ({"workers": 10**6}, "workers must be at most 512, got 1000000"),
    ({"zero_stage": 0, "precision": "bf16"}, "zero_stage=0 needs precision=fp32, got bf16"),
])  # fmt: skip
def test_run_refuses(changes, message):
    with pytest.raises(ValueError, match=message):
        RunConfig(output=Path("run"), **changes)


@pytest.mark.parametrize(("changes", "message"), [
    ({"lr": float("nan")}, "lr must be at least 0, got nan"),
    ({"lr": 1e-3, "min_lr": 1e-2}, "min_lr 0.01 is above lr 0.001"),
    ({"lr": 1e-3, "layer_decay": 2.0}, r"layer_decay must be in \[0, 1\], got 2.0"),
    ({"lr": 1e-3, "betas": (0.9, 1.0)}, r"betas must be in \[0, 1\), got \(0.9, 1.0\)"),
    ({"lr": 1e-3, "name": "lamb", "momentum": 0.8}, "momentum=0.8 has no effect on name=lamb"),
    ({"lr": 1e-3, "name": "lars", "eps": 1e-6}, "eps=1e-06 has no effect on name=lars"),
])  # fmt: skip
def test_optimizer_refuses(changes, message):
    with pytest.raises(ValueError, match=message):
        OptimizerConfig(**changes)


def test_plain_form_is_json_and_complete():
    run = RunConfig(output=Path("run"))
    plain = as_plain({"run": run, "more": (Path("x"), OptimizerConfig(lr=1.0))})
    assert plain["more"][0] == "x"
    assert plain["more"][1]["betas"] == [0.9, 0.999]
    assert plain["run"].keys() == vars(run).keys()
    assert json.loads(json.dumps(plain)) == plain


def test_the_limit_of_skipped_steps_where_none_is_skipped():
    with pytest.raises(ValueError, match="max_skipped=3 has no effect with nonfinite=stop: set"):
        RunConfig(output=Path("x"), max_skipped=3)
    assert RunConfig(output=Path("x"), max_skipped=3, nonfinite="skip").max_skipped == 3
