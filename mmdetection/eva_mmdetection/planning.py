"""A detector's training step for `eva plan`, given boxes where values would decide."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmdet.models.dense_heads import Mask2FormerHead
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.structures import InstanceData

from eva_mmdetection.data import own_data
from eva_mmdetection.model.heads import EVACascadeRoIHead
from eva_openmmlab import planning
from eva_runs.memory import OBJECTS, MeasuredStep, make_boxes

read_recipe = planning.reader("mmdetection", own_data)


def step(cfg: Config) -> MeasuredStep:
    """Build a step of one process, in which heads get as many regions as the recipe samples."""
    return planning.build_step(cfg, _sample)


def _sample(model: Any, side: int) -> DetDataSample:
    masks = BitmapMasks(np.zeros((OBJECTS, side, side), np.uint8), side, side)
    metas = dict(img_shape=(side, side), pad_shape=(side, side), batch_input_shape=(side, side))
    boxes = make_boxes(OBJECTS, side)
    labels = torch.zeros(len(boxes), dtype=torch.int64)
    if isinstance(getattr(model, "panoptic_head", None), Mask2FormerHead):
        model.panoptic_head.assigner.assign = planning.match
    else:
        _propose(model, side)
    objects = InstanceData(bboxes=boxes, labels=labels, masks=masks)
    return DetDataSample(gt_instances=objects, metainfo=metas)


def _propose(model: Any, side: int) -> None:
    if not isinstance(getattr(model, "roi_head", None), EVACascadeRoIHead):
        raise ValueError(
            f"model.type={type(model).__name__}: a step is planned for recipes of this toolkit "
            "(`eva recipes mmdetection`), whose heads are EVACascadeRoIHead and Mask2FormerHead's"
        )
    boxes = make_boxes(model.train_cfg.rpn_proposal.max_per_img, side)
    labels = torch.zeros(len(boxes), dtype=torch.int64)

    def propose(*_: Any, batch_img_metas: Sequence[Any], **__: Any) -> list[InstanceData]:
        rows = dict(bboxes=boxes, scores=labels.float(), labels=labels)
        return [InstanceData(**rows) for _ in batch_img_metas]

    def keep(stage: int, sampled: Sequence[Any], *_: Any) -> list[InstanceData]:
        return [InstanceData(priors=result.priors) for result in sampled]

    model.rpn_head.predict_by_feat, model.roi_head._next_proposals = propose, keep
