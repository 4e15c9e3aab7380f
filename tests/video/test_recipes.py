"""The recipes' numbers beside the paper, the official configs and the official logs."""

from pathlib import Path

import pytest
import torch

from eva_backbone.layer_decay import freeze_layers
from eva_data.kinetics import kinetics_classes
from eva_engine.commands.training import load_recipe
from eva_engine.steps.parameter_groups import layer_decay_groups, warmup_cosine
from eva_video.config import VideoConfig
from eva_video.kinetics722 import PUBLISHED
from eva_video.model.classifier import build_video_classifier

CONFIGS = Path(__file__).parents[2] / "video" / "configs"
# recipe -> steps of an epoch in the official logs
STEPS = {
    "eva_g_k722_8f": 2458,
    "eva_g_k400_16f": 916,
    "eva_g_k600_16f": 1612,
    "eva_g_k700_16f": 2086,
}
# Epoch, step of 2458 and learning rate in the log of Kinetics-722.
LOGGED = [
    (0, 0, 0.0), (0, 1200, 0.781e-6), (4, 1200, 7.181e-6), (5, 0, 8.0e-6), (5, 2450, 7.984e-6),
    (6, 240, 7.981e-6), (12, 480, 7.202e-6), (18, 720, 5.5e-6), (20, 1200, 4.751e-6),
    (24, 960, 3.371e-6), (30, 1200, 1.438e-6), (36, 1440, 0.264e-6), (39, 2450, 0.080e-6),
]  # fmt: skip


def load(name):
    return load_recipe(CONFIGS / f"{name}.py", VideoConfig)


def test_the_steps_of_an_epoch_are_those_of_the_logs():
    assert {n: PUBLISHED["train"][n.split("_")[2]] // 256 for n in STEPS} == STEPS


def test_the_schedule_is_that_of_the_log():
    config = load("eva_g_k722_8f")
    optimizer, steps = config.optimizer, 2458
    for epoch, step, logged in LOGGED:
        rate = warmup_cosine(
            epoch * steps + step,
            peak=optimizer.lr,
            end=optimizer.min_lr,
            warmup_steps=int(optimizer.warmup_epochs * steps),
            total_steps=config.run.epochs * steps,
        )
        assert rate == pytest.approx(logged, abs=1.5e-9), (epoch, step)  # the log has 9 digits


def build(name):
    config = load(name)
    with torch.device("meta"):
        return build_video_classifier(
            config.model.variant,
            num_classes=len(kinetics_classes("k400")),
            frames=config.model.frames,
            img_size=config.model.image_size,
            drop_path_rate=config.model.drop_path_rate,
            activation_checkpointing=config.model.activation_checkpointing,
        )


def test_layer_decay_is_that_of_the_log():
    """The log of Kinetics-400 has 0.000000122 for the embeddings, 0.000001000 for the head."""
    config = load("eva_g_k400_16f")
    groups = layer_decay_groups(build("eva_g_k400_16f"), config.optimizer, depth=config.model.depth)
    scales = {group.lr_scale for group in groups}
    assert len(scales) == 42
    assert min(scales) * config.optimizer.lr == pytest.approx(1.22e-7, abs=5e-10)
    assert max(scales) == 1


def test_memory_of_the_24_gb_recipe():
    """The sum in its docstring, in GiB."""
    config, model = load("eva_g_k400_16f_24gb"), build("eva_g_k400_16f_24gb")
    frozen = config.model.frozen_blocks
    freeze_layers(model, depth=config.model.depth, below=frozen + 1)
    parameters = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == 505_541_776
    tokens, clips, width, mlp = 1 + 16 * 256, config.run.batch_size, 1408, 6144
    parts = [
        2 * parameters, 6 * trained, 12 * trained, 6 * trained, 2 * 5e8,
        (config.model.depth - frozen) * tokens * width * 2 * clips,
        2 * tokens * (8 * width + 2 * mlp) * 2 * clips,
    ]  # fmt: skip
    gib = [part / 2**30 for part in parts]
    assert gib == pytest.approx([1.9, 2.8, 5.7, 2.8, 0.9, 0.9, 1.4], abs=0.06)
    assert sum(gib) + 1 == pytest.approx(17.4, abs=0.1)
