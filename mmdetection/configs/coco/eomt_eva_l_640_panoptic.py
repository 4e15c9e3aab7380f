"""COCO panoptic with EoMT on EVA-L at 640 px: its recipe for DINOv2-L, no published run of EVA's.

    torchrun --nproc-per-node 4 mmdetection/train.py coco/eomt_eva_l_640_panoptic

With DINOv2-L this should give (EoMT): PQ 56.0.
"""

_base_ = ["../_base_/models/eomt.py", "../_base_/coco_panoptic.py", "../_base_/eomt_run.py"]

from eva_backbone.variants import dense_arguments  # noqa: E402
from eva_mmdetection.parts import testing, training  # noqa: E402

_classes = dict(num_things_classes=80, num_stuff_classes=53)
_sizes = dict(img_size=640, drop_path_rate=0.0, final_norm=True)
model = dict(
    backbone=dense_arguments("eva_l_patch16") | _sizes,
    panoptic_head=_classes,
    panoptic_fusion_head=_classes,
    test_cfg=dict(panoptic_on=True),
)
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=training(640, panoptic=True)))
val_dataloader = dict(dataset=dict(pipeline=testing(640)))
test_dataloader = val_dataloader
default_hooks = dict(checkpoint=dict(save_best="coco_panoptic/PQ"))
load_from = "eva_l_psz14.pt"
work_dir = "output/coco_eomt_eva_l_640_panoptic"
