"""ADE20K with EVA-B: no published run; name the COCO-Stuff segmentor with `--load-from`.

20,000 * 64 / 20,210 = 63.3 epochs on 64 GPUs, one image each; the parent's command.
"""

_base_ = "mask2former_eva_g_896_20k.py"

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
