"""Registers everything of this package with mmdetection; configs name it in `custom_imports`.

The stand-in comes first: what follows imports `mmdet.models` and with it `mmcv.ops`. Then
`mmdet.datasets`, without what it prints.
"""

from eva_openmmlab.stand_in import import_datasets, install_stand_in

install_stand_in()
import_datasets("mmdet.datasets")

from mmdet.datasets.transforms import Resize
from mmdet.registry import MODELS, TRANSFORMS

from eva_mmdetection.data import coco_file
from eva_mmdetection.evaluation import metrics
from eva_mmdetection.model import federated_loss, heads, slices, weights
from eva_openmmlab import config, hooks, images, loop, optimizer
from eva_openmmlab.backbone import EVAViT

MODELS.register_module(module=EVAViT)  # so that "mmdet.EVAViT" names it too
# mmdetection's inferencers look for this name, and build the reader by it
TRANSFORMS.register_module(name="LoadImageFromFile", module=images.LoadPicture)


@TRANSFORMS.register_module(name="Resize", force=True)  # also for what `RandomResize` builds
class ResizeKeepingSides(images.KeepSides, Resize):
    """mmdetection's `Resize`, also of images that are very long."""
