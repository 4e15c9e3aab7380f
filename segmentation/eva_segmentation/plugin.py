"""Registers everything of this package with mmsegmentation; configs name it in `custom_imports`.

The stand-in comes first: what follows imports `mmdet.models` and with it `mmcv.ops`. Then
`mmseg.datasets`, without what it prints.
"""

from eva_openmmlab.stand_in import import_datasets, install_stand_in

install_stand_in()
import_datasets("mmseg.datasets")

from mmseg.datasets.transforms import Resize  # noqa: E402
from mmseg.registry import TRANSFORMS  # noqa: E402

from eva_openmmlab import config, hooks, images, loop, optimizer  # noqa: E402
from eva_segmentation.data import loading  # noqa: E402
from eva_segmentation.evaluation import metric  # noqa: E402
from eva_segmentation.model import backbone, head, segmentor  # noqa: E402


@TRANSFORMS.register_module(name="Resize", force=True)  # also for what `RandomResize` builds
class ResizeKeepingSides(images.KeepSides, Resize):
    """mmsegmentation's `Resize`, also of images that are very long."""


__all__ = [
    "backbone",
    "config",
    "head",
    "hooks",
    "images",
    "loading",
    "loop",
    "metric",
    "optimizer",
    "segmentor",
]
