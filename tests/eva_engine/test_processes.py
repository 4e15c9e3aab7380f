"""Runs in processes of their own: killed, signalled, in two ranks."""

import pytest
from safetensors.torch import load_file

OFTEN = {"run__checkpoint_every": 3, "run__ema_decay": 0.9, "run__resume": True}


def assert_same_result(metrics, one, other, *, steps=24):
    """Metrics and saved weights of two runs are the same bit for bit."""
    assert metrics(one) == metrics(other)
    for name in ("model", "model_ema"):
        file = f"checkpoints/step_{steps:08d}/{name}.safetensors"
        first, second = load_file(one / file), load_file(other / file)
        assert first.keys() == second.keys()
        assert all(first[key].equal(second[key]) for key in first)


@pytest.mark.parametrize("stage", [1, *(pytest.param(s, marks=pytest.mark.slow) for s in (0, 2))])
def test_two_ranks_give_the_result_of_one(launch, metrics, tmp_path, stage):
    both = {"run__ema_decay": 0.9, "run__zero_stage": stage, "dropout": 0.0}
    assert launch(tmp_path / "one", **both).codes == [0]
    two = launch(tmp_path / "two", ranks=2, run__batch_size=4, **both)
    assert two.codes == [0, 0], two.texts
    one_lines, two_lines = metrics(tmp_path / "one"), metrics(tmp_path / "two")
    assert len(one_lines) == len(two_lines) == 27
    for one, two in zip(one_lines, two_lines, strict=True):
        assert one.keys() == two.keys()
        for name in set(one) - {"error_root"}:  # a mean of roots, over other parts
            assert one[name] == pytest.approx(two[name], abs=1e-5, rel=1e-5), (name, one, two)
    for file in ("model", "model_ema"):
        path = f"checkpoints/step_00000024/{file}.safetensors"
        first, second = load_file(tmp_path / "one" / path), load_file(tmp_path / "two" / path)
        assert all((first[key] - second[key]).abs().max() < 1e-5 for key in first)


@pytest.mark.slow  # two processes that stop and continue are a promise too
def test_two_ranks_resume(launch, metrics, tmp_path):
    """A signal to one rank stops both; both parts of the state and the average come back."""
    options = {"ranks": 2, "run__batch_size": 4, "run__precision": "bf16", **OFTEN}
    launch(tmp_path / "whole", **options)
    stopped = launch(tmp_path / "stopped", term_at=7, on_rank=1, **options)
    assert stopped.codes == [75, 75], stopped.texts
    again = launch(tmp_path / "stopped", **options)
    assert again.codes == [0, 0], again.texts
    assert_same_result(metrics, tmp_path / "whole", tmp_path / "stopped")
