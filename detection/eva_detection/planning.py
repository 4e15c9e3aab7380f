"""A detector's training step for `eva plan`, given boxes where values would decide."""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.structures import BitMasks, Boxes, Instances, Keypoints
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig
from torch import Tensor

from eva_detection.building import build, image_side, target_of, training_precision
from eva_detection.command_line import parse
from eva_detection.config.settings import apply_request, load_recipe
from eva_runs.data_order import choose_micro_batch_size
from eva_runs.memory import (
    OBJECTS,
    MeasuredStep,
    add_configured_adapters,
    make_boxes,
    optimizer_bytes_per_weight,
)


def read_recipe(words: Sequence[str]) -> DictConfig:
    """Read a recipe with settings, without its data."""
    request = parse(words)
    cfg = load_recipe(request.recipe)
    apply_request(cfg, request)
    images = cfg.dataloader.train.total_batch_size
    share = choose_micro_batch_size(images, request.processes, largest=images)
    cfg.dataloader.train.total_batch_size = share
    cfg.processes = request.processes
    return cfg


def step(cfg: DictConfig) -> MeasuredStep:
    """Build a step of one process, in which heads get as many regions as the recipe samples."""
    model = build(cfg.model, "model").train()
    add_configured_adapters(model, cfg.get("lora"))
    side, batch = image_side(cfg), cfg.dataloader.train.total_batch_size
    channels = cfg.model.backbone.net.get("in_channels", 3)
    image = next(model.parameters()).new_empty(channels, side, side)
    entries = [{"image": image, "instances": _objects(model, side)}] * batch
    dtype = torch.float16 if training_precision(cfg.train) == "fp16" else torch.bfloat16
    settings = {k: v for k, v in cfg.optimizer.items() if k not in ("_target_", "params")}

    def loss() -> Tensor:
        with EventStorage(0), torch.autocast("cpu", dtype, enabled=cfg.train.amp.enabled):
            return torch.stack([*model(entries).values()]).sum()

    state = optimizer_bytes_per_weight(
        lambda weights: target_of(cfg.optimizer)(weights, **settings)
    )
    accumulate, processes = cfg.train.get("accumulate", 1), cfg.processes
    return MeasuredStep(model, loss, state, batch, accumulate, side, processes=processes)


def _objects(model: Any, side: int) -> Instances:
    """Make the objects of an image; the RPN proposes them and others, and the cascade keeps all."""
    count = model.proposal_generator.post_nms_topk[True]
    boxes, zeros = make_boxes(count, side), torch.zeros(count)

    def propose(anchors: Any, logits: Any, deltas: Any, sizes: Sequence[Any]) -> list[Instances]:
        proposals = dict(proposal_boxes=Boxes(boxes), objectness_logits=zeros)
        return [Instances(size, **proposals) for size in sizes]

    model.proposal_generator.predict_proposals = propose
    predictors = model.roi_heads.box_predictor  # one, or those of a cascade
    for predictor in [predictors] if hasattr(predictors, "predict_boxes") else predictors:
        predictor.predict_boxes = lambda _, proposals: [
            proposal.proposal_boxes.tensor for proposal in proposals
        ]
    objects = dict(gt_boxes=Boxes(boxes[:OBJECTS]), gt_classes=zeros[:OBJECTS].long())
    masks = BitMasks(torch.zeros(OBJECTS, side, side, dtype=torch.bool))
    if model.roi_heads.keypoint_on:
        count = model.roi_heads.keypoint_head.num_keypoints
        middles = boxes[:OBJECTS].reshape(-1, 2, 2).mean(1)  # (n, 2)
        points = torch.cat([middles, torch.full((OBJECTS, 1), 2.0)], dim=1)
        objects["gt_keypoints"] = Keypoints(points[:, None].repeat(1, count, 1))
    return Instances((side, side), **objects, gt_masks=masks)
