"""A training step of mmengine's models for `eva plan`, on samples that a project makes."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, OPTIMIZERS, init_default_scope
from torch import Tensor, nn

from eva_openmmlab.command_line import train_parser
from eva_openmmlab.config import changed_config
from eva_openmmlab.own_data import image_side
from eva_runs.memory import Step, adapt, state_of
from eva_runs.recipes import find_recipe


def reader(task: str, own_data: Any) -> Callable[[Sequence[str]], Config]:
    """Make the function that reads a recipe of a task with settings, without its data."""

    def read(words: Sequence[str]) -> Config:
        parser = train_parser(task, what="", examples="")
        own_data.add_arguments(parser, training=True)
        args = parser.parse_intermixed_args(words)
        recipe, *settings = sorted([*args.words, *args.cfg_options], key=lambda one: "=" in one)
        given = dict(one.split("=", 1) for one in settings)
        if args.lora:
            given.setdefault("lora.rank", str(args.lora))
        cfg = changed_config(find_recipe(task, recipe), given, args)
        if args.amp:
            cfg.optim_wrapper.update(type="AmpOptimWrapper")
        return cfg

    return read


def build_step(cfg: Config, prepare: Callable[[nn.Module, int], Any]) -> Step:
    """Build a step of one process.

    `prepare` gives the sample of an image of a side, after it has replaced what decides by values.
    """
    init_default_scope(cfg.default_scope)
    model: Any = revert_sync_batchnorm(MODELS.build(cfg.model)).train()
    adapt(model, cfg.get("lora"))
    wrapper, batch, side = cfg.optim_wrapper, cfg.train_dataloader.batch_size, image_side(cfg)
    dtype = torch.bfloat16 if wrapper.get("dtype") == "bfloat16" else torch.float16
    if not hasattr(model, "loss"):
        raise ValueError(f"model.type={type(model).__name__} is for evaluation and has no step")
    samples = [prepare(model, side)] * batch
    images = next(model.parameters()).new_empty(batch, 3, side, side)

    def loss() -> Tensor:
        with torch.autocast("cpu", dtype, enabled=wrapper.type == "AmpOptimWrapper"):
            total: Tensor = model.parse_losses(model(images, samples, mode="loss"))[0]
            return total

    state = state_of(lambda weights: OPTIMIZERS.build({**wrapper.optimizer, "params": weights}))
    accumulate, processes = wrapper.get("accumulative_counts", 1), os.environ.get("WORLD_SIZE", 1)
    return Step(model, loss, state, batch, accumulate, side, processes=int(processes))
