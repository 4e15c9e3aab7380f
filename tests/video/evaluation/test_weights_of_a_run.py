"""Weights that a training has written: its own validation, and what people do with them."""

import json
from dataclasses import replace

import pytest

from eva_video import training
from eva_video.commands import evaluate as main
from eva_video.inference.predictor import VideoPredictor


def test_an_evaluation_is_the_validation_of_the_training(config, device, tmp_path, metrics):
    """Frames, classes, pixels and sampling are those of the run, without an option."""
    data = replace(config.data, sampling="dense", frame_interval=2, mean=(0.4, 0.5, 0.6))
    run = replace(config.run, epochs=1, ema_decay=0.0, best_metric="loss", checkpoint_every=0)
    training.train(replace(config, data=data, run=run), device)
    best = run.output / "best" / "model.safetensors"
    main([
        "--weights", str(best), "--data", data.val, "--clips", "1", "--crops", "1", "--workers",
        "0", "--device", "cpu", "--output", str(tmp_path / "out"),
    ])  # fmt: skip
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    (validation,) = [line for line in metrics(run.output) if "val_loss" in line]
    score = found["sets"]["data"]
    assert score["loss"] == pytest.approx(validation["val_loss"], rel=1e-5)
    assert score["top1"] == pytest.approx(validation["val_top1"])
    expected = {"frames": 4, "image_size": 32, "sampling": "dense", "frame_interval": 2}
    assert expected.items() <= found["settings"].items()

    predictor = VideoPredictor.from_weights(best, device="cpu")
    assert predictor.class_names == ("blue", "green", "red")
    line = json.loads((tmp_path / "out" / "videos.jsonl").read_text().splitlines()[0])
    names = {one.name: one.probability for one in predictor(line["video"])}
    assert sum(names.values()) == pytest.approx(1, abs=1e-5)
    assert predictor.sampling.kind == "dense"
