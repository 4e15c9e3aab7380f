"""Runs of the command line that are killed, stopped or continued, and runs in two processes."""

import pytest
import torch
from safetensors.torch import load_file

from eva_engine.checkpoints.run_checkpoint import RunCheckpoints

STEPS = 12  # 24 videos, 4 a step, 2 epochs


def test_killed_stopped_and_continued_with_other_workers(
    launch, metrics, assert_same_end, tmp_path
):
    """kill -9 inside a save, kill -9 anywhere, SIGTERM to all processes; with 0 and 2 workers."""
    whole, part = tmp_path / "whole", tmp_path / "part"
    ended = launch(whole)
    assert ended.codes == [0], ended.texts
    killed = launch(part, command="killed_in_save_of_4", workers=2)
    assert killed.codes == [-9]
    assert (part / "checkpoints/.writing_step_00000004").is_dir()
    assert [path.name for path in RunCheckpoints(part, keep=3).complete()][-1] == "step_00000002"
    killed = launch(part, signal="SIGKILL", lines=5, after=0.02, group=False)
    assert killed.codes == [-9], killed.texts
    stopped = launch(part, workers=2, signal="SIGTERM", lines=9, after=0.0, group=True)
    assert stopped.codes == [75], stopped.texts
    ended = launch(part)
    assert ended.codes == [0], ended.texts
    assert "resume   after step" in ended.texts[0]
    assert_same_end(whole, part)
    assert len({line["loss"] for line in metrics(whole) if "loss" in line}) == STEPS


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
