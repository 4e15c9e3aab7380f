"""Registers everything of this package with mmsegmentation; configs name it in `custom_imports`.

The stand-in comes first: what follows imports `mmdet.models` and with it `mmcv.ops`.
"""

from eva_openmmlab import mmcv_extension

mmcv_extension.install_stand_in()

from eva_openmmlab import plugin as shared  # noqa: E402
from eva_segmentation.data import padding, paired_folders, reading  # noqa: E402
from eva_segmentation.evaluation import metric  # noqa: E402
from eva_segmentation.model import backbone, head, segmentor, weights  # noqa: E402
from eva_segmentation.training import schedule  # noqa: E402

__all__ = [
    "backbone",
    "head",
    "metric",
    "mmcv_extension",
    "padding",
    "paired_folders",
    "reading",
    "schedule",
    "segmentor",
    "shared",
    "weights",
]
