"""Runs in processes of their own: killed, signalled, in two ranks."""

import pytest
from safetensors.torch import load_file


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
