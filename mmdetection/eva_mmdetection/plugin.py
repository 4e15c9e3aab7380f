"""Registers everything of this package with mmdetection; configs name it in `custom_imports`.

The stand-in comes first: what follows imports `mmdet.models` and with it `mmcv.ops`. Then
`mmdet.datasets`, without what it prints.
"""

from eva_openmmlab.stand_in import import_datasets, install_stand_in

install_stand_in()
import_datasets("mmdet.datasets")

from mmdet.datasets.transforms import Resize  # noqa: E402
from mmdet.registry import MODELS, TRANSFORMS  # noqa: E402

from eva_mmdetection.data import coco_file  # noqa: E402
from eva_mmdetection.evaluation import metrics  # noqa: E402
from eva_mmdetection.model import federated_loss, heads, weights  # noqa: E402
from eva_openmmlab import config, hooks, images, loop, optimizer  # noqa: E402
from eva_openmmlab.backbone import EVAViT  # noqa: E402

MODELS.register_module(module=EVAViT)  # so that "mmdet.EVAViT" names it too
# mmdetection's inferencers look for this name, and build the reader by it
TRANSFORMS.register_module(name="LoadImageFromFile", module=images.LoadPicture)


@TRANSFORMS.register_module(name="Resize", force=True)  # also for what `RandomResize` builds
class ResizeKeepingSides(images.KeepSides, Resize):
    """mmdetection's `Resize`, also of images that are very long."""


__all__ = [
    "coco_file",
    "config",
    "federated_loss",
    "heads",
    "hooks",
    "images",
    "loop",
    "metrics",
    "optimizer",
    "weights",
]
