"""Registers everything of this package with mmsegmentation; configs name it in `custom_imports`.

The stand-in comes first: what follows imports `mmdet.models` and with it `mmcv.ops`.
"""

from eva_segmentation import mmcv_extension

mmcv_extension.install_stand_in()

from eva_segmentation import (  # noqa: E402
    backbone,
    checkpoint_hook,
    head,
    label_maps,
    loading,
    loops,
    optimizer,
    own_dataset,
    padding,
    runner,
    saved_config,
    schedule,
    segmentor,
    step_guard,
)

__all__ = [
    "backbone",
    "checkpoint_hook",
    "head",
    "label_maps",
    "loading",
    "loops",
    "mmcv_extension",
    "optimizer",
    "own_dataset",
    "padding",
    "runner",
    "saved_config",
    "schedule",
    "segmentor",
    "step_guard",
]
