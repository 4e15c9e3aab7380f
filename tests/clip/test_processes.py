"""Runs of the command line that are killed, stopped or continued, and runs in two processes."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from eva_engine.checkpoints.run_checkpoint import RunCheckpoints

STEPS = 12  # 32 pairs, 8 a step, 3 epochs


@pytest.mark.slow  # the loss alone is compared in steps/test_losses.py
def test_two_processes_that_accumulate_give_what_one_process_gives(launch, metrics, tmp_path):
    """At equal steps of 8 pairs, all of which are compared; also from the third step on as one."""
    lines, weights = {}, {}
    still = ("--model.drop-path-rate", 0, "--model.patch-dropout", 0)
    ways = {"one": (1, 8, 1), "two": (2, 2, 2), "two_then_one": (1, 2, 2)}
    for name, (ranks, batch, accumulate) in ways.items():
        if name == "two_then_one":
            shutil.copytree(tmp_path / "two", tmp_path / name)
            for step in (6, 8):
                shutil.rmtree(tmp_path / f"{name}/checkpoints/step_{step:08d}")
        ended = launch(
            tmp_path / name, "--run.batch-size", batch, "--run.accumulate", accumulate, *still,
            "--run.epochs", 2, "--run.ema-decay", 0, "--run.checkpoint-every", 3, ranks=ranks,
        )  # fmt: skip
        assert ended.codes == [0] * ranks, ended.texts
        lines[name] = metrics(tmp_path / name)
        last = RunCheckpoints(tmp_path / name, keep=3).complete()[-1]
        weights[name] = load_file(last / "model.safetensors")
    assert {len(found) for found in lines.values()} == {8 + 2}
    same = {"loss", "lr", "grad_norm", "logit_scale", "val_top1", "val_image_to_text_r1"}
    for name in ("two", "two_then_one"):
        for one, two in zip(lines["one"], lines[name], strict=True):
            for key in same & one.keys():
                assert two[key] == pytest.approx(one[key], rel=5e-4), key
        for key, value in weights["one"].items():
            torch.testing.assert_close(weights[name][key], value, atol=2e-4, rtol=2e-3)
