"""EoMT on a small scale: digit scenes on two CPU cores, from the bundled `eva_debug`.

Queries in the last two of five blocks; patches of 8 px, masks a quarter of the image.
"""

_base_ = ["../_base_/models/eomt.py", "../_base_/digit_scenes.py", "../_base_/debug_run.py"]

from eva_backbone.variants import dense_arguments  # noqa: E402

_vit = dense_arguments("eva_debug") | dict(img_size=128, drop_path_rate=0.1, final_norm=True)
model = dict(
    data_preprocessor=dict(pad_size_divisor=128),
    backbone=dict(num_queries=20, query_blocks=2, activation_checkpointing=False, **_vit),
    panoptic_head=dict(in_channels=128, num_things_classes=10, num_points=1024),
    panoptic_fusion_head=dict(num_things_classes=10),
    test_cfg=dict(object_mask_thr=0.4),  # of panoptic segments; 0.8 is for long trainings
)
custom_hooks = [dict(type="AnnealMasks")]
train_cfg = dict(max_iters=450, val_interval=450)
default_hooks = dict(checkpoint=dict(save_best="coco/segm_mAP"))
work_dir = "output/demo_eomt_debug"
