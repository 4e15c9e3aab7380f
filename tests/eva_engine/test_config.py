"""Settings: what they refuse, and their plain form."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from eva_engine.config import OptimizerConfig, RunConfig, as_plain, one_of_its_choices


@pytest.mark.parametrize(("changes", "message"), [
    ({"epochs": 0}, "epochs must be at least 1, got 0"),
    ({"batch_size": -2}, "batch_size must be at least 1, got -2"),
    ({"ema_decay": 1.0}, r"ema_decay must be in \[0, 1\), got 1.0"),
    ({"precision": "fp8"}, "precision must be one of fp32, bf16, fp16, got 'fp8'"),
    ({"zero_stage": 2}, "zero_stage must be one of 0, 1, got 2"),
    ({"nonfinite": "ignore"}, "nonfinite must be one of stop, skip, got 'ignore'"),
    ({"workers": 10**6}, "workers must be at most 512, got 1000000"),
    ({"zero_stage": 0, "precision": "bf16"}, "zero_stage=0 needs precision=fp32, got bf16"),
])  # fmt: skip
def test_run_refuses(changes, message):
    with pytest.raises(ValueError, match=message):
        RunConfig(output=Path("run"), **changes)


@pytest.mark.parametrize(("changes", "message"), [
    ({"lr": float("nan")}, "lr must be at least 0, got nan"),
    ({"lr": 1e-3, "min_lr": 1e-2}, "min_lr 0.01 is above lr 0.001"),
    ({"lr": 1e-3, "layer_decay": 0.0}, r"layer_decay must be in \(0, 1\], got 0.0"),
    ({"lr": 1e-3, "betas": (0.9, 1.0)}, r"betas must be in \[0, 1\), got \(0.9, 1.0\)"),
    ({"lr": 1e-3, "clip_grad": -1.0}, "clip_grad must be at least 0, got -1.0"),
    ({"lr": 1e-3, "name": "lamb", "momentum": 0.8}, "momentum=0.8 has no effect on name=lamb"),
    ({"lr": 1e-3, "name": "lars", "eps": 1e-6}, "eps=1e-06 has no effect on name=lars"),
])  # fmt: skip
def test_optimizer_refuses(changes, message):
    with pytest.raises(ValueError, match=message):
        OptimizerConfig(**changes)


def test_output_may_be_a_string():
    assert RunConfig(output="runs/one").output == Path("runs/one")


def test_choices_of_another_config():
    @dataclass(frozen=True)
    class Other:
        kind: Literal["a", "b"]
        text: str = "c"

    one_of_its_choices(Other(kind="b"))
    with pytest.raises(ValueError, match="kind must be one of a, b, got 'c'"):
        one_of_its_choices(Other(kind="c"))


def test_plain_form_is_json_and_complete():
    run = RunConfig(output=Path("run"))
    plain = as_plain({"run": run, "more": (Path("x"), OptimizerConfig(lr=1.0))})
    assert plain["more"][0] == "x"
    assert plain["more"][1]["betas"] == [0.9, 0.999]
    assert plain["run"].keys() == vars(run).keys()
    assert json.loads(json.dumps(plain)) == plain


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"momentum": 0.8}, r"momentum=0\.8 has no effect on name=adamw"),
        ({"name": "lars", "eps": 1e-6}, "eps=1e-06 has no effect on name=lars"),
        ({"name": "lars", "betas": (0.9, 0.98)}, "betas=.* has no effect on name=lars"),
    ],
)
def test_settings_of_the_other_optimizer_are_errors(values, message):
    with pytest.raises(ValueError, match=message):
        OptimizerConfig(lr=1.0, **values)


def test_the_limit_of_skipped_steps_where_none_is_skipped():
    with pytest.raises(ValueError, match="max_skipped=3 has no effect with nonfinite=stop: set"):
        RunConfig(output=Path("x"), max_skipped=3)
    assert RunConfig(output=Path("x"), max_skipped=3, nonfinite="skip").max_skipped == 3
