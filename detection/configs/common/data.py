"""COCO with large-scale jitter at 1280 px (ViTDet; paper Table 18)."""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from eva_detection.config.recipes import stock_config
from eva_detection.data.mapper import ImageMapper
from eva_detection.evaluation.evaluators import CocoEvaluator

dataloader = stock_config("common/data/coco.py").dataloader

IMAGE_SIZE = 1280

dataloader.train.mapper.update(
    _target_=ImageMapper,
    image_format="RGB",
    recompute_boxes=True,
    augmentations=[
        L(T.RandomFlip)(horizontal=True),
        L(T.ResizeScale)(
            min_scale=0.1, max_scale=2.0, target_height=IMAGE_SIZE, target_width=IMAGE_SIZE
        ),
        L(T.FixedSizeCrop)(crop_size=(IMAGE_SIZE, IMAGE_SIZE), pad=False),
    ],
)
dataloader.train.total_batch_size = 64
dataloader.test.mapper.update(
    _target_=ImageMapper,
    augmentations=[L(T.ResizeShortestEdge)(short_edge_length=IMAGE_SIZE, max_size=IMAGE_SIZE)],
)
dataloader.evaluator = L(CocoEvaluator)(
    dataset_name="${..test.dataset.names}", output_dir="${train.output_dir}/inference"
)
