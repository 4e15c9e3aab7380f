"""A segmentor's training step for `eva plan`; which query an object gets is given."""

from typing import Any

import torch
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
    return planning.build_step(cfg, sample)


def sample(model: Any, side: int) -> SegDataSample:
    """Make the sample of an image, bands of classes; queries get them in order."""
    head = model.decode_head
    if hasattr(head, "assigner"):
        head.assigner.assign = planning.match
    bands = torch.arange(side)[:, None].expand(1, -1, side) * min(CLASSES, head.num_classes) // side
    metas = dict(img_shape=(side, side), pad_shape=(side, side), ori_shape=(side, side))
    return SegDataSample(gt_sem_seg=PixelData(data=bands), metainfo=metas)
