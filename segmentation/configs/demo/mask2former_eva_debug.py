"""The recipe in small: digit scenes on two CPU cores, from the bundled `eva_debug`.

Same model and schedule shape as EVA-g on ADE20K; fewer channels and layers. The adapter needs
patches of 16 px, so scenes and patch embedding of `eva_debug` (8 px) are enlarged twofold.

    python tools/make_demo_data.py --formats semantic --output output/datasets/digit_scenes_semantic
    OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=2 python segmentation/train.py \
        segmentation/configs/demo/mask2former_eva_debug.py

250 * 6 / 2,000 = 0.75 epochs. This should give (measured here, seed 0): mIoU 69 in about 4 minutes.
"""

_base_ = [
    "../_base_/mask2former_eva_g.py",
    "../_base_/digit_scenes.py",
    "../_base_/schedule.py",
    "../_base_/runtime.py",
]

_width = 64
_attention = dict(embed_dims=_width, num_heads=4)
_ffn = dict(embed_dims=_width, feedforward_channels=128)
_positions = dict(num_feats=_width // 2)

model = dict(
    # an enlarged patch has 4 times the pixels: with 4 times the std the embedding stays the same
    data_preprocessor=dict(std=[4 * 58.395, 4 * 57.12, 4 * 57.375], size=(256, 256)),
    backbone=dict(
        img_size=256,
        embed_dim=128,
        depth=5,
        num_heads=4,
        mlp_dim=512,
        drop_path_rate=0.1,
        activation_checkpointing=False,
        interaction_indexes=[[0, 1], [2, 2], [3, 3], [4, 4]],
        conv_inplane=16,
        deform_num_heads=4,
    ),
    decode_head=dict(
        in_channels=[128, 128, 128, 128],
        num_classes=5,
        feat_channels=_width,
        out_channels=_width,
        num_queries=12,
        checkpoint_ffn=False,
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
        train_cfg=dict(num_points=1024),
    ),
    test_cfg=dict(crop_size=(256, 256), stride=(256, 256)),
)
optim_wrapper = dict(
    optimizer=dict(lr=1e-3), paramwise_cfg=dict(layer_decay=0.8, official_head_rule=False)
)
param_scheduler = [dict(type="WarmupPolyLR", warmup_iters=20, by_epoch=False)]
train_cfg = dict(max_iters=250, val_interval=250)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=50))
env_cfg = dict(dist_cfg=dict(backend="gloo"))
randomness = dict(seed=0)
load_from = "eva_debug"
