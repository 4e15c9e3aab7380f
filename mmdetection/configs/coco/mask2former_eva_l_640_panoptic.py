"""COCO panoptic with Mask2Former on ViT-Adapter and EVA-L at 640 px: no published run of EVA's.

Batch and schedule are EoMT's, whose authors train this baseline with them; layer decay too.
With DINOv2-L this should give (EoMT, arXiv 2503.19108, Table 2): PQ 57.1; with EVA-02-L 56.7.
"""

_base_ = ["../_base_/models/mask2former.py", "../_base_/coco_panoptic.py", "../_base_/eomt_run.py"]

from eva_backbone.variants import dense_arguments  # noqa: E402
from eva_mmdetection.parts import testing, training  # noqa: E402

model = dict(backbone=dense_arguments("eva_l_patch16") | dict(img_size=640, drop_path_rate=0.3))
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=training(640, panoptic=True)))
val_dataloader = dict(dataset=dict(pipeline=testing(640)))
test_dataloader = val_dataloader
custom_hooks = []  # type: ignore[var-annotated]  # nothing is annealed
default_hooks = dict(checkpoint=dict(save_best="coco_panoptic/PQ"))
load_from = "eva_l_psz14.pt"
work_dir = "output/coco_mask2former_eva_l_640_panoptic"
