"""EoMT on a small scale: digit scenes on two CPU cores, from the bundled `eva_debug`.

Queries in the last two of five blocks; scenes have their own 128 px, patches 8 px, masks a quarter.
Data and command as in `mask2former_eva_debug.py`, with the name of this file.
"""

_base_ = ["../_base_/eomt.py", "../_base_/digit_scenes.py", "../_base_/debug_run.py"]

from eva_segmentation.parts import plain_vit, testing, training  # noqa: E402

_vit = plain_vit("eva_debug", img_size=128, drop_path_rate=0.1, activation_checkpointing=False)
model = dict(
    data_preprocessor=dict(size=(128, 128)),
    backbone=dict(num_queries=12, query_blocks=2, **_vit | dict(final_norm=True)),
    decode_head=dict(in_channels=128, num_classes=5, num_points=1024),
    test_cfg=dict(crop_size=(128, 128), stride=(128, 128)),
)
_pipeline = training(128, aspect=1, ratios=(1.0, 1.5), cat_max_ratio=0.95)
train_dataloader = dict(batch_size=16, dataset=dict(pipeline=_pipeline))
test_pipeline = testing(128)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
optim_wrapper = dict(clip_grad=dict(max_norm=1.0))
custom_hooks = [dict(type="AnnealMasks")]
tta_model = None  # the parent's scales are for another size
tta_pipeline = None
