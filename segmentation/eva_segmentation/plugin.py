"""Registers everything of this package with mmsegmentation; configs name it in `custom_imports`.

The stand-in comes first: what follows imports `mmdet.models` and with it `mmcv.ops`.
"""

from eva_segmentation.model import mmcv_extension

mmcv_extension.install_stand_in()

from eva_segmentation.config import files  # noqa: E402
from eva_segmentation.data import padding, paired_folders, reading  # noqa: E402
from eva_segmentation.evaluation import metric  # noqa: E402
from eva_segmentation.model import backbone, head, segmentor  # noqa: E402
from eva_segmentation.training import (  # noqa: E402
    checkpoint_hook,
    loops,
    optimizer,
    runner,
    schedule,
    step_guard,
)

__all__ = [
    "backbone",
    "checkpoint_hook",
    "files",
    "head",
    "loops",
    "metric",
    "mmcv_extension",
    "optimizer",
    "padding",
    "paired_folders",
    "reading",
    "runner",
    "schedule",
    "segmentor",
    "step_guard",
]
