"""A segmentor's training step for `eva plan`; which query an object gets is given."""

from typing import Any

import torch
from mmdet.models.task_modules.assigners import AssignResult
from mmengine.config import Config
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from eva_openmmlab import planning
from eva_runs.memory import MeasuredStep
from eva_segmentation.data import custom_data

CLASSES = 16  # in an image

read_recipe = planning.reader("segmentation", custom_data)


def step(cfg: Config) -> MeasuredStep:
    """Build a step of one process."""
    return planning.build_step(cfg, _sample)


def _sample(model: Any, side: int) -> SegDataSample:
    head = model.decode_head
    if hasattr(head, "assigner"):
        head.assigner.assign = _match
    bands = torch.arange(side)[:, None].expand(1, -1, side) * min(CLASSES, head.num_classes) // side
    metas = dict(img_shape=(side, side), pad_shape=(side, side), ori_shape=(side, side))
    return SegDataSample(gt_sem_seg=PixelData(data=bands), metainfo=metas)


def _match(pred_instances: Any, gt_instances: Any, **_: Any) -> AssignResult:
    matched = torch.zeros(len(pred_instances.scores), dtype=torch.int64)
    matched[: len(gt_instances.labels)] = torch.arange(len(gt_instances.labels)) + 1
    return AssignResult(len(gt_instances.labels), matched, None, labels=gt_instances.labels)
