"""Registers everything of this package with mmdetection; configs name it in `custom_imports`.

The stand-in comes first: what follows imports `mmdet.models` and with it `mmcv.ops`. Then
`mmdet.datasets`, without what it prints. Weights, official or own, are loaded completely or not at
all, under either's names: `load_start` knows mmdetection's detectors, and mmengine's own loader
(`init_detector`, mmdetection's `tools/test.py`) takes official files, by path or by name.
"""

import os
from typing import Any

from eva_openmmlab.stand_in import import_datasets, install_stand_in

install_stand_in()
import_datasets("mmdet.datasets")

from mmdet.datasets import utils as dataset_utils
from mmdet.models.detectors import BaseDetector
from mmdet.registry import MODELS, TRANSFORMS
from mmengine.runner import CheckpointLoader
from torch import nn

from eva_backbone import LoadReport, load_pretrained
from eva_mmdetection.data import coco_file, panoptic
from eva_mmdetection.evaluation import metrics
from eva_mmdetection.model import federated_loss, heads, mask2former, slices
from eva_mmdetection.model.detectron2_names import IGNORED, is_detectron2, mmdet_name, to_mmdet
from eva_openmmlab import config, eomt, hooks, images, loop, optimizer
from eva_openmmlab.adapter_backbone import ADAPTER, EVAViTAdapter
from eva_openmmlab.backbone import EVAViT
from eva_openmmlab.weights import load_from_local_safely, load_start

_HEADS = r"(rpn_head|roi_head|bbox_head|panoptic_head|neck)\."
# What a file of a backbone, or of a detector without masks, cannot have.
_MISSING = (r"backbone\.simfp_", ADAPTER, eomt.QUERIES, _HEADS)
_FEDERATED = r"roi_head\.bbox_head\.\d\.loss_cls\.fed_loss_cls_weights$"
_MASK_HEAD = r"roi_head\.mask_head\."  # left in the file where the detector has none
# What depends on the classes: from Objects365 to COCO and LVIS these start from scratch.
_CLASSIFIERS = (
    r"roi_head\.bbox_head\.(\d\.)?(fc_cls|fc_reg)\.",
    r"roi_head\.mask_head\.conv_logits\.",
    r"panoptic_head\.cls_embed\.",
    _FEDERATED,
)

for _backbone in (EVAViT, EVAViTAdapter):  # so that "mmdet.EVAViT" names it too
    MODELS.register_module(module=_backbone)
# mmdetection's inferencers look for this name, and build the reader by it
TRANSFORMS.register_module(name="LoadImageFromFile", module=images.LoadPicture)
dataset_utils.LoadImageFromFile = images.LoadPicture  # `get_loading_pipeline` compares classes


@load_start.register(BaseDetector)
def load_detector(
    model: nn.Module, source: str | os.PathLike[str], *, complete: bool = False
) -> LoadReport:
    """Load a backbone or a complete detector, of mmdetection or detectron2; see `load_start`."""
    if complete:
        return load_pretrained(
            model, source, complete=True, allow_skipped=(IGNORED,), rename=mmdet_name
        )
    return load_pretrained(
        model,
        source,
        allow_missing=_MISSING,
        allow_skipped=(IGNORED, _FEDERATED, _MASK_HEAD),
        reinitialise=_CLASSIFIERS,
        rename=mmdet_name,
    )


@CheckpointLoader.register_scheme(prefixes="", force=True)
def load_from_local_or_detectron2(filename: str, map_location: Any = None) -> Any:
    """Read a checkpoint as `load_from_local_safely`, with an official detector's names translated.

    Returns:
        The content; weights of a detector under detectron2's names with an empty `meta`.
    """
    content = load_from_local_safely(filename, map_location)
    weights = content["state_dict"] if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not is_detectron2(weights):
        return content
    return {"state_dict": to_mmdet(weights)[0], "meta": {}}
