"""Fine-tuning on real digits, its settings, its recipes."""

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from eva_classification import training
from eva_classification.config import (
    AugmentConfig,
    ClassificationConfig,
    DataConfig,
    ModelConfig,
)
from eva_classification.models import build_classifier, load_classifier
from eva_engine.checkpoints.run_checkpoint import RunCheckpoints
from eva_engine.commands.training import load_recipe, parse
from eva_engine.config import OptimizerConfig, RunConfig
from eva_engine.flops import training_flops

CONFIGS = Path(__file__).parents[2] / "classification" / "configs"


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Real handwritten digits 0, 1 and 4 in folders: 40 of each to train on, 20 others."""
    folder = tmp_path_factory.mktemp("digits")
    images, labels = load_digits(return_X_y=True)
    for digit in (0, 1, 4):
        for number, values in enumerate(images[labels == digit][:60]):
            split = "train" if number < 40 else "val"
            path = folder / split / str(digit) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = (255 - values.reshape(8, 8) * 15.9).astype(np.uint8)
            Image.fromarray(pixels).resize((32, 32), Image.Resampling.BICUBIC).save(path)
    return folder


@pytest.fixture
def config(digits, tmp_path):
    return ClassificationConfig(
        model=ModelConfig(variant="eva_debug", image_size=32, init_checkpoint="eva_debug"),
        data=DataConfig(train=str(digits / "train"), val=str(digits / "val")),
        augment=AugmentConfig(scale=(0.8, 1.0), flip=0.0, auto_augment=""),
        optimizer=OptimizerConfig(lr=1e-3, warmup_epochs=0.5, layer_decay=0.8),
        run=RunConfig(
            output=tmp_path / "run", epochs=3, batch_size=12, workers=0, tensorboard=False,
            zero_stage=0, evaluate_every=0,
        ),
    )  # fmt: skip


def _results(config):
    text = (config.run.output / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_fine_tuning_learns_digits(config, device):
    config = replace(config, run=replace(config.run, epochs=6))
    training.train(config, device)
    *steps, evaluation = _results(config)
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert evaluation["val_top1"] >= 90
    saved = RunCheckpoints(config.run.output, keep=1).complete()[-1] / "model.safetensors"
    model = load_classifier(saved)
    assert model.num_classes == 3
    classes = json.loads((config.run.output / "config.json").read_text())["class_names"]
    assert classes == ["0", "1", "4"]
    page = (config.run.output / "report.html").read_text()
    for text in ("Learning rate", "Confusion", "Best: confident and right"):
        assert text in page
    assert f"--weights {config.run.output}" in page


@pytest.mark.slow
def test_a_probe_of_the_bundled_backbone_beats_that_of_a_random_one(config, device, tmp_path):
    scores = {}
    for weights in ("eva_debug", ""):
        model = replace(config.model, linear_probe=True, init_checkpoint=weights)
        run = replace(config.run, output=tmp_path / f"probe_{weights}", epochs=6)
        optimizer = OptimizerConfig(name="lars", lr=2.0, warmup_epochs=1, weight_decay=0.0)
        probe = replace(config, model=model, run=run, optimizer=optimizer)
        training.train(probe, device)
        scores[weights] = _results(probe)[-1]
    assert scores["eva_debug"]["val_loss"] < scores[""]["val_loss"] - 0.1
    assert scores["eva_debug"]["val_top1"] > scores[""]["val_top1"]


# Settings


def test_a_probe_takes_the_norm_with_the_class_token(config, tmp_path, caplog):
    tuned = build_classifier("eva_debug", num_classes=3, img_size=32)  # fc_norm and no norm
    torch.save(tuned.state_dict(), tmp_path / "tuned.pt")
    model = replace(config.model, linear_probe=True, init_checkpoint=str(tmp_path / "tuned.pt"))
    with pytest.raises(ValueError, match=r"tuned\.pt .*model\.pooling"):
        training.build_model(replace(model, pooling="cls"), num_classes=3)
    probe = training.build_model(replace(model, pooling="mean"), num_classes=3)
    assert torch.equal(probe.fc_norm.weight, tuned.fc_norm.weight)
    assert "fc_norm" not in caplog.text
    training.build_model(replace(model, init_checkpoint="eva_debug"), num_classes=3)
    assert "fc_norm" in caplog.text


def test_the_trunk_of_a_probe_in_half_precision(config):
    model = replace(config.model, pooling="cls", linear_probe=True)
    images = torch.randn(4, 3, 32, 32)
    exact = training.build_model(model, num_classes=3).eval().pool(images)
    half = training.build_model(replace(model, trunk_precision="bf16"), num_classes=3).eval()
    assert half.pool(images).dtype == torch.float32
    assert 1e-5 < (half.pool(images) - exact).norm() / exact.norm() < 5e-2
    build = partial(training.build_model, num_classes=3)
    counted = [training_flops(build, replace(model, trunk_precision=one), backward=False)
               for one in ("fp32", "bf16")]  # fmt: skip
    assert counted[0] == counted[1]


def test_a_run_goes_on_with_its_own_classes_alone(config, digits, device, tmp_path):
    training.train(replace(config, run=replace(config.run, epochs=1)), device)
    for part in ("train", "val"):
        shutil.copytree(digits / part, tmp_path / part)
        (tmp_path / part / "4").rename(tmp_path / part / "00")  # the first, where it was the last
    data = replace(config.data, train=str(tmp_path / "train"), val=str(tmp_path / "val"))
    again = replace(config, data=data, run=replace(config.run, resume=True))
    with pytest.raises(ValueError, match=r"1.*00"):
        training.train(again, device)


# Recipes

RECIPES = sorted(path.name for path in CONFIGS.glob("*.py"))


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_loads_and_builds(name):
    config = load_recipe(CONFIGS / name, ClassificationConfig)
    with torch.device("meta"):
        model = training.build_model(replace(config.model, init_checkpoint=""), num_classes=1000)
    assert model.img_size == config.model.image_size
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert (trained == 1000 * (model.embed_dim + 1)) == config.model.linear_probe


def test_own_training_data_does_not_take_the_recipes_validation_along(capsys):
    recipe, program = "eva_debug_digits", "classification/train.py"
    for words in (["--data.train", "photos"], ["data.train=photos"], ["--data.train=photos"]):
        with pytest.raises(SystemExit):
            parse(ClassificationConfig, [recipe, *words], program=program)
        message = capsys.readouterr().err
        assert "name --data.val DIR too, or --data.val-share 0.1" in message
        assert "--data.train photos" in message
    own = load_recipe(CONFIGS / f"{recipe}.py", ClassificationConfig).data
    for more in (["--data.val", "a"], ["--data.val", own.val], ["data.val="]):
        words = [recipe, "--data.train", "photos", "--run.best-metric", "", *more]
        assert parse(ClassificationConfig, words, program=program).config.data.train == "photos"
    words = [recipe, "--data.train", own.train]
    assert parse(ClassificationConfig, words, program=program).config.data.val == own.val
