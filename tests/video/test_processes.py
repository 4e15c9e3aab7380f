"""Runs of the command line that are killed, stopped or continued, and runs in two processes."""

import pytest
import torch
from safetensors.torch import load_file

STEPS = 12  # 24 videos, 4 a step, 2 epochs


@pytest.mark.slow
def test_two_processes_that_accumulate_give_what_one_process_gives(launch, metrics, tmp_path):
    """At equal steps of 4 clips; a clip does not depend on its process. Mixing does: it is off."""
    lines, weights = {}, {}
    plain = ("--augment.mixup", 0, "--augment.cutmix", 0, "--augment.pairing", "reverse")
    ways = {"one": (1, 4, 1), "two": (2, 1, 2)}
    for name, (ranks, batch, accumulate) in ways.items():
        ended = launch(
            tmp_path / name, "--run.batch-size", batch, "--run.accumulate", accumulate, *plain,
            "--model.drop-path-rate", 0, "--run.best-metric", "top1", ranks=ranks,
        )  # fmt: skip
        assert ended.codes == [0] * ranks, ended.texts
        lines[name] = metrics(tmp_path / name)
        weights[name] = load_file(
            tmp_path / name / f"checkpoints/step_{STEPS:08d}/model.safetensors"
        )
    assert len(lines["two"]) == len(lines["one"]) == STEPS + 2
    for one, two in zip(lines["one"], lines["two"], strict=True):
        for key in {"loss", "lr", "grad_norm", "val_loss", "val_top1", "val_top5"} & one.keys():
            assert two[key] == pytest.approx(one[key], rel=2e-4), key
    for key, value in weights["one"].items():
        torch.testing.assert_close(weights["two"][key], value, atol=1e-4, rtol=1e-3)
