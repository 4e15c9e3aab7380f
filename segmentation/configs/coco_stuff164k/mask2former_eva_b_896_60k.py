"""COCO-Stuff-164K with EVA-B: no published run and no published weights, not tuned.

Name a backbone of your own with `--load-from`. 60,000 * 32 / 118,287 = 16.2 epochs, lr 4e-5, on 32
GPUs, one image each; the parent's command.
"""

_base_ = "mask2former_eva_g_896_60k.py"

model = dict(
    backbone=dict(
        embed_dim=768,
        depth=12,
        num_heads=12,
        mlp_dim=3072,
        drop_path_rate=0.2,
    ),
    decode_head=dict(in_channels=[768, 768, 768, 768]),
)
optim_wrapper = dict(optimizer=dict(lr=4e-5), paramwise_cfg=dict(layer_decay=0.85))
load_from = None
