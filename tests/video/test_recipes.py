"""The recipes' numbers beside the paper, the official configs and the official logs."""

from pathlib import Path

import pytest
import torch

from eva_backbone.layer_decay import freeze_layers
from eva_backbone.variants import IMAGENET_MEAN, IMAGENET_STD
from eva_data.kinetics import kinetics_classes
from eva_engine.commands.training import load_recipe
from eva_engine.steps.parameter_groups import layer_decay_groups, warmup_cosine
from eva_video.config import VideoConfig
from eva_video.kinetics722 import PUBLISHED
from eva_video.model.classifier import build_video_classifier

CONFIGS = Path(__file__).parents[2] / "video" / "configs"
# recipe -> data set, frames, lr, min lr, warm-up, epochs, layer decay, drop path, mixup, cutmix,
# clips of a process, forward passes of a step, processes, steps an epoch: paper Tables 15 and 16,
# the official configs and logs
OFFICIAL = {
    "eva_g_k722_8f": ("k722", 8, 8e-6, 8e-8, 5, 40, 1.0, 0.3, 0.8, 1.0, 2, 1, 128, 2458),
    "eva_g_k400_16f": ("k400", 16, 1e-6, 1e-6, 0, 1, 0.95, 0.2, 0.0, 0.0, 1, 4, 64, 916),
    "eva_g_k600_16f": ("k600", 16, 1e-6, 1e-6, 0, 2, 0.95, 0.2, 0.0, 0.0, 1, 4, 64, 1612),
    "eva_g_k700_16f": ("k700", 16, 1e-6, 1e-6, 0, 2, 0.95, 0.2, 0.0, 0.0, 1, 4, 64, 2086),
}
OURS = {  # in the same form; no settings were published
    "eva_g_k400_8f_direct": ("k400", 8, 8e-6, 8e-8, 5, 40, 1.0, 0.3, 0.8, 1.0, 2, 1, 128, 916),
    "eva_g_k400_16f_24gb": ("k400", 16, 1e-6, 1e-6, 0, 1, 0.95, 0.2, 0.0, 0.0, 4, 64, 1, 916),
}
RECIPES = OFFICIAL | OURS
# Epoch, step of 2458 and learning rate in the log of Kinetics-722.
LOGGED = [
    (0, 0, 0.0), (0, 1200, 0.781e-6), (4, 1200, 7.181e-6), (5, 0, 8.0e-6), (5, 2450, 7.984e-6),
    (6, 240, 7.981e-6), (12, 480, 7.202e-6), (18, 720, 5.5e-6), (20, 1200, 4.751e-6),
    (24, 960, 3.371e-6), (30, 1200, 1.438e-6), (36, 1440, 0.264e-6), (39, 2450, 0.080e-6),
]  # fmt: skip


def load(name):
    return load_recipe(CONFIGS / f"{name}.py", VideoConfig)


@pytest.mark.parametrize("name", RECIPES)
def test_the_numbers(name):
    config = load(name)
    model, augment, optimizer, run = config.model, config.augment, config.optimizer, config.run
    data_set, *numbers = RECIPES[name]
    assert [
        model.frames, optimizer.lr, optimizer.min_lr, optimizer.warmup_epochs, run.epochs,
        optimizer.layer_decay, model.drop_path_rate, augment.mixup, augment.cutmix,
        run.batch_size, run.accumulate,
    ] == numbers[:-2]  # fmt: skip
    *_, batch, accumulate, processes, steps = numbers
    assert batch * accumulate * processes == 256
    assert PUBLISHED[f"{data_set}_train"] // 256 == steps
    # the same in all: Tables 15 and 16
    assert (optimizer.name, optimizer.betas, optimizer.eps) == ("adamw", (0.9, 0.98), 1e-6)
    assert (optimizer.weight_decay, optimizer.clip_grad, run.ema_decay) == (0.05, 0, 0)
    assert (model.variant, model.image_size) == ("eva_g_patch14", 224)
    assert (augment.scales, augment.flip) == ((1, 0.875, 0.75, 0.66), 0.5)
    assert (augment.color_jitter, augment.gray, augment.label_smoothing) == (0.8, 0.2, 0.1)
    # of the official code
    mixed = bool(augment.mixup)
    assert (augment.jitter_each, augment.mixup_switch) == ("frame", 0.5)
    assert augment.pairing == ("permute" if mixed else "reverse")
    assert (config.data.sampling, config.data.mean, config.data.std) == (
        "tsn", IMAGENET_MEAN, IMAGENET_STD
    )  # fmt: skip
    assert model.activation_checkpointing
    assert (run.precision, run.zero_stage) == ("bf16" if "24gb" in name else "fp16", 1)
    assert model.frozen_blocks == (20 if "24gb" in name else 0)


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
            num_classes=len(kinetics_classes(RECIPES[name][0])),
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
