"""COCO instances with EoMT on EVA-L at 640 px: its recipe for DINOv2-L, no published run of EVA's.

The last block learns at 0.8 of the peak, that of the public code at the peak.

    torchrun --nproc-per-node 4 mmdetection/train.py coco/eomt_eva_l_640_instance

With DINOv2-L this should give (EoMT): mask AP 45.2.
"""

_base_ = ["../_base_/models/eomt.py", "../_base_/coco.py", "../_base_/eomt_run.py"]

from eva_backbone.variants import dense_arguments  # noqa: E402
from eva_mmdetection.parts import testing, training  # noqa: E402

_sizes = dict(img_size=640, drop_path_rate=0.0, final_norm=True)
model = dict(backbone=dense_arguments("eva_l_patch16") | _sizes)
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=training(640, bitmaps=True)))
val_dataloader = dict(dataset=dict(pipeline=testing(640)))
test_dataloader = val_dataloader
load_from = "eva_l_psz14.pt"
work_dir = "output/coco_eomt_eva_l_640_instance"
