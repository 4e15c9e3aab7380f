"""A training step of mmengine's models for `eva plan`, on samples that a project makes."""

import os
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, OPTIMIZERS, init_default_scope
from torch import Tensor, nn

from eva_openmmlab.command_line import train_parser
from eva_openmmlab.config import apply_request, load_config, set_batch
from eva_openmmlab.own_data import image_side
from eva_runs.memory import MeasuredStep, add_configured_adapters, optimizer_bytes_per_weight
from eva_runs.recipes import find_recipe
from eva_runs.request import RunRequest


def reader(task: str, own_data: Any) -> Callable[[Sequence[str]], Config]:
    """Make the function that reads a recipe of a task with settings, without its data."""

    def read(words: Sequence[str]) -> Config:
        parser = train_parser(task, title="", examples="")
        own_data.add_arguments(parser, training=True)
        args = parser.parse_intermixed_args(words)
        recipe, *settings = sorted([*args.words, *args.cfg_options], key=lambda word: "=" in word)
        overrides = dict(word.split("=", 1) for word in settings)
        cfg = load_config(find_recipe(task, recipe), overrides)
        request = RunRequest.from_options(args)
        apply_request(cfg, request)
        if request.batch:
            set_batch(cfg, request)
        return cfg

    return read


def build_step(cfg: Config, prepare: Callable[[nn.Module, int], Any]) -> MeasuredStep:
    """Build a step of one process.

    `prepare` gives the sample of an image of a side, after it has replaced what decides by values.
    """
    init_default_scope(cfg.default_scope)
    model: Any = revert_sync_batchnorm(MODELS.build(cfg.model)).train()
    add_configured_adapters(model, cfg.get("lora"))
    wrapper, batch, side = cfg.optim_wrapper, cfg.train_dataloader.batch_size, image_side(cfg)
    dtype = torch.bfloat16 if wrapper.get("dtype") == "bfloat16" else torch.float16
    samples = [prepare(model, side)] * batch
    images = next(model.parameters()).new_empty(batch, 3, side, side)

    def loss() -> Tensor:
        with torch.autocast("cpu", dtype, enabled=wrapper.type == "AmpOptimWrapper"):
            total: Tensor = model.parse_losses(model(images, samples, mode="loss"))[0]
            return total

    state = optimizer_bytes_per_weight(
        lambda weights: OPTIMIZERS.build({**wrapper.optimizer, "params": weights})
    )
    accumulate, processes = wrapper.get("accumulative_counts", 1), os.environ.get("WORLD_SIZE", 1)
    return MeasuredStep(model, loss, state, batch, accumulate, side, processes=int(processes))


def match(pred_instances: Any, gt_instances: Any, **_: Any) -> Any:
    """Give the first queries the objects, where a Hungarian matching would need values."""
    matched = torch.zeros(len(pred_instances.scores), dtype=torch.int64)
    matched[: len(gt_instances.labels)] = torch.arange(len(gt_instances.labels)) + 1
    labels = gt_instances.labels
    return SimpleNamespace(num_gts=len(labels), gt_inds=matched, labels=labels)
