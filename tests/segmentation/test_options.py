"""`--cfg-options`: what the program reads is accepted, and what nothing would read is not."""

import pytest
import torch
from mmengine.config import Config

from eva_openmmlab.config import options

ADE = "ade20k/mask2former_eva_g_896_20k"


def test_unknown_options_are_refused_and_new_arguments_of_a_type_are_not(load_config):
    cfg = load_config(ADE)
    options.check_options(cfg, {"model.backbone.n_points": 2, "param_scheduler.0.power": 0.9})
    with pytest.raises(ValueError, match="has no 'learning_rate'"):
        options.check_options(cfg, {"learning_rate": 2})
    with pytest.raises(ValueError, match="and has no 'x'"):
        options.check_options(cfg, {"load_from.x": 2})


@pytest.mark.parametrize(
    "name",
    [
        "randomness.seed",
        "randomness.deterministic",
        "find_unused_parameters",
        "auto_scale_lr.enable",
        "custom_hooks",
        "optim_wrapper.clip_grad.max_norm",
        "model.backbone.norm_cfg.type",
        "train_dataloader.drop_last",
        "val_dataloader.pin_memory",
        "resume",
    ],
)
def test_what_the_runner_and_the_loaders_read_is_accepted(name, load_config):
    cfg = load_config(ADE)
    parts = name.split(".")
    node = cfg
    for part in parts[:-1]:
        node = node.get(part, {})
    assert name == "resume" or parts[-1] not in node  # the config does not have it yet
    options.check_options(cfg, {name: 1})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("randomness.sed", "randomness has no 'sed'; close names: seed"),
        ("auto_scale_lr.enabled", "auto_scale_lr has no 'enabled'; close names: enable"),
        ("train_dataloader.bach_size", "has no 'bach_size'; close names: batch_size"),
        ("test_dataloader.pin_memry", "has no 'pin_memry'"),
        ("randomnes.seed", "the config has no 'randomnes'"),
        ("find_unused_parameter", "the config has no 'find_unused_parameter'"),
        ("optim_wrapper.optimiser.lr", "has no 'optimiser'; close names: optimizer"),
        ("pin_memory", "the config has no 'pin_memory'"),
    ],
)
def test_what_nothing_reads_is_refused(name, message, load_config):
    with pytest.raises(ValueError, match=f"option {name}: .*{message}"):
        options.check_options(load_config(ADE), {name: 1})


def test_a_seed_that_is_named_reaches_the_run_and_its_config(tiny_run):
    assert "randomness" not in Config.fromfile(tiny_run / "tiny.py")
    assert Config.fromfile(tiny_run / "run" / "tiny.py").randomness == {"seed": 3}
    saved = torch.load(tiny_run / "run" / "iter_1.pth", weights_only=False)  # a file of ours
    assert saved["meta"]["seed"] == 3
