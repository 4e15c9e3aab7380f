"""Contrastive training on captioned pictures: it learns, and keeps what the recipe says."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from eva_contrastive import training
from eva_contrastive.config import ContrastiveConfig, TowerConfig
from eva_contrastive.model.loading import load_eva_clip
from eva_engine.checkpoints.run_checkpoint import RunCheckpoints
from eva_engine.commands.training import load_recipe
from eva_runs.data_order import seed_everything


@pytest.fixture
def config(recipe, tmp_path):
    config = load_recipe(recipe, ContrastiveConfig)
    run = replace(
        config.run, output=tmp_path / "run", resume=False, ema_decay=0.0, checkpoint_every=0
    )
    model = replace(config.model, drop_path_rate=0.0, patch_dropout=0.0)
    return replace(config, run=run, model=model)


def last_weights(config):
    folder = RunCheckpoints(config.run.output, keep=9).complete()[-1]
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("loss", ["contrastive", pytest.param("sigmoid", marks=pytest.mark.slow)])
def test_it_learns(config, device, metrics, loss):
    """Chance is a quarter; a file of the run gives the model."""
    run = replace(config.run, epochs=5, best_metric="top1", keep_checkpoints=1)
    config = replace(config, run=run, loss=loss)
    training.train(config, device)
    *_, step, evaluation = metrics(run.output)
    assert evaluation["val_top1"] >= 90
    assert {
        "image_to_text_accuracy",
        "text_to_image_accuracy",
        "logit_scale",
        "loss",
        "grad_norm",
    } <= step.keys()
    assert {"val_loss", "val_image_to_text_r1", "val_text_to_image_r1"} <= evaluation.keys()
    best = load_eva_clip(run.output / "best" / "model.safetensors")
    assert (best.text.logit_bias is not None) == (loss == "sigmoid")
    assert best.context_length == 32
    report = (run.output / "report.html").read_text()
    for shown in ("logit scale", "Images that find their captions last", "own caption at rank"):
        assert shown in report
    assert "32 images, 4 classes" in report
    noted = json.loads((run.output / "config.json").read_text())
    assert noted["model"]["text"] == "debug"
    assert noted["data"]["mean"] == pytest.approx([0.481, 0.458, 0.408], abs=1e-3)


def test_a_locked_tower_and_frozen_blocks_stay(config, device, tmp_path):
    save_file(training.build_model(config)[0].state_dict(), tmp_path / "start.safetensors")
    config = replace(
        config,
        model=replace(config.model, init_checkpoint=str(tmp_path / "start.safetensors")),
        vision=TowerConfig(lr=1e-3, locked=True),
        text=TowerConfig(lr=1e-3, frozen_blocks=1),
        run=replace(config.run, epochs=1),
    )
    seed_everything(config.run.seed, purpose="")  # as the run does
    start = training.build_model(config)[0].state_dict()
    training.train(config, device)
    trained = last_weights(config)
    stay = ("visual.", "text.token_embedding", "text.positional", "text.transformer.resblocks.0.")
    moved = {name for name, value in trained.items() if not value.equal(start[name])}
    assert moved == {name for name in start if not name.startswith(stay)}
    assert {"text.logit_scale", "text.transformer.resblocks.1.ln_1.weight"} <= moved


def test_a_second_start_reads_no_header_of_a_shard(config, device, tmp_path):
    """Of 413 million pairs that is hours; here one is damaged, with no change of size or time."""
    shard = Path(shutil.copy(config.data.train, tmp_path))
    data = replace(config.data, train=str(shard), val="", zero_shot="")
    run = replace(config.run, epochs=1)
    training.train(replace(config, data=data, run=run), device)
    status = shard.stat()
    with shard.open("r+b") as stream:
        stream.seek(status.st_size // 2 // 512 * 512)
        stream.write(b"x" * 1024)
    os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns))
    training.train(replace(config, data=data, run=replace(run, resume=True)), device)
