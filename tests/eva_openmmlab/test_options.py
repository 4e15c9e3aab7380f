"""`--cfg-options`: what the program reads is accepted, and what nothing would read is not."""

import inspect

import pytest
from mmengine.runner import Runner, set_random_seed
from torch.utils.data import DataLoader

from eva_openmmlab.config import names, options
from eva_runs.recipes import find_recipe


@pytest.fixture(scope="module")
def cfg():
    """A recipe with all that a run has."""
    return options.load_config(find_recipe("segmentation", "ade20k/mask2former_eva_g_896_20k"))


def test_unknown_options_are_refused_and_new_arguments_of_a_type_are_not(cfg):
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
        "optim_wrapper.dtype",
        "model.backbone.norm_cfg.type",
        "train_dataloader.drop_last",
        "val_dataloader.pin_memory",
        "resume",
    ],
)
def test_what_the_runner_and_the_loaders_read_is_accepted(name, cfg):
    parts = name.split(".")
    node = cfg
    for part in parts[:-1]:
        node = node.get(part, {})
    assert name == "resume" or parts[-1] not in node  # the config does not have it yet
    options.check_options(cfg, {name: 1})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("randomness.sed", "randomness has no 'sed'; close to it: seed"),
        ("auto_scale_lr.enabled", "auto_scale_lr has no 'enabled'; close to it: enable"),
        ("train_dataloader.bach_size", "has no 'bach_size'; close to it: batch_size"),
        ("test_dataloader.pin_memry", "has no 'pin_memry'"),
        ("randomnes.seed", "the config has no 'randomnes'"),
        ("find_unused_parameter", "the config has no 'find_unused_parameter'"),
        ("optim_wrapper.optimiser.lr", "has no 'optimiser'; close to it: optimizer"),
        ("pin_memory", "the config has no 'pin_memory'"),
    ],
)
def test_what_nothing_reads_is_refused(name, message, cfg):
    with pytest.raises(ValueError, match=f"option {name}: .*{message}"):
        options.check_options(cfg, {name: 1})


@pytest.mark.parametrize(
    ("function", "known"),
    [
        (Runner.__init__, names.RUNNER | {"self", "cfg"}),
        (set_random_seed, names.RANDOMNESS),
        (DataLoader.__init__, names.LOADING | {"self"}),
    ],
)
def test_the_names_that_are_written_down_are_those_of_the_signatures(function, known):
    assert {*inspect.signature(function).parameters} == known


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            ("train_cfg.max_iters", "abc"),
            "train_cfg.max_iters must be a positive integer, got 'a",
        ),
        (("train_cfg.val_interval", 0), "val_interval must be a positive integer, got 0"),
        (("train_dataloader.batch_size", 1.5), "batch_size must be a positive integer, got 1.5"),
        (
            ("val_dataloader.num_workers", -1),
            "num_workers must be an integer of at least 0, got",
        ),
        (("optim_wrapper.accumulative_counts", True), "a positive integer, got True"),
        (
            ("optim_wrapper.optimizer.lr", "high"),
            "lr must be a number that is not negative",
        ),
        (("optim_wrapper.optimizer.lr", float("inf")), "got inf"),
    ],
)
def test_values_that_cannot_work_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        options.check_values(dict([setting]))


def test_other_values_are_left_to_what_reads_them():
    options.check_values(
        {
            "train_cfg.max_iters": 3,
            "val_dataloader.num_workers": 0,
            "default_hooks.checkpoint.interval": -1,
            "optim_wrapper.optimizer.lr": 1e-3,
            "train_dataloader.batch_size": None,
            "model.backbone.depth": "abc",
        }
    )
