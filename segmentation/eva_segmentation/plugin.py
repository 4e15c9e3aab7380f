"""Registers everything of this package with mmsegmentation; configs name it in `custom_imports`.

The stand-in comes first: what follows imports `mmdet.models` and with it `mmcv.ops`.
"""

from eva_segmentation.model import mmcv_extension

mmcv_extension.install_stand_in()

from eva_segmentation.data import loading, own_dataset  # noqa: E402
from eva_segmentation.evaluation import saved_maps  # noqa: E402
from eva_segmentation.model import backbone, head, padding, segmentor  # noqa: E402
from eva_segmentation.training import (  # noqa: E402
    checkpoint_hook,
    loops,
    optimizer,
    runner,
    saved_config,
    schedule,
    step_guard,
)

__all__ = [
    "backbone",
    "checkpoint_hook",
    "head",
    "loading",
    "loops",
    "mmcv_extension",
    "optimizer",
    "own_dataset",
    "padding",
    "runner",
    "saved_config",
    "saved_maps",
    "schedule",
    "segmentor",
    "step_guard",
]
