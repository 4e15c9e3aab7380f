"""Mask2Former on ViT-Adapter on a small scale: panoptic digit scenes on two CPU cores.

    eva data make-demo --output output/datasets/digit_scenes --formats panoptic
    eva mmdetection train demo/mask2former_eva_debug_panoptic

The adapter needs patches of 16 px, so scenes and patch embedding of `eva_debug` (8 px) are enlarged
twofold, and the deviation fourfold. 300 * 4 / 2,000 = 0.6 epochs.
"""

_base_ = [
    "../_base_/models/mask2former.py",
    "../_base_/digit_scenes_panoptic.py",
    "../_base_/debug_run.py",
]

from eva_backbone.variants import dense_arguments  # noqa: E402
from eva_mmdetection.parts import testing, training  # noqa: E402

_sizes = dict(patch_size=16, img_size=256, pretrain_img_size=256, drop_path_rate=0.1)
_adapter = dict(interaction_indexes=[[0, 1], [2, 2], [3, 3], [4, 4]], conv_inplane=16)
_attention = dict(embed_dims=64, num_heads=4)
_ffn = dict(embed_dims=64, feedforward_channels=128)
_positions = dict(num_feats=32)
_classes = dict(num_things_classes=10, num_stuff_classes=4)
model = dict(
    data_preprocessor=dict(std=[4 * 58.395, 4 * 57.12, 4 * 57.375], pad_size_divisor=256),
    backbone=dense_arguments("eva_debug")
    | dict(deform_num_heads=4, activation_checkpointing=False)
    | _sizes
    | _adapter,
    panoptic_head=dict(
        in_channels=[128, 128, 128, 128],
        feat_channels=64,
        out_channels=64,
        num_queries=20,
        positional_encoding=_positions,
        pixel_decoder=dict(
            norm_cfg=dict(num_groups=8),
            positional_encoding=_positions,
            encoder=dict(num_layers=2, layer_cfg=dict(self_attn_cfg=_attention, ffn_cfg=_ffn)),
        ),
        transformer_decoder=dict(
            num_layers=3,
            layer_cfg=dict(self_attn_cfg=_attention, cross_attn_cfg=_attention, ffn_cfg=_ffn),
        ),
        **_classes,
    ),
    panoptic_fusion_head=_classes,
    train_cfg=dict(num_points=1024),
    test_cfg=dict(object_mask_thr=0.4),  # 0.8 is for long trainings
)
_colours = [dict(type=kind, min_mag=0.8, max_mag=1.2) for kind in ("Brightness", "Contrast")]
_pipeline = training(256, ratios=(0.8, 1.25), flip=0.0, panoptic=True, extra=_colours)
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=_pipeline))
val_dataloader = dict(dataset=dict(pipeline=testing(256)))
test_dataloader = val_dataloader
train_cfg = dict(max_iters=300, val_interval=300)
default_hooks = dict(checkpoint=dict(save_best="coco_panoptic/PQ"))
work_dir = "output/demo_mask2former_debug_panoptic"
